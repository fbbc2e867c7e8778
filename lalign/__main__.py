"""`python -m lalign` and the `lalign` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; exits with its status."""
    from lalign.cli import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()

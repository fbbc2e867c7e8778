"""`python -m lalign` and the `lalign` command."""

from __future__ import annotations

import gc
import os
import re
import sys

OBJECTS_BETWEEN_COLLECTIONS = 100_000


def _quiet_bars(arguments: list[str]) -> None:
    """Keeps the bars of libraries, such as that of a conversion, out of log files and from who wants quiet.

    tqdm looks at this as it is imported.
    """
    quiet = any(word == "--quiet" or re.fullmatch(r"-\w*q\w*", word) for word in arguments)
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")


def main() -> None:
    """Run the command line; exits with its status."""
    # Large pages for large tensors: a decoding step reads all weights, and is faster by a tenth for it. torch looks
    # at this when it allocates for the first time.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    _quiet_bars(sys.argv[1:])
    # Importing torch and transformers makes a million objects, none of them garbage: looking for it takes a fifth of
    # the start.
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)
    try:
        from lalign.cli.terminal import protect_stderr

        protect_stderr()
        from lalign.cli.run import run

        sys.exit(run(sys.argv[1:]))
    except KeyboardInterrupt:  # while modules load
        sys.exit(130)


if __name__ == "__main__":
    main()

"""Where measured tables stand in the pages."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def fill_in(page: str, name: str, text: str) -> None:
    """Put a text between `<!-- measured: NAME -->` and `<!-- end -->`."""
    path = DOCS / page
    place = re.compile(rf"(?<=<!-- measured: {re.escape(name)} -->\n).*?(?=<!-- end -->)", re.DOTALL)
    content, count = place.subn(lambda _: text.rstrip("\n") + "\n", path.read_text(encoding="utf-8"))
    assert count == 1, f"{page} has no place for {name}"
    path.write_text(content, encoding="utf-8")

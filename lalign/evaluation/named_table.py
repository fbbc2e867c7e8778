"""Tables of figures by name for a terminal of 80 columns: no figure is broken, and a long name stands below."""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence
from itertools import count
from typing import TYPE_CHECKING

from lalign.text import printable

if TYPE_CHECKING:
    from rich.console import Group

COLUMNS = 80
# What the versus of a second name takes.
_VERSUS = "vs "


def named_table(
    heading: str, headings: Sequence[str], rows: Sequence[tuple[Sequence[str], Sequence[str]]], caption: str
) -> Group:
    """A row's names, the second under the first, and its figures; names for which there is no room are given letters.

    Args:
        heading: of the names.
        headings: of the figures.
        rows: one name or two of each, and its figures, which may have several lines.
        caption: below the table; what letters mean stands below it.
    """
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    labels = labelled([name for names, _ in rows for name in names], _room(headings, rows))
    made = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), caption=caption)
    made.caption_justify = "left"
    made.add_column(heading, no_wrap=True)
    for name in headings:
        made.add_column(name, justify="right", no_wrap=True)
    for names, figures in rows:
        made.add_row(Text(f"\n{_VERSUS}".join(labels[name] for name in names)), *figures)
    legend = Table.grid(padding=(0, 2, 0, 0))
    legend.add_column(no_wrap=True)
    legend.add_column(overflow="fold")
    for name, label in labels.items():
        if label != printable(name):
            legend.add_row(Text(label), Text(printable(name)))
    return Group(made, legend) if legend.row_count else Group(made)


def labelled(names: Sequence[str], room: int) -> dict[str, str]:
    """What each name is called where there is room for so many columns: itself, else by a letter that no name is."""
    from rich.cells import cell_len

    shown = {name: printable(name) for name in names}
    letters = (letter for letter in _letters() if letter not in shown.values())
    return {name: text if cell_len(text) <= room else next(letters) for name, text in shown.items()}


def _letters() -> Iterator[str]:
    yield from string.ascii_uppercase
    yield from (f"{letter}{number}" for number in count(2) for letter in string.ascii_uppercase)


def _room(headings: Sequence[str], rows: Sequence[tuple[Sequence[str], Sequence[str]]]) -> int:
    """How wide a name may be beside the figures."""
    widest = [
        max(len(line) for text in column for line in text.split("\n"))
        for column in zip(headings, *(figures for _, figures in rows), strict=True)
    ]
    # Each column has a space and a rule behind it, and the table an edge.
    taken = sum(widest) + 2 * (len(widest) + 1) + 1
    return COLUMNS - taken - (len(_VERSUS) if any(len(names) > 1 for names, _ in rows) else 0)

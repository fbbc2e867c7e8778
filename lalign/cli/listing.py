"""The recipes as a table on stdout."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lalign.method.listing import NOTATION, listing


def show_recipes() -> None:
    """Print name, default strength, formula and source of each, as wide as the terminal."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, caption=NOTATION, caption_justify="left")
    table.add_column("recipe", no_wrap=True)
    table.add_column("--ratio", justify="right")
    table.add_column("formula", ratio=1)
    table.add_column("source")
    for entry in listing():
        cells = (entry["recipe"], f"{entry['options']['ratio']:.5g}", entry["formula"], entry["source"])
        table.add_row(*map(Text, cells))
    Console().print(table)

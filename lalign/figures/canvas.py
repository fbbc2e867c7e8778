"""What all figures share: formats, widths in print, type, colours, and what is said of a figure in words.

matplotlib is loaded only when a figure is drawn.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from html import escape
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from lalign.errors import OptionError, OutputError
from lalign.text import printable

PlotFormat = Literal["pdf", "png", "svg", "html"]
Width = Literal["column", "full"]
# Inches in print: a column of two, and the text of a page.
WIDTHS: dict[str, float] = {"column": 3.3, "full": 6.9}
POINTS = 8  # of all type, at that size
# About so many points are as wide as a letter of the typeface.
LETTER = 4.2
# Of Okabe and Ito, told apart by those who see fewer colours too; by marker and dash as well.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000", "#e69f00", "#56b4e9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (3, 1)), (0, (1, 1)))
LONGEST_TITLE = 40
LONGEST_PRINCIPLE = 70
MOST_TICKS = 7


@dataclass(frozen=True, slots=True)
class About:
    """What a figure is of, for the line below it: the model's name and the principles; what is not known is left out.

    note: what else is to be said, such as who judged.
    """

    model: str | None = None
    principles: Sequence[str] = ()
    note: str | None = None

    def line(self, counted: str) -> str:
        """The line, with what was `counted` before the rest: "n = 32"."""
        parts = [counted]
        if self.model is not None:
            parts.append(f"model {printable(Path(self.model).name.removesuffix('.gguf'))}")
        if self.principles:
            several = f" and {len(self.principles) - 1} more" if len(self.principles) > 1 else ""
            parts.append(f"principle “{shortened(' '.join(self.principles[0].split()), LONGEST_PRINCIPLE)}”{several}")
        return "; ".join([*parts, *([self.note] if self.note else [])])


def counted(numbers: Iterable[int]) -> str:
    """`n = 32`, or `n = 30 to 32` where there were not as many everywhere."""
    found = sorted(set(numbers)) or [0]
    return f"n = {found[0]}" if len(found) == 1 else f"n = {found[0]} to {found[-1]}"


def plot_format(path: Path, *, option: str = "plot", page: bool = True) -> PlotFormat:
    """The format that a plot's file name asks for.

    Raises `OptionError` for another ending than .pdf, .png, .svg or, where there is a `page` of it, .html; and for the
    first three where matplotlib is absent.
    """
    suffix = path.suffix.lower().removeprefix(".")
    if suffix == "html" and page:
        return "html"
    if suffix not in ("pdf", "png", "svg"):
        known = ".pdf, .png, .svg or .html" if page else ".pdf, .png or .svg"
        raise OptionError(option, f"must name a {known} file, not {path.name!r}")
    _matplotlib(option)
    return suffix  # type: ignore[return-value]


def style() -> AbstractContextManager[None]:
    """The look that all figures share, while entered."""
    sizes = ("font.size", "axes.titlesize", "axes.labelsize", "xtick.labelsize", "ytick.labelsize", "legend.fontsize")
    settings = {
        **dict.fromkeys(sizes, POINTS),
        "figure.labelsize": POINTS,
        "axes.linewidth": 0.6,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "xtick.major.size": 2.5,
        "ytick.major.size": 2.5,
        "lines.linewidth": 1.2,
        "pdf.fonttype": 42,  # whole fonts, which can be searched and which publishers take
        "svg.fonttype": "none",  # text stays text: small, searchable, and read out
        "svg.hashsalt": "lalign",  # the same sweep gives the same file
    }
    context: AbstractContextManager[None] = _matplotlib().rc_context(settings)
    return context


def new_figure(width: Width, height: float) -> Any:
    """An empty figure, so many inches high."""
    figure = import_module("matplotlib.figure").Figure(figsize=(WIDTHS[width], height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0.03, hspace=0.03)
    return figure


def write_below(figure: Any, line: str) -> None:
    """The caption's line below everything, in as many lines as its width needs."""
    figure.supxlabel(wrapped(line, figure.get_figwidth()), x=0.01, ha="left", color="#444444", parse_math=False)


def wrapped(text: str, inches: float) -> str:
    """`text` in lines of at most so many inches."""
    return textwrap.fill(text, max(12, int(72 * inches / LETTER)))


def shortened(text: str, most: int = LONGEST_TITLE) -> str:
    """Text of a user, without control characters, of at most so many letters."""
    shown = printable(text)
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def name_axes(cell: Any, title: str, unit: str, across: str) -> None:
    """The names of a panel and of its axes, and the lines that all panels have."""
    # A title may come from a user's file: no mathematics in it, no control characters.
    cell.set_title(shortened(title), loc="left", parse_math=False)
    cell.set_xlabel(across)
    cell.set_ylabel(unit)
    cell.spines[["top", "right"]].set_visible(False)
    cell.grid(axis="y", color="#dddddd", linewidth=0.5)
    cell.set_axisbelow(True)


def set_ticks(cell: Any, places: Iterable[float]) -> None:
    """Ticks of the horizontal axis: whole numbers where all places are, and these themselves where they are few."""
    found = sorted(set(places))
    if not all(float(place).is_integer() for place in found):
        cell.xaxis.set_major_locator(import_module("matplotlib.ticker").MaxNLocator(3))
    elif 1 <= len(found) <= MOST_TICKS:
        cell.set_xticks(found, [f"{place:g}" for place in found])
    else:
        cell.xaxis.set_major_locator(import_module("matplotlib.ticker").MaxNLocator(6, integer=True))


def save(figure: Any, path: Path, title: str, description: str) -> None:
    """Write a figure as .pdf, .png or .svg, with words for those who cannot see it.

    Raises `OptionError` for another ending or where matplotlib is absent, `OutputError` where the file cannot be
    written.
    """
    kind = plot_format(path, page=False)
    title, description = printable(title), printable(description)
    # No dates, so that the same data give the same file.
    metadata = {
        "pdf": {"Title": title, "Subject": description, "CreationDate": None},
        "png": {"Title": title, "Description": description},
        "svg": {"Title": title, "Description": description, "Date": None},
    }[kind]
    drawn = io.BytesIO()
    figure.savefig(drawn, format=kind, dpi=200, metadata=metadata)
    data = drawn.getvalue()
    if kind == "svg":
        told = f"</title>\n <desc>{escape(description)}</desc>".encode()
        data = data.replace(b"</title>", told, 1)
    try:
        path.write_bytes(data)
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror or error}") from None


def _matplotlib(option: str = "plot") -> Any:
    try:
        return import_module("matplotlib")
    except ImportError:
        raise OptionError(option, "needs matplotlib: pip install 'lalign[plot]'") from None

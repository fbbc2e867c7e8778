"""The report of `lalign bench` for people: legible in 80 columns, and as Markdown for a page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

MEGABYTE = 1 << 20
HEADINGS = ("batch", "way", "tokens/s", "first\ns", "prefill\ns", "step\nms", "memory\nMB", "equal")
NAMES = (1,)  # of the columns, those that are words


def tables(found: Mapping[str, Any]) -> list[Table]:
    """Runs, what their names mean, and ratios if there are any: medians, their spread in brackets, no figure broken."""
    model = found["model"]
    title = ", ".join(text for text in (model["model"], model["device"], model["dtype"]) if text)
    runs = _table(title)
    for place, heading in enumerate(HEADINGS):
        runs.add_column(heading, justify="left" if place in NAMES else "right", no_wrap=True)
    for cells in _runs(found):
        runs.add_row(*map(Text, cells))
    legend = Table.grid(padding=(0, 2))
    legend.add_column(no_wrap=True)
    legend.add_column()
    for name, meaning in _legend(found):
        legend.add_row(Text(name), Text(meaning))
    ratios = _table("Ratios, within each round")
    ratios.add_column("batch", justify="right", no_wrap=True)
    ratios.add_column("")
    ratios.add_column("ratio", justify="right", no_wrap=True)
    for cells in _ratios(found):
        ratios.add_row(*map(Text, cells))
    return [runs, legend, ratios] if ratios.row_count else [runs, legend]


def _table(title: str) -> Table:
    return Table(title=title, box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)


def markdown(found: Mapping[str, Any]) -> str:
    """The same as Markdown."""
    parts = [
        *_markdown([heading.replace("\n", ", ") for heading in HEADINGS], NAMES, _runs(found)),
        "",
        *(f"- `{name}`: {meaning}" for name, meaning in _legend(found)),
    ]
    if ratios := list(_ratios(found)):
        parts += ["", *_markdown(["batch", "ratio, within each round", ""], NAMES, ratios)]
    return "\n".join(parts) + "\n"


def _runs(found: Mapping[str, Any]) -> Iterator[list[str]]:
    for row in found["runs"]:
        yield [
            str(row["batch_size"]),
            row["contender"],
            _spread(row["tokens_per_second"]),
            _figure(row["first_token_seconds"]["median"]),
            _figure(row["prefill_seconds"]["median"]),
            f"{1000 * row['step_seconds']['median']:.0f}",
            f"{max(row['peak_memory']['median'], row['load_memory']) / MEGABYTE:.0f}",
            f"{row['same_responses']}/{row['responses']}" if "same_as" in row else "",
        ]


def _ratios(found: Mapping[str, Any]) -> Iterator[list[str]]:
    for size, by_name in found["ratios"].items():
        for name, value in by_name.items():
            yield [size, name, _spread(value)]


def _legend(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    twins = {row["contender"]: row["same_as"] for row in found["runs"] if "same_as" in row}
    for name, contender in found["contenders"].items():
        equal = f" (equal: to {twins[name]})" if name in twins else ""
        yield name, f"{contender['meaning']}{equal}"
    yield "memory", "the most that the process had resident, loading included"
    if twins:
        yield "equal", "responses that are token for token those of another way"


def _markdown(headings: Sequence[str], names: Sequence[int], rows: Iterable[list[str]]) -> list[str]:
    rule = [":--" if place in names else "--:" for place in range(len(headings))]
    return [f"| {' | '.join(cells)} |" for cells in (list(headings), rule, *rows)]


def _spread(value: Mapping[str, float]) -> str:
    low, median, high = (_figure(value[key]) for key in ("low", "median", "high"))
    return f"{median} [{low}-{high}]"


def _figure(number: float) -> str:
    """Three digits, as far as they stand behind the point."""
    return f"{number:.0f}" if number >= 100 else f"{number:.1f}" if number >= 10 else f"{number:.2f}"

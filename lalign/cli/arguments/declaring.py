"""How an option is declared, and the panels of `--help`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import typer

PRINCIPLE = "Principle and alignment"
SAMPLING = "Sampling"
MODEL = "Model"
OUTPUT = "Input and output"
RUN = "Running"
SWEEP = "Points"
EVAL = "Evaluation"
ASK = "Who is asked"
JUDGE = "Judging"
CONSTRUCT = "Construction"
RAY = "Ray"

CHOICES_WIDTH = 14


def option(
    help: str,
    panel: str,
    *names: str,
    default: str | bool = True,
    metavar: str | None = None,
    choices: Iterable[str] = (),
) -> Any:
    """An option whose default, where it depends on others, is shown as `default`.

    choices: all values that it takes, for help and for shells to complete; the library is who refuses others.
    """
    values = list(choices)

    def begun(incomplete: str) -> list[str]:
        return [value for value in values if value.startswith(incomplete)]

    return typer.Option(
        *names,
        help=help,
        rich_help_panel=panel,
        show_default=default,
        metavar=metavar or _choices(values) or None,
        autocompletion=begun if values else None,
    )


def flag(help: str, panel: str, *names: str, default: str | bool = False) -> Any:
    """An option without a value."""
    # Typer would write <bool> beside it, in room that the text needs.
    return typer.Option(*names, help=help, rich_help_panel=panel, show_default=default, metavar="")


def _choices(values: list[str]) -> str:
    """The values with bars between them, in lines so narrow that none is broken in a terminal of 80 columns."""
    lines = [""]
    for value in values:
        word = value if value == values[-1] else f"{value}|"
        if lines[-1] and len(lines[-1] + word) > CHOICES_WIDTH:
            lines.append("")
        lines[-1] += word
    return "\n".join(lines)

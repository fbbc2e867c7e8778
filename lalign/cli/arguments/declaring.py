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
        metavar=metavar or "|".join(values) or None,
        autocompletion=begun if values else None,
    )


def flag(help: str, panel: str, *names: str, default: str | bool = False) -> Any:
    """An option without a value."""
    return typer.Option(*names, help=help, rich_help_panel=panel, show_default=default)

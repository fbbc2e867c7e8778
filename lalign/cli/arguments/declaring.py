"""How an option is declared, and the panels of `--help`."""

from __future__ import annotations

from typing import Any

import typer

PRINCIPLE = "Principle and alignment"
SAMPLING = "Sampling"
MODEL = "Model"
OUTPUT = "Input and output"
RUN = "Running"
SWEEP = "Points"
EVAL = "Evaluation"


def option(help: str, panel: str, *names: str, default: str | bool = True, metavar: str | None = None) -> Any:
    """An option whose default, where it depends on others, is shown as `default`."""
    return typer.Option(*names, help=help, rich_help_panel=panel, show_default=default, metavar=metavar)


def flag(help: str, panel: str, *names: str, default: str | bool = False) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, show_default=default)

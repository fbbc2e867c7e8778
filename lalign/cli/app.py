"""The `lalign` command, on which each command declares itself, and its exit statuses."""

from __future__ import annotations

from typing import Annotated

import typer

import lalign

USAGE = 2
FAILED = 1

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Align a language model to a written principle while it decodes: no training. JSONL in, JSONL out.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lalign {lalign.__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None: ...

"""The `lalign` command, on which each command declares itself, and its exit statuses."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import lalign
from lalign.text import printable

USAGE = 2
FAILED = 1

# Commands as `--help` lists them: what people begin with first.
ORDER = (
    *("generate", "sweep", "eval", "plot", "judge", "score", "best", "construct", "lm-eval", "bench", "merge"),
    *("recipes", "cache"),
)


class InOrder(TyperGroup):
    """Commands in `ORDER`; those that it does not name come last."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(self.commands, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))


app = typer.Typer(
    cls=InOrder,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Align a language model to a written principle while it decodes: no training. JSONL in, JSONL out.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(context: typer.Context, wanted: bool) -> None:
    if not wanted:
        return
    if not context.params.get("verbose"):
        typer.echo(f"lalign {lalign.__version__}")
        raise typer.Exit
    from lalign.cli.about import described

    for name, value in described():
        typer.echo(f"{name:12}  {printable(value)}")
    raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, metavar="", help="Show the version.")
    ] = False,
    # Eager, so that it is known when `--version` is acted on, whichever comes first.
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose", is_eager=True, metavar="", help="With --version: libraries, device, model and cache too."
        ),
    ] = False,
) -> None: ...

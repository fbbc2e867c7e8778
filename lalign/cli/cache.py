"""`lalign cache`: where converted models are kept, how large they are, and how to be rid of them."""

from __future__ import annotations

import typer

from lalign.cli.app import FAILED, app
from lalign.cli.arguments import CacheArguments, grouped
from lalign.cli.terminal import say
from lalign.text import printable


@app.command(no_args_is_help=False)
@grouped
def cache(*, done: CacheArguments) -> int:
    """Show where converted models are kept and how large they are; --clear removes them.

    LALIGN_CACHE names another folder. Models of the hub lie in the cache of huggingface_hub: hf cache ls.
    """
    from lalign.models.cached import cached, clear
    from lalign.models.conversion import cache_folder

    if not done.clear:
        entries = cached()
        typer.echo(f"{printable(str(cache_folder()))}: {_size(sum(entry.size for entry in entries))}")
        for entry in entries:
            typer.echo(f"{_size(entry.size):>10}  {printable(entry.path.name)}")
        return 0
    try:
        removed, kept = clear()
    except OSError as error:
        say(f"{cache_folder()}: {error.strerror}")
        return FAILED
    typer.echo(f"{printable(str(cache_folder()))}: {_size(sum(entry.size for entry in removed))} removed")
    for entry in kept:
        say(f"{entry.path}: is being made, and stays")
    return FAILED if kept else 0


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"

"""A command line from its words to its exit status; every error is one line."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from typing import Any

import typer

from lalign.cli import (  # noqa: F401, their commands declare themselves on import
    bench,
    cache,
    commands,
    construct,
    evaluate,
    judge,
    lm_eval,
    merge,
    plot,
    score,
)
from lalign.cli.app import FAILED, USAGE, app
from lalign.cli.spelling import spelled
from lalign.cli.terminal import say
from lalign.errors import LalignError, OptionError

# Click's ClickException, or that of the Click which newer Typers carry within them.
BadCommandLine: Any = typer.BadParameter.__mro__[2]


def run(arguments: Sequence[str]) -> int:
    """Run a command line; returns its exit status. Every error is one line on stderr, unless with --debug."""
    debug = "--debug" in arguments
    try:
        status = app(list(arguments), prog_name="lalign", standalone_mode=False)
        return status if isinstance(status, int) else 0
    except BadCommandLine as error:
        context = getattr(error, "ctx", None)
        say(f"{error.format_message()} (see {context.command_path if context else 'lalign'} --help)")
        return USAGE
    except LalignError as error:
        if debug:
            traceback.print_exc()
        say(f"{spelled(error.option, arguments)}: {error.problem}" if isinstance(error, OptionError) else str(error))
        return USAGE
    except (KeyboardInterrupt, typer.Abort):
        say("interrupted")
        return 130
    except Exception as error:
        if debug:
            traceback.print_exc()
        say(f"internal error: {type(error).__name__}: {error} (--debug shows where)")
        return FAILED

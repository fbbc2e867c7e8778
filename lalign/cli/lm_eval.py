"""`lalign lm-eval`: downstream tasks by lm-evaluation-harness, whose arguments these are."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from lalign.cli.app import FAILED, USAGE, app
from lalign.cli.terminal import say
from lalign.errors import LalignError, first_line


@app.command(
    "lm-eval",
    add_help_option=False,
    no_args_is_help=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False},
)
def lm_eval(context: typer.Context) -> int:
    """Score downstream tasks with lm-evaluation-harness, whose arguments these are; --model lalign is there by default.

    lalign lm-eval --model_args pretrained=DIR,principle=hh.txt,ratio=2 --tasks hellaswag
    """
    arguments = list(context.args)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        import lalign.lm_eval  # noqa: F401
    except ImportError as error:
        raise LalignError(str(error)) from None
    from lm_eval.__main__ import cli_evaluate

    with _command_line(_with_model(arguments)):
        try:
            cli_evaluate()
        except SystemExit as ended:
            return ended.code if isinstance(ended.code, int) else USAGE if ended.code else 0
        except LalignError as error:  # an option of --model_args is none of the command line
            raise LalignError(str(error)) from error
        except Exception as error:
            if debug:
                traceback.print_exc()
            say(f"lm-eval: {type(error).__name__}: {first_line(error)} (--debug shows where)")
            return FAILED
    return 0


def _with_model(arguments: list[str]) -> list[str]:
    """The arguments of a run with `--model lalign`, where they name no model."""
    if not arguments or arguments[0] in ("ls", "validate") or {"-h", "--help"} & {*arguments}:
        return arguments
    named = any(argument in ("--model", "-M") or argument.startswith("--model=") for argument in arguments)
    own = [] if named or "--config" in arguments or "-C" in arguments else ["--model", "lalign"]
    return ["run", *own, *arguments[arguments[0] == "run" :]]


@contextmanager
def _command_line(arguments: list[str]) -> Iterator[None]:
    """lm-evaluation-harness reads the process's own arguments, and nothing else."""
    before = sys.argv
    sys.argv = ["lalign lm-eval", *arguments]
    try:
        yield
    finally:
        sys.argv = before

"""`lalign plot`: figures from what runs have written."""

from __future__ import annotations

from typing import Any, cast

from lalign import validation
from lalign.cli.app import app
from lalign.cli.arguments import DebugFlag, PlotArguments, PlottedFiles, grouped
from lalign.cli.terminal import say


@app.command(no_args_is_help=True)
@grouped
def plot(files: PlottedFiles, *, drawn: PlotArguments, debug: DebugFlag = False) -> int:
    """Draw what sweep, eval, judge or score has written: the same figures as their --plot, at the widths of print.

    lalign plot sweep.jsonl -o sweep.pdf --width column;  lalign plot sweep.jsonl accuracy.json --x kl -o pareto.pdf
    """
    from lalign.figures.canvas import WIDTHS, plot_format
    from lalign.figures.redraw import Look, redraw
    from lalign.jobs.paths import Named, check_paths, may_replace

    validation.choice("x", drawn.x, ("ratio", "kl"))
    validation.choice("width", drawn.width, tuple(WIDTHS))
    plot_format(drawn.output, option="output")
    reads = [Named("input", file) for file in files]
    reads += [Named("input", drawn.input)] if drawn.input is not None else []
    check_paths(reads, None, Named("output", drawn.output))
    may_replace("output", drawn.output, overwrite=drawn.overwrite)
    look = Look(cast(Any, drawn.x), cast(Any, drawn.width), drawn.input)
    for told in redraw(files, drawn.output, look):
        say(told)
    return 0

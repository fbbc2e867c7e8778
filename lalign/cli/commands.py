"""The commands that run a model over records. Each parses, calls and prints; all work is done by the library."""

from __future__ import annotations

from dataclasses import replace

import orjson
import typer

from lalign.cli import invocation
from lalign.cli.app import app
from lalign.cli.arguments import (
    AlignmentArguments,
    ClusterArguments,
    InputFiles,
    ModelArguments,
    OutputArguments,
    RecipesArguments,
    RunArguments,
    SampleArguments,
    SamplingArguments,
    SweepArguments,
    grouped,
)
from lalign.cli.carry_out import carry_out
from lalign.cli.on_ray import carry_out_on_ray, refuse_without_ray
from lalign.sweep.knee import KNEE_RULE
from lalign.sweep.ranges import parse_range, sweep_points


@app.command(no_args_is_help=False)
@grouped
def generate(
    sources: InputFiles = None,
    *,
    alignment: AlignmentArguments,
    sampling: SamplingArguments,
    several: SampleArguments,
    output: OutputArguments,
    model: ModelArguments,
    running: RunArguments,
    cluster: ClusterArguments,
) -> int:
    """Answer the records of IN.jsonl, aligned to a principle; one JSON line each, in their order.

    cat in.jsonl | lalign generate --principle hh.txt | jq -r .response
    """
    wanted = replace(invocation.settings(alignment, sampling, output=output), samples=several.samples)
    execution = invocation.execution(running, output.stats)
    if wanted.logprobs and output.stats == "none":  # which are computed together, and written apart
        execution = invocation.execution(running, "summary")
    if cluster.ray is not None:
        return carry_out_on_ray(sources, wanted, execution, alignment, output, model, running, cluster)
    refuse_without_ray(cluster)
    return carry_out(sources, wanted, execution, alignment, output, model, running)


@app.command(
    no_args_is_help=False,
    epilog=f"{KNEE_RULE} The table counts what this run has written, not what stood already.",
)
@grouped
def sweep(
    sources: InputFiles = None,
    *,
    points: SweepArguments,
    alignment: AlignmentArguments,
    sampling: SamplingArguments,
    output: OutputArguments,
    model: ModelArguments,
    running: RunArguments,
) -> int:
    """Answer the records at many ratios, or with many recipes, in one batch; a table on stderr says what each does.

    lalign sweep in.jsonl --principle hh.txt --ratios 0:5 -o sweep.jsonl --plot sweep.html
    """
    from lalign.figures.sweep import Sweep

    alignment, strengths = invocation.swept(alignment, points)
    given = invocation.settings(alignment, sampling, points.recipes, output)
    ps = parse_range(points.ps, "ps", infinite=True) if points.ps is not None else ()
    wanted = replace(given, alignments=sweep_points(given.alignments, strengths, ps), sweep=True)
    invocation.execution(running, output.stats)
    execution = invocation.execution(running, "steps")
    gathered = Sweep(wanted.alignments, points.plot)
    return carry_out(sources, wanted, execution, alignment, output, model, running, gathered)


@app.command("recipes", no_args_is_help=False)
@grouped
def list_recipes(*, listed: RecipesArguments) -> int:
    """List the recipes: formula, source (an arXiv number) and default strength of each.

    lalign recipes --json | jq -r '.[].recipe'
    """
    from lalign.cli.listing import show_recipes
    from lalign.method.listing import listing

    if listed.json:
        typer.echo(orjson.dumps([*listing()], option=orjson.OPT_INDENT_2).decode())
    else:
        show_recipes()
    return 0

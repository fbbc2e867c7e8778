"""`lalign eval`: accuracy on multiple-choice questions at each ratio, of one model or of several."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import orjson
import typer

import lalign
from lalign.cli import invocation
from lalign.cli.app import app
from lalign.cli.arguments import (
    AlignmentArguments,
    EvalArguments,
    EvalFiles,
    ModelArguments,
    RunArguments,
    SamplingArguments,
    grouped,
)
from lalign.cli.asking import how_to_resume
from lalign.cli.named_files import check_paths
from lalign.cli.spelling import is_typed
from lalign.cli.terminal import Progress, say, show
from lalign.errors import OptionError
from lalign.options import Execution, Prompting
from lalign.sweep.ranges import parse_range, sweep_points

if TYPE_CHECKING:
    from lalign.evaluation.evaluation import Evaluation
    from lalign.evaluation.preferences import Question
    from lalign.evaluation.scoring import EvaluationOptions
    from lalign.method.recipe import Recipe


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is asked of each model."""

    questions: Sequence[Question]
    points: Sequence[Recipe]
    options: EvaluationOptions
    principle: str | None
    system: str | None
    prompting: Prompting
    execution: Execution


class _Stopped(Exception):
    """A signal has come, and what was chosen so far stands in the output; `status` is the command's."""

    def __init__(self, status: int) -> None:
        super().__init__("interrupted")
        self.status = status


@app.command("eval", no_args_is_help=False)
@grouped
def evaluate(
    files: EvalFiles = None,
    *,
    asked: EvalArguments,
    alignment: AlignmentArguments,
    model: ModelArguments,
    running: RunArguments,
) -> int:
    """Score multiple-choice answers at each ratio: personal preferences (the paper's Table 3), or any choices.

    lalign eval preferences.jsonl --ratios 0:5 > accuracy.json;  lalign eval --merge one.json other.json
    """
    from lalign.evaluation.evaluation import table
    from lalign.evaluation.significance import check_extra
    from lalign.figures.accuracy import about_evaluation, plot_accuracy
    from lalign.figures.canvas import plot_format

    check_extra()
    if asked.plot is not None:
        plot_format(asked.plot, page=False)
    if asked.merge:
        return _merge(files or [], asked)
    source = _only(files)
    _check(source, asked, alignment, model)
    wanted = _wanted(source, asked, alignment, running)
    if asked.models:
        return _several(asked.models, wanted, asked, model, running)
    try:
        found = _one(wanted, asked, model, running)
    except _Stopped as stopped:
        say(f"interrupted{how_to_resume(asked.output)}")
        return stopped.status
    show(table(found))
    if asked.plot is not None:
        about = about_evaluation(found.model, wanted.principle)
        plot_accuracy(asked.plot, found.curves(), found.chance, f"n = {found.questions} questions", about)
    _print(found.to_dict())
    return 0


def _several(
    names: list[str], wanted: _Asked, asked: EvalArguments, model: ModelArguments, running: RunArguments
) -> int:
    """Each model in turn; what is known of some is not lost with the next one, nor drawn as if it were all."""
    from lalign.evaluation.runs import to_runs

    for name in names:
        _check_model(replace(model, model=name))
    stored: list[Any] = []
    try:
        for name in names:
            found = _one(wanted, asked, replace(model, model=name), running)
            stored.append(orjson.loads(orjson.dumps(found.to_dict())))
    except BaseException:
        if stored:
            _side_by_side(to_runs(stored), replace(asked, plot=None))
        raise
    _side_by_side(to_runs(stored), asked)
    return 0


def _check_model(model: ModelArguments) -> None:
    """That a model is there and of a kind that can be asked, without its weights. Raises `ModelError`."""
    from lalign.models.loading import load_tokenizer
    from lalign.models.location import gguf_file

    options = invocation.model_options(model)
    if model.engine == "torch":
        load_tokenizer(options)
    elif options.name is not None:
        gguf_file(options.name)


def _merge(files: list[Path], asked: EvalArguments) -> int:
    from lalign.evaluation.runs import read_runs

    if not files:
        raise OptionError("merge", "needs the JSON of evaluations")
    if asked.plot is not None:
        from lalign.jobs.paths import Named, check_paths, may_replace

        check_paths([Named("input", file) for file in files], None, Named("plot", asked.plot))
        may_replace("plot", asked.plot, overwrite=asked.overwrite)
    _side_by_side(read_runs(files), asked)
    return 0


def _side_by_side(runs: list[Any], asked: EvalArguments) -> None:
    from lalign.evaluation.runs import table, to_json
    from lalign.figures.accuracy import plot_runs

    show(table(runs))
    if asked.plot is not None:
        plot_runs(asked.plot, runs)
    _print(to_json(runs))


def _one(wanted: _Asked, asked: EvalArguments, model: ModelArguments, running: RunArguments) -> Evaluation:
    """One model asked everything that its output does not hold yet. Raises `_Stopped` once a signal has come."""
    from lalign.evaluation.evaluation import BASELINES
    from lalign.evaluation.evaluation import evaluate as run_evaluation
    from lalign.evaluation.job import AskedItems
    from lalign.evaluation.preferences import make_items
    from lalign.jobs.output import open_output
    from lalign.jobs.signals import Interruption

    opened: Any = nullcontext()
    if asked.output is not None:
        opened = open_output(asked.output, overwrite=asked.overwrite and not asked.resume, resume=asked.resume)
    with opened as output:
        aligner = invocation.aligner(model, running)
        records = None
        if output is not None and asked.output is not None:
            options, points = wanted.options, (*BASELINES, *wanted.points)
            chosen = {"users": options.users, "permute": options.permute, "seed": options.seed}
            items = make_items(wanted.questions, principle=wanted.principle, **cast(Any, chosen))
            settings = {**_fingerprint(wanted, points), "model": aligner.backend.fingerprint()}
            records = AskedItems(output, asked.output, items, points, settings)
        signals: Any = nullcontext() if output is None else Interruption()
        with signals as interruption, Progress(None, quiet=running.quiet, source="eval", unit="item") as bar:

            def reach(done: int, total: int) -> None:
                bar.reach(done, total)
                if interruption and done < total:
                    raise _Stopped(interruption.status)

            found = run_evaluation(
                aligner,
                wanted.questions,
                wanted.points,
                wanted.options,
                principle=wanted.principle,
                system=wanted.system,
                prompting=wanted.prompting,
                execution=wanted.execution,
                progress=reach,
                on_score=None if records is None else records.put,
                standing=() if records is None else records.standing,
            )
        if output is not None:
            output.sync()
    return found


def _fingerprint(wanted: _Asked, points: Sequence[Recipe]) -> Mapping[str, Any]:
    """What a resume must find unchanged; principles are with the items."""
    return {
        "lalign": lalign.__version__,
        "job": "eval",
        "scoring": wanted.options.scoring,
        "points": [asdict(point) for point in points],
        "system": wanted.system,
        "prompting": asdict(wanted.prompting),
    }


def _wanted(source: Path | None, asked: EvalArguments, alignment: AlignmentArguments, running: RunArguments) -> _Asked:
    from lalign.evaluation.preferences import read_questions
    from lalign.evaluation.presets import PRESETS
    from lalign.evaluation.scoring import EvaluationOptions

    if asked.preset is not None and asked.preset not in PRESETS:
        raise OptionError("preset", f"must be one of {', '.join(PRESETS)}, not {asked.preset!r}")
    preset = None if asked.preset is None else PRESETS[asked.preset]

    def chosen(option: str, default: Any) -> Any:
        given = getattr(asked, option)
        return given if given is not None else default if preset is None else getattr(preset, option)

    options = EvaluationOptions(
        scoring=chosen("scoring", "logit"),
        users="one" if chosen("one_user", False) else "all",
        permute=chosen("permute", "seed"),
        seed=chosen("seed", 0),
    )
    if preset is not None and alignment.recipe == AlignmentArguments().recipe:
        alignment = replace(alignment, recipe=preset.recipe)
    if alignment.kl is not None:
        raise OptionError("kl", "has no place here, where points are ratios; --max-kl bounds a step")
    one = invocation.settings(invocation.without_ratio(alignment), SamplingArguments())
    points = sweep_points(one.alignments, parse_range(chosen("ratios", "0:5"), "ratios"), ())
    principle, *more = one.principles.texts or (None,)
    if more or one.principles.contrast is not None:
        raise OptionError("principle", "an evaluation takes one principle at the most, and no contrast")
    system = invocation.system(alignment) or (preset.system if preset is not None else None)
    execution = invocation.execution(running, "none")
    prompting = replace(one.prompting, prefill=chosen("prefill", None))
    questions = read_questions(source)[: invocation.at_least_one("limit", asked.limit)]
    return _Asked(questions, points, options, principle, system, prompting, execution)


def _check(source: Path | None, asked: EvalArguments, alignment: AlignmentArguments, model: ModelArguments) -> None:
    from lalign.jobs.packed import SUFFIXES

    if sum(is_typed("--model", [word]) for word in sys.argv[1:]) > 1:
        raise OptionError("model", "is there more than once; --models A --models B asks several models in turn")
    if asked.models and model.model is not None:
        raise OptionError("models", "goes in place of --model")
    if asked.models and asked.output is not None:
        raise OptionError("output", "holds the records of one model; with --models there is none (--merge joins runs)")
    if asked.resume and asked.output is None:
        raise OptionError("resume", "needs -o")
    if asked.output is not None and asked.output.suffix.lower() in SUFFIXES:
        raise OptionError("output", f"{asked.output}: records are written as JSON Lines, and read again")
    replaces = asked.overwrite or asked.resume
    check_paths(source, alignment, model, None, asked.plot, records=asked.output, overwrite=replaces)


def _only(files: list[Path] | None) -> Path | None:
    if files and len(files) > 1:
        raise OptionError("merge", f"is needed for several files; questions come from one, not {len(files)}")
    return invocation.path(files[0]) if files else None


def _print(value: Any) -> None:
    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())

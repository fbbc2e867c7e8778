"""`lalign construct`: questions, who asks them, answers and principles, as a model writes them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

import lalign
from lalign import validation
from lalign.cli import asking as questions
from lalign.cli import invocation
from lalign.cli.app import app
from lalign.cli.arguments import (
    AskArguments,
    ConstructArguments,
    ConstructedFile,
    ModelArguments,
    ResultArguments,
    RunArguments,
    StageName,
    grouped,
)
from lalign.cli.arguments.constructing import STAGES
from lalign.cli.terminal import say
from lalign.errors import OptionError, OutputError

if TYPE_CHECKING:
    from collections.abc import Sequence


# Which stage an option is for.
_OF_STAGE = {
    "count": "questions",
    "seed": "questions",
    "similarity": "filter",
    "besides": "filter",
    "report": "filter",
    "general": "principles",
}
_TEMPERATURE = 1.0
# Five questions with four descriptions each take some 700 tokens.
_TOKENS = {"questions": 2048}


@app.command(no_args_is_help=True)
@grouped
def construct(
    stage: StageName,
    source: ConstructedFile = None,
    *,
    constructing: ConstructArguments,
    asking: AskArguments,
    output: ResultArguments,
    model: ModelArguments,
    running: RunArguments,
) -> int:
    """Make questions for lalign eval with a model, and principles for lalign generate, stage by stage.

    lalign construct questions samples/seeds.jsonl --count 1000 --url URL --url-model NAME -o asked.jsonl
    lalign construct filter asked.jsonl --besides samples/seeds.jsonl -o questions.jsonl
    lalign construct answers questions.jsonl --url URL --url-model NAME -o preferences.jsonl
    lalign construct principles questions.jsonl --url URL --url-model NAME -o principles.jsonl
    """
    from lalign.construction.similarity import check_extra

    check_extra()
    path = invocation.path(source)
    _check(stage, constructing, output)
    questions.check(asking, model, running, output, "stage filter" if stage == "filter" else None)
    _check_files(path, constructing, asking, output)
    if stage == "filter":
        return _filter(path, constructing, output)
    sampling = questions.sampling(asking, _TEMPERATURE, max_new_tokens=_TOKENS.get(stage))
    body = questions.body(asking, sampling)
    own = invocation.text(constructing.prompt, "prompt")
    tasks = _tasks(stage, path, constructing, own)
    unit = "requests" if stage == "questions" else stage
    settings: dict[str, Any] = {"stage": stage, "instructions": sorted({task.instructions for task in tasks})}
    if stage == "questions":
        settings["seed"] = constructing.seed or 0
    if asking.write_requests is not None:
        return questions.write_left(tasks, settings, asking, body, output, unit)
    done = questions.do_tasks(
        tasks,
        settings,
        lambda: questions.open_asker(asking, sampling, model, running),
        output,
        running,
        f"construct {stage}",
        unit,
    )
    return done.tell(f"{len(tasks)} {unit}")


def _tasks(stage: str, path: Path | None, constructing: ConstructArguments, own: str | None) -> Sequence[Any]:
    """What the stage asks. Raises `InputError`, `OptionError`."""
    from lalign.construction.principles import principle_tasks, read_wanted
    from lalign.construction.prompts import instructions
    from lalign.construction.questions import read_questions
    from lalign.construction.tasks import AnswersTask, questions_tasks

    if stage == "principles":
        return principle_tasks(read_wanted(path, general=constructing.general), own)
    if stage == "answers":
        text = instructions("answers", own)
        return [AnswersTask(number, one, text) for number, one in enumerate(read_questions(path), start=1)]
    count = 100 if constructing.count is None else constructing.count
    seed = constructing.seed or 0
    validation.integer("count", count, low=1)
    validation.integer("seed", seed, low=0)
    return questions_tasks(read_questions(path), count, seed, instructions("questions", own))


def _filter(path: Path | None, constructing: ConstructArguments, output: ResultArguments) -> int:
    from lalign.construction.duplicates import SIMILARITY, filter_questions, read_candidates
    from lalign.construction.questions import read_questions

    similarity = SIMILARITY if constructing.similarity is None else constructing.similarity
    kept = [one for file in constructing.besides or [] for one in read_questions(file)]
    records, report = filter_questions(read_candidates(path), similarity, kept)
    with questions.opened(output, resumable=False) as file:
        file.start({"lalign": lalign.__version__, "job": "filter", "similarity": similarity})
        for number, record in enumerate(records, start=1):
            numbered = {**record, "line": number}
            file.write(orjson.dumps(numbered, option=orjson.OPT_APPEND_NEWLINE), line=number)
        file.sync()
    if constructing.report is not None:
        data = orjson.dumps(report.to_dict(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        try:
            constructing.report.write_bytes(data)
        except OSError as error:
            raise OutputError(f"{constructing.report}: {error.strerror}") from None
    for line in report.told():
        say(line)
    return 0


def _check(stage: str, constructing: ConstructArguments, output: ResultArguments) -> None:
    """All that can be wrong with the stage's own options by themselves. Raises `OptionError`."""
    from lalign.jobs.packed import SUFFIXES

    validation.choice("stage", stage, STAGES)
    for option, of in _OF_STAGE.items():
        if stage != of:
            questions.refuse_given(constructing, (option,), f"is of stage {of}, not {stage}")
    if stage == "filter":
        problem = questions.of_no_use("stage filter")
        questions.refuse_given(output, ("resume",), problem)
        questions.refuse_given(constructing, ("prompt",), problem)
    if output.output is not None and output.output.suffix.lower() in SUFFIXES:
        raise OptionError("output", f"{output.output}: is written as JSON Lines, for the next stage to read")


def _check_files(
    path: Path | None, constructing: ConstructArguments, asking: AskArguments, output: ResultArguments
) -> None:
    """That no file is written which is read, or replaced unasked. Raises `OptionError`."""
    from lalign.jobs.paths import Named

    reads = [Named("input", path)] if path is not None else []
    named = [*(("besides", one) for one in constructing.besides or []), ("prompt", constructing.prompt)]
    named += [("read_responses", one) for one in asking.read_responses or []]
    reads += [Named(option, file) for option, file in named if file is not None]
    written = {"report": constructing.report, "write_requests": asking.write_requests}
    questions.check_files(reads, output.output, written, overwrite=output.overwrite or output.resume)

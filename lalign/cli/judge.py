"""`lalign judge`: which answers are better, by a model's judgement or by people's."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import orjson

from lalign.cli import asking as questions
from lalign.cli import invocation
from lalign.cli.app import app
from lalign.cli.arguments import (
    AnswerFiles,
    AskArguments,
    JudgeArguments,
    ModelArguments,
    ResultArguments,
    RunArguments,
    grouped,
)
from lalign.cli.terminal import say, show
from lalign.errors import OptionError, OutputError

if TYPE_CHECKING:
    from lalign.judging.job import JudgeTask
    from lalign.judging.judged import Judged
    from lalign.judging.matches import Match


@app.command(no_args_is_help=True)
@grouped
def judge(
    files: AnswerFiles,
    *,
    judging: JudgeArguments,
    asking: AskArguments,
    output: ResultArguments,
    model: ModelArguments,
    running: RunArguments,
) -> int:
    """Judge whose answers are better: win, tie and lose of each file against others, each pair in both orders.

    lalign judge aligned.jsonl base.jsonl --prompts in.jsonl --judge-url URL --judge-model NAME -o judged.jsonl
    """
    from lalign.evaluation.significance import check_extra
    from lalign.judging.instructions import check_instructions, default_instructions
    from lalign.judging.job import JudgeTask, contest_names

    check_extra()
    _check(files, judging, asking, output)
    questions.check(asking, model, running, output, _asks_nobody(judging))
    _check_files(files, judging, asking, output)
    own = invocation.text(judging.judge_prompt, "judge_prompt")
    instructions = default_instructions() if own is None else check_instructions(own)
    sampling = questions.sampling(asking, 0.0)
    body = questions.body(asking, sampling)
    matches = _matches(files, judging)
    if judging.page is not None:
        from lalign.figures.ballot import write_ballot

        pairs = write_ballot(judging.page, matches, judging.seed)
        say(f"{pairs} pairs to {judging.page}; --votes reads what people save from it")
        return 0
    if judging.votes:
        return _count_votes(matches, judging, output)
    tasks = [JudgeTask(match, instructions) for match in matches]
    settings = {"instructions": instructions, "contests": contest_names(matches)}
    if asking.write_requests is not None:
        return questions.write_left(tasks, settings, asking, body, output, "matches")
    return _judge(tasks, settings, judging, asking, output, model, running)


def _judge(
    tasks: list[JudgeTask],
    settings: dict[str, Any],
    judging: JudgeArguments,
    asking: AskArguments,
    output: ResultArguments,
    model: ModelArguments,
    running: RunArguments,
) -> int:
    from lalign.judging.judged import from_record, read_judged

    written: list[Judged] = []

    def collect(record: dict[str, Any]) -> None:
        if "error" not in record:
            written.append(from_record(record, "stdout"))

    path = questions.file_of(output)
    sampling = questions.sampling(asking, 0.0)
    done = questions.do_tasks(
        tasks,
        settings,
        lambda: questions.open_asker(asking, sampling, model, running),
        output,
        running,
        "judge",
        "matches",
        collect,
    )
    _report(written if path is None else list(read_judged(path)), judging, path)
    return done.tell(f"{len(tasks)} matches")


def _count_votes(matches: list[Match], judging: JudgeArguments, output: ResultArguments) -> int:
    from lalign.judging.judged import read_judged, to_record
    from lalign.judging.votes import agreements, merge_votes, read_votes

    voters = read_votes(judging.votes or [], matches)
    merged = merge_votes(matches, voters)
    with questions.opened(output, resumable=False) as opened:
        opened.start({"voters": list(voters)})
        for match, judged, votes in merged:
            record = to_record(match.number, judged) | {"votes": votes}
            opened.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE), line=match.number)
        opened.sync()
    outcomes = [judged for _, judged, _ in merged]
    by_model = None if judging.compare is None else list(read_judged(judging.compare))
    found = agreements(voters, merged, by_model)
    _report(outcomes, judging, questions.file_of(output), {"agreement": [one.to_dict() for one in found]})
    for one in found:
        say(one.told())
    return 0


def _report(
    judged: list[Judged], judging: JudgeArguments, output: Path | None, more: dict[str, Any] | None = None
) -> None:
    """The table, and the files that go with it."""
    from lalign.judging.report import contest_reports, to_json
    from lalign.judging.table import contest_table

    reports = contest_reports(judged, judging.seed)
    if not reports:
        say("nothing was judged")
        return
    show(contest_table(reports))
    if judging.plot is not None:
        from lalign.figures.contests import plot_contests
        from lalign.figures.written import about

        plot_contests(judging.plot, reports, about(output))
    if judging.summary is not None:
        data = orjson.dumps(
            {**to_json(reports), **(more or {})}, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
        )
        try:
            judging.summary.write_bytes(data)
        except OSError as error:
            raise OutputError(f"{judging.summary}: {error.strerror}") from None


def _matches(files: list[Path], judging: JudgeArguments) -> list[Match]:
    """All matches; what has no answer to meet is told."""
    from lalign.judging.answers import read_contestant, read_prompts
    from lalign.judging.matches import contests, make_matches

    names = judging.name or _names(files)
    fields = judging.response_field or ["response"]
    if len(fields) == 1:
        fields = fields * len(files)
    contestants = [read_contestant(*each) for each in zip(files, names, fields, strict=True)]
    prompts = read_prompts(judging.prompts, contestants) if judging.prompts is not None else None
    matches, unmatched = make_matches(contests(contestants, cast(Any, judging.match)), prompts)
    for one in unmatched:
        say(f"{one.first} vs {one.second}: not judged: {one.missing} ids in one file alone, {one.failed} error records")
    return matches


def _names(files: list[Path]) -> list[str]:
    """The names of files without their endings where these tell them apart, else the paths."""
    stems = [file.name.removesuffix(".gz").removesuffix(".zst").removesuffix(".jsonl") for file in files]
    return stems if len(set(stems)) == len(stems) else [str(file) for file in files]


def _asks_nobody(judging: JudgeArguments) -> str | None:
    """The option for which no model is asked."""
    return "--page" if judging.page is not None else "--votes" if judging.votes else None


def _check(files: list[Path], judging: JudgeArguments, asking: AskArguments, output: ResultArguments) -> None:
    """All that can be wrong with the command's own options by themselves. Raises `OptionError`."""
    from lalign.figures.canvas import plot_format
    from lalign.jobs.packed import SUFFIXES
    from lalign.judging.ballots import check_seed

    check_seed(judging.seed)
    if output.output is not None and output.output.suffix.lower() in SUFFIXES:
        raise OptionError("output", f"{output.output}: judged matches are written as JSON Lines, and read again")
    if judging.name and len(judging.name) != len(files):
        raise OptionError("name", f"{len(judging.name)} names for {len(files)} files")
    if len(judging.response_field or []) not in (0, 1, len(files)):
        problem = f"one for all files or one for each, not {len(judging.response_field or [])} for {len(files)}"
        raise OptionError("response_field", problem)
    if doubled := [name for name, count in Counter(judging.name or map(str, files)).items() if count > 1]:
        raise OptionError("name" if judging.name else "files", f"{doubled[0]!r} is there twice")
    elsewhere = [option for option in ("page", "votes") if getattr(judging, option)]
    elsewhere += [option for option in ("url", "write_requests", "read_responses") if getattr(asking, option)]
    if len(elsewhere) > 1:
        raise OptionError(elsewhere[0], f"does not go with {questions.called(elsewhere[1])}")
    if judging.compare is not None and not judging.votes:
        raise OptionError("compare", "only goes with --votes")
    _check_passed_over(judging, asking, output)
    if judging.plot is not None:
        plot_format(judging.plot, page=False)


def _check_passed_over(judging: JudgeArguments, asking: AskArguments, output: ResultArguments) -> None:
    """That nothing is wanted that comes of verdicts where there are none. Raises `OptionError`."""
    nobody = _asks_nobody(judging) or ("--write-requests" if asking.write_requests is not None else None)
    if nobody is None:
        return
    problem = questions.of_no_use(nobody)
    if nobody != "--write-requests":
        questions.refuse_given(judging, ("judge_prompt",), problem)
    if nobody == "--votes":
        questions.refuse_given(output, ("resume",), problem)
    else:
        questions.refuse_given(judging, ("plot", "summary"), problem)
    if nobody == "--page":
        questions.refuse_given(output, ("output", "resume", "retry_errors", "force"), problem)


def _check_files(files: list[Path], judging: JudgeArguments, asking: AskArguments, output: ResultArguments) -> None:
    """That no file is written which is read, or replaced unasked. Raises `OptionError`."""
    from lalign.jobs.paths import Named

    reads = [Named("input", file) for file in files]
    reads += [Named("votes", file) for file in judging.votes or []]
    reads += [Named("read_responses", file) for file in asking.read_responses or []]
    others = {"prompts": judging.prompts, "judge_prompt": judging.judge_prompt, "compare": judging.compare}
    reads += [Named(option, file) for option, file in others.items() if file is not None]
    written = {name: getattr(judging, name) for name in ("plot", "summary", "page")}
    written["write_requests"] = asking.write_requests
    questions.check_files(reads, output.output, written, overwrite=output.overwrite or output.resume)

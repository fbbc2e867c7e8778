"""`lalign score` and `lalign best`: rewards for what was generated, and the best of several responses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lalign
from lalign.cli import invocation
from lalign.cli.app import FAILED, app
from lalign.cli.arguments import DebugFlag, ScoreArguments, ScoredFile, ScoredFiles, WrittenArguments, grouped
from lalign.cli.terminal import Progress, say, show
from lalign.errors import OptionError

if TYPE_CHECKING:
    from lalign.jobs.output import Writing
    from lalign.rewards.scoring import Scored


@app.command(no_args_is_help=True)
@grouped
def score(files: ScoredFiles, *, scored: ScoreArguments, written: WrittenArguments, debug: DebugFlag = False) -> int:
    """Add a `reward` to each answer by a reward model, or draw the rewards of several files that have them.

    lalign score out.jsonl --reward-model DIR -o scored.jsonl;  lalign score base.jsonl aligned.jsonl --plot rewards.png
    """
    from lalign.figures.canvas import plot_format

    if scored.reward_model is None and scored.plot is None:
        raise OptionError("reward_model", "is needed, or --plot for files that have rewards")
    if scored.reward_model is not None and len(files) > 1:
        raise OptionError("reward_model", f"scores one file at a time, not {len(files)}")
    if scored.reward_model is None and (scored.input is not None or written.output is not None):
        raise OptionError("input" if scored.input is not None else "output", "only goes with --reward-model")
    invocation.at_least_one("batch_size", scored.batch_size)
    if scored.plot is not None:
        plot_format(scored.plot, page=False)
    _check(files, scored, written)
    if scored.reward_model is None:
        from lalign.rewards.best import read_rewards

        rewards, status = read_rewards(files), 0
    else:
        rewards, status = _score(files[0], scored.reward_model, scored, written)
    if scored.plot is not None:
        from lalign.figures.rewards import plot_rewards
        from lalign.figures.written import about

        said = about(*files) if scored.reward_model is None else about(invocation.path(written.output))
        plot_rewards(scored.plot, rewards, said)
    if not scored.quiet:
        from lalign.figures.rewards import reward_table

        show(reward_table(rewards))
    return status


@app.command(no_args_is_help=True)
@grouped
def best(file: ScoredFile, *, written: WrittenArguments, debug: DebugFlag = False) -> int:
    """Keep the answer of the highest reward of each id: best-of-n, of responses that lalign score has scored.

    lalign best scored.jsonl -o best.jsonl
    """
    from lalign.jobs.output import whole_output
    from lalign.rewards.answers import read_answers
    from lalign.rewards.best import best as best_of

    _check([file], ScoreArguments(), written)
    source = invocation.path(file)
    made_with = {"lalign": lalign.__version__, "job": "best", **_read_as(source)}
    with whole_output(written.output, made_with, overwrite=written.overwrite) as write:
        kept = best_of(read_answers(source))
        for answer in kept:
            write(answer.raw + b"\n", line=answer.line, failed=answer.failed)
    failed = sum(answer.failed for answer in kept)
    if failed:
        say(f"{failed} of {len(kept)} ids have errors alone")
    return FAILED if failed else 0


def _check(files: Iterable[Path], scored: ScoreArguments, written: WrittenArguments) -> None:
    from lalign.jobs.paths import Named, check_paths, may_replace

    named = [Named("input", invocation.path(file)) for file in files]
    named += [Named("input", scored.input)] if scored.input is not None else []
    named += [Named("reward_model", Path(scored.reward_model))] if scored.reward_model is not None else []
    writes = scored.plot is None or scored.reward_model is not None
    output = Named("output", invocation.path(written.output)) if writes else None
    check_paths(named, output, Named("plot", scored.plot))
    if scored.plot is not None:
        may_replace("plot", scored.plot, overwrite=written.overwrite)


def _read_as(source: Path | None) -> dict[str, Any]:
    """Where the job of a file found its prompts, for whoever reads what is made of it."""
    from lalign.jobs.read_as import reading_of

    reading = reading_of(source)
    return {} if reading is None else reading.fingerprint()


def _score(
    file: Path, reward_model: str, scored: ScoreArguments, written: WrittenArguments
) -> tuple[dict[str, list[float]], int]:
    from lalign.jobs.output import whole_output
    from lalign.models.quiet import silence_libraries
    from lalign.rewards.answers import read_answers
    from lalign.rewards.model import load_reward_model
    from lalign.rewards.prompts import PromptFile, conversations
    from lalign.rewards.scoring import score as score_answers

    source = invocation.path(file)
    made_with = {"lalign": lalign.__version__, "job": "score", "reward_model": reward_model, **_read_as(source)}
    with whole_output(written.output, made_with, overwrite=written.overwrite) as write:
        prompts = PromptFile(scored.input) if scored.input is not None else None
        answers = conversations(read_answers(source), prompts)
        silence_libraries()
        if not scored.quiet:
            invocation.tell_of_download(reward_model)
        model = load_reward_model(reward_model, scored.device)
        with Progress(None, quiet=scored.quiet, source="score", unit="rec") as bar:
            done = list(_written(score_answers(answers, model, scored.batch_size), write, bar))
    rewards = [reward for reward, _ in done if reward is not None]
    failed = sum(problem for _, problem in done)
    return {file.stem: rewards}, FAILED if failed else 0


def _written(scores: Iterator[Scored], write: Writing, bar: Progress) -> Iterator[tuple[float | None, bool]]:
    for each in scores:
        answer = each.answer
        write(each.to_line(), line=answer.line, failed=answer.failed)
        if each.problem is not None:
            bar.write(f"{answer.source}:{answer.number}: {each.problem}")
        bar.count(1)
        yield each.reward, each.problem is not None

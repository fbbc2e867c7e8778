"""Figures drawn from what runs have written: `lalign plot`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lalign.errors import OptionError
from lalign.evaluation.runs import read_runs
from lalign.figures import written
from lalign.figures.accuracy import about_evaluation, plot_accuracy, plot_runs
from lalign.figures.canvas import Width, plot_format
from lalign.figures.contests import plot_contests
from lalign.figures.page import MOST_PROMPTS, Outcomes, write_report
from lalign.figures.pareto import Quality
from lalign.figures.plot import Over, plot_sweep
from lalign.figures.qualities import of_evaluation, of_judged, of_rewards
from lalign.figures.rewards import plot_rewards
from lalign.figures.sweep import conversation_text
from lalign.figures.written import Kind, kind_of
from lalign.judging.judged import read_judged
from lalign.judging.report import contest_reports
from lalign.rewards.answers import Answer, read_answers
from lalign.rewards.best import read_rewards
from lalign.rewards.prompts import PromptFile, kept_prompt
from lalign.sweep.metrics import SweepMetrics

SEVERAL = "draws one thing at a time: a sweep, with what eval, score and judge found of it, or one of those alone"


@dataclass(frozen=True, slots=True)
class Look:
    """How a figure is drawn.

    over: what is drawn across.
    width: in print, a column's or the page's.
    prompts: the input of the sweep, whose prompts a page shows.
    """

    over: Over = "ratio"
    width: Width = "full"
    prompts: Path | None = None


def redraw(files: Sequence[Path], path: Path, look: Look) -> list[str]:
    """Draw files, of the kinds that their contents say, into `path`; returns what is to be told of it.

    Raises `InputError` for a file that cannot be drawn, `OptionError` where files or options do not go together, and
    as `canvas.save`.
    """
    kinds: dict[Kind, list[Path]] = {}
    for file in files:
        kinds.setdefault(kind_of(file), []).append(file)
    swept = kinds.get("answers", [])
    if not swept and (scored := kinds.get("rewards", [])) and len(scored) == 1 and _is_sweep(scored[0]):
        swept = scored  # a sweep that was scored is a sweep still
    if len(swept) > 1 or (not swept and len(kinds) > 1):
        raise OptionError("files", SEVERAL)
    if swept:
        return _sweep(swept[0], kinds, path, look)
    if look.over == "kl":
        raise OptionError("x", "kl needs the sweep, which alone tells the KL of each ratio")
    plot_format(path, option="output", page=False)
    ((kind, same),) = kinds.items()
    if kind == "rewards":
        plot_rewards(path, read_rewards(same), written.about(*same), look.width)
    elif len(same) > 1:
        raise OptionError("files", SEVERAL)
    elif kind == "judged":
        plot_contests(path, contest_reports(read_judged(same[0])), written.about(same[0]), look.width)
    else:
        _evaluation(same[0], path, look)
    return []


def _is_sweep(path: Path) -> bool:
    """Whether answers are of several points."""
    first = None
    for answer in read_answers(path):
        written_point = answer.record.get("alignment")
        if answer.failed or not isinstance(written_point, Mapping):
            continue
        point = {name: value for name, value in written_point.items() if name != "summary"}
        if first is not None and point != first:
            return True
        first = point
    return False


def _sweep(swept: Path, kinds: Mapping[Kind, Sequence[Path]], path: Path, look: Look) -> list[str]:
    points = written.points_of(swept)
    metrics, shown = SweepMetrics(points), _Shown(look.prompts)
    is_page = plot_format(path, option="output") == "html"
    for answer, outcome in written.read_outcomes(swept):
        metrics.add(outcome)
        if is_page:
            shown.add(answer, outcome)
    qualities: list[Quality] = []
    qualities += [of_evaluation(file, points) for file in kinds.get("evaluation", [])]
    qualities += [of_rewards(kinds["rewards"], points)] if "rewards" in kinds else []
    qualities += [of_judged(file, points) for file in kinds.get("judged", [])]
    summaries = metrics.summaries()
    if not is_page:
        plot_sweep(summaries, path, written.about(swept), over=look.over, width=look.width, qualities=qualities)
        return [
            f"{quality.title}: known of {len(quality.levels)} of {len(points)} points"
            for quality in qualities
            if len(quality.levels) < len(points)
        ]
    if qualities:
        raise OptionError("output", f"a page holds the sweep alone; name a .pdf, .png or .svg file, not {path.name!r}")
    write_report(path, summaries, shown.sheets(), f"lalign sweep of {swept.name}", written.about(swept), over=look.over)
    return ["the page shows ids, as the output has no prompts; --input gives them"] if shown.lacks_prompts else []


class _Shown:
    """The prompts of a page, each with what came of it: from `input` in the records, or from the input itself."""

    def __init__(self, prompts: Path | None) -> None:
        self.lacks_prompts = False
        self._find = PromptFile(prompts) if prompts is not None else None
        self._sheets: dict[int, tuple[str, list[Any]]] = {}

    def add(self, answer: Answer, outcome: Any) -> None:
        if outcome.line not in self._sheets:
            if len(self._sheets) == MOST_PROMPTS:
                return
            self._sheets[outcome.line] = self._prompt(answer), []
        self._sheets[outcome.line][1].append(outcome)

    def sheets(self) -> list[tuple[str, Outcomes]]:
        return [sheet for _, sheet in sorted(self._sheets.items())]

    def _prompt(self, answer: Answer) -> str:
        if self._find is not None and not answer.failed:
            return conversation_text(self._find(answer))
        if isinstance(answer.record.get("input"), Mapping):
            return conversation_text(kept_prompt(answer))
        self.lacks_prompts = self._find is None
        return f"{answer.id}" if isinstance(answer.id, str) else f"prompt {answer.id}"


def _evaluation(file: Path, path: Path, look: Look) -> None:
    found, *others = written.evaluations(file)
    if others:
        plot_runs(path, read_runs([file]), look.width)
        return
    settings = found.get("settings", {})
    about = about_evaluation(settings.get("model"), settings.get("principle"))
    counted = f"n = {found['questions']} questions"
    plot_accuracy(path, written.curves(found, file), found["chance"], counted, about, look.width)

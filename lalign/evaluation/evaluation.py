"""`lalign eval`: multiple-choice accuracy at each ratio, with intervals and paired tests (the paper's Table 3, Fig. 5).

What is sampled is questions: all items of one question (its users, its orders) share a text and are correlated, so
every figure is made of one value per question, the mean over its items, and resampled by question.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from lalign.errors import LalignError
from lalign.evaluation.preferences import LETTERS, Question, make_items
from lalign.evaluation.scoring import EvaluationOptions, Score, score_items
from lalign.evaluation.significance import CONFIDENCE, RESAMPLES, check_extra, intervals, sign_flip, sign_test
from lalign.method.linear_alignment import Alignment
from lalign.method.recipe import Recipe
from lalign.options import Execution, Prompting
from lalign.text import json_number, signed

if TYPE_CHECKING:
    from rich.table import Table

    from lalign.aligner import Aligner

Test = Literal["mcnemar", "sign_flip"]

# What every point is compared with: the base model alone, and the principle as a plain prompt.
BASELINES = (Alignment(ratio=0), Alignment(ratio=1, support="none"))
# A table of 80 columns has room for this many domains, which share what the other columns leave.
DOMAINS_IN_TABLE = 5
ROOM_FOR_DOMAINS = 45
FIGURE = len("100–100")


@dataclass(frozen=True, slots=True)
class Accuracy:
    """The mean share of right choices over `n` questions, with its 95 % interval: None where one question has none."""

    n: int
    accuracy: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """A point against a baseline on the same items.

    difference: of their accuracies, with its 95 % interval (paired bootstrap over questions).
    gained, lost: items that only the point, and only the baseline, has right.
    p_value: two-sided, of `test`, for this comparison alone: not corrected for the number of ratios tried.
    test: "mcnemar", exact, where every question has one item. Where it has several, which McNemar's test would take
        for independent, "sign_flip": the permutation test that flips the sign of each question's difference. (With
        one item per question the two are the same test.)
    """

    difference: float
    low: float | None
    high: float | None
    p_value: float
    gained: int
    lost: int
    test: Test


@dataclass(frozen=True, slots=True)
class PointEvaluation:
    """One row of the table.

    letters: the share of items for which each letter was chosen, and "none": what a position bias shows in.
    """

    alignment: Recipe
    domains: dict[str, Accuracy]
    total: Accuracy
    versus_0: Comparison
    versus_1: Comparison
    letters: dict[str, float]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was found: a `PointEvaluation` for each alignment, in the order given.

    chance: the accuracy of choosing blindly.
    told: more settings, for readers of the JSON.
    """

    options: EvaluationOptions
    questions: int
    items: int
    chance: float
    points: tuple[PointEvaluation, ...]
    model: str | None
    told: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object on stdout; p = inf is "inf"."""
        return {
            "settings": {"model": self.model, **self.told, **asdict(self.options)},
            "questions": self.questions,
            "items": self.items,
            "chance": self.chance,
            "confidence": CONFIDENCE,
            "intervals": f"percentile bootstrap over questions, {RESAMPLES} resamples",
            "ratios": [_point_dict(point) for point in self.points],
        }

    def curves(self) -> dict[str, list[tuple[float, float, float, float]]]:
        """(ratio, accuracy, low, high) of each point by domain, then of the total: for `plot.plot_accuracy` (Fig. 5).

        Where there is no interval, low and high are the accuracy itself.
        """
        series: dict[str, list[tuple[float, float, float, float]]] = {}
        for point in self.points:
            for name, part in (*point.domains.items(), ("total", point.total)):
                low, high = (part.accuracy if bound is None else bound for bound in (part.low, part.high))
                series.setdefault(name, []).append((point.alignment.ratio, part.accuracy, low, high))
        return series


def _point_dict(point: PointEvaluation) -> dict[str, Any]:
    fields = asdict(point)
    alignment = fields.pop("alignment")
    return {
        "ratio": alignment.pop("ratio"),
        **{name: json_number(value) for name, value in alignment.items()},
        **fields,
    }


def evaluate(
    aligner: Aligner,
    questions: Sequence[Question],
    alignments: Sequence[Recipe],
    options: EvaluationOptions | None = None,
    *,
    principle: str | None = None,
    system: str | None = None,
    prompting: Prompting | None = None,
    execution: Execution | None = None,
    progress: Callable[[int, int], None] | None = None,
    on_score: Callable[[Score], None] | None = None,
    standing: Sequence[Score] = (),
) -> Evaluation:
    """Ask a model multiple-choice questions at each of `alignments`.

    Args:
        questions: as `preferences.read_questions` gives them.
        principle: for questions that name no users; theirs is made of their preferences.
        system: the system message that both twins share; `prompting` says how prompts are written.
        execution: batch size, for `scoring="letter"`.
        progress: called with the number of items done and of all items.
        on_score: called with each item's choices as they are ready, those at `BASELINES` first.
        standing: the scores of the first items, which are not asked again.

    Raises `OptionError` for a principle missing or of no use; `LalignError` without scipy, with nothing to ask, or
    for a question that the model cannot be asked.
    """
    if not (questions and alignments):
        raise LalignError("an evaluation needs at least one question and one ratio")
    options = options or EvaluationOptions()
    check_extra()
    items = make_items(questions, users=options.users, permute=options.permute, seed=options.seed, principle=principle)
    points = (*BASELINES, *alignments)
    scores = list(standing)
    left = items[len(scores) :]
    choices = score_items(
        aligner, left, points, options.scoring, system=system, prompting=prompting, execution=execution
    )
    for score in choices:
        scores.append(score)
        if on_score is not None:
            on_score(score)
        if progress is not None:
            progress(len(scores), len(items))
    prompting = prompting or Prompting()
    told = {"principle": principle, "system": system, "placement": prompting.placement, "prefill": prompting.prefill}
    return replace(summarise(scores, alignments, options, model=aligner.backend.name), told=told)


def summarise(
    scores: Sequence[Score], alignments: Sequence[Recipe], options: EvaluationOptions, model: str | None = None
) -> Evaluation:
    """From choices to accuracies: `scores` hold those of `BASELINES`, then those of `alignments`; in any order."""
    questions = sorted({score.item.question for score in scores}, key=lambda question: question.line)
    numbers = {question.line: number for number, question in enumerate(questions)}
    places = np.array([numbers[score.item.question.line] for score in scores])
    right = np.array([[choice == score.item.letter for choice in score.choices] for score in scores]).T
    sizes = np.bincount(places)
    by_question = np.array([np.bincount(places, weights=row) for row in right]) / sizes
    points = by_question[len(BASELINES) :]
    named = [question.domain for question in questions]
    groups = {domain: np.array([name == domain for name in named]) for domain in dict.fromkeys(named) if domain}
    domains = {domain: _accuracies(points[:, members], options.seed) for domain, members in groups.items()}
    totals = _accuracies(points, options.seed)
    versus = [_comparisons(right, by_question, place, bool((sizes == 1).all()), options.seed) for place in range(2)]
    return Evaluation(
        options=options,
        questions=len(questions),
        items=len(scores),
        chance=float(np.mean([1 / len(question.answers) for question in questions])),
        points=tuple(
            PointEvaluation(
                alignment,
                {domain: rows[index] for domain, rows in domains.items()},
                totals[index],
                versus[0][index],
                versus[1][index],
                _letter_shares(scores, len(BASELINES) + index),
            )
            for index, alignment in enumerate(alignments)
        ),
        model=model,
    )


def _letter_shares(scores: Sequence[Score], place: int) -> dict[str, float]:
    most = max(len(score.item.order) for score in scores)
    chosen = [score.choices[place] for score in scores]
    shares = {LETTERS[letter]: chosen.count(letter) / len(chosen) for letter in range(most)}
    return {**shares, "none": chosen.count(None) / len(chosen)}


def _accuracies(values: NDArray[np.float64], seed: int) -> list[Accuracy]:
    """For each row of `values` `[points, questions]`."""
    bounds = intervals(values, seed)
    return [Accuracy(len(row), float(row.mean()), *bound) for row, bound in zip(values, bounds, strict=True)]


def _comparisons(
    right: NDArray[np.bool_], by_question: NDArray[np.float64], baseline: int, single: bool, seed: int
) -> list[Comparison]:
    """Each point against a baseline. `right`: `[baselines and points, items]`; `single`: one item per question."""
    differences = by_question[len(BASELINES) :] - by_question[baseline]
    mine, its = right[len(BASELINES) :], right[baseline]
    gained, lost = (mine & ~its).sum(-1).tolist(), (~mine & its).sum(-1).tolist()
    if single:
        p_values = [sign_test(more, fewer) for more, fewer in zip(gained, lost, strict=True)]
    else:
        p_values = sign_flip(differences, seed)
    bounds = intervals(differences, seed)
    test: Test = "mcnemar" if single else "sign_flip"
    return [
        Comparison(float(row.mean()), low, high, p, more, fewer, test)
        for row, (low, high), p, more, fewer in zip(differences, bounds, p_values, gained, lost, strict=True)
    ]


def table(evaluation: Evaluation) -> Table:
    """The accuracies for a terminal of 80 columns: a row a ratio, a column a domain and the total, in per cent."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    points = evaluation.points
    domains = list(points[0].domains)
    shown = domains if len(domains) <= DOMAINS_IN_TABLE else []
    made = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), caption=_caption(evaluation, domains, shown))
    made.caption_justify = "left"
    made.add_column("ratio", justify="right", no_wrap=True)
    for name in shown:
        heading = Text("".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name))
        room = ROOM_FOR_DOMAINS // len(shown) - 1
        made.add_column(heading, justify="right", min_width=FIGURE, max_width=room, overflow="ellipsis")
    for name in ("total", "vs 0", "vs 1"):
        made.add_column(name, justify="right", no_wrap=True)
    for point in points:
        accuracies = [_cell(point.domains[domain]) for domain in shown]
        versus = [_versus(comparison) for comparison in (point.versus_0, point.versus_1)]
        made.add_row(f"{point.alignment.ratio:g}", *accuracies, _cell(point.total), *versus)
    return made


def _cell(accuracy: Accuracy) -> str:
    return f"{100 * accuracy.accuracy:.1f}\n{_range(accuracy.low, accuracy.high)}"


def _range(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{100 * low:.0f}–{100 * high:.0f}"


def _versus(comparison: Comparison) -> str:
    p = "p<.001" if comparison.p_value < 0.001 else f"p={comparison.p_value:.3f}".replace("0.", ".")
    return f"{signed(100 * comparison.difference, 1)}\n{p}"


def _caption(evaluation: Evaluation, domains: list[str], shown: list[str]) -> str:
    options, test = evaluation.options, evaluation.points[0].versus_0.test
    test_name = "exact McNemar test" if test == "mcnemar" else "sign-flip test"
    return (
        f"Accuracy in % ({options.scoring}, {evaluation.questions} questions, {evaluation.items} items), below it the "
        f"95 % interval (bootstrap over questions). Chance: {100 * evaluation.chance:.1f}. vs 0, vs 1: gained on the "
        f"base model and on the principle as a plain prompt, below it p ({test_name})."
        + (f" {len(domains)} domains are in the JSON alone." if len(shown) < len(domains) else "")
    )

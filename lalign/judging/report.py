"""Wins, ties and losses of each contest, with intervals and tests; what order and length have to do with them.

What is sampled is prompts: every figure of a contest is a mean over its matches, one a prompt, and all are resampled
alike, so that they compare. Where a contest has several matches of a prompt there is no such thing: ids are unique.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lalign.evaluation.significance import CONFIDENCE, RESAMPLES, intervals, sign_test
from lalign.judging.judged import Judged

OUTCOMES = ("win", "tie", "lose")
# Answers whose lengths differ by less than this share of the longer one count as alike.
ALIKE = 0.1
LENGTHS = ("shorter", "alike", "longer")


@dataclass(frozen=True, slots=True)
class Share:
    """A mean over `n` matches, with its 95 % interval: None where one match has none; `value` is None of none."""

    n: int
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Bias:
    """What the order of the answers did, among matches of which both orders have a verdict.

    agreed: both orders said the same. first, second: both named the answer that stood there. other: one was a tie.
    """

    asked: int
    agreed: int
    first: int
    second: int
    other: int


@dataclass(frozen=True, slots=True)
class ContestReport:
    """One row of the table, from the side of `first`.

    score: wins and half the ties. lead: wins less losses.
    p_value: of the exact sign test, two-sided: of the matches that are no ties, half should be won.
    by_length: the score where the first one's answer is shorter, alike (within 10 % of the longer) and longer.
    controlled: the score if each of these had the same weight, for those there are: what is left when length is not
        allowed to count by how often one side is the longer one. longer_won: how often the longer answer won, of the
        decided matches whose lengths are not alike.
    """

    first: str
    second: str
    judged: int
    unparsable: int
    win: Share
    tie: Share
    lose: Share
    score: Share
    lead: Share
    p_value: float
    bias: Bias
    by_length: dict[str, Share]
    controlled: float | None
    longer_won: Share


def contest_reports(judged: Iterable[Judged], seed: int = 0) -> list[ContestReport]:
    """A report of each contest, in the order in which they come. Raises `LalignError` without scipy."""
    contests: dict[tuple[str, str], list[Judged]] = {}
    for match in judged:
        contests.setdefault((match.first, match.second), []).append(match)
    return [_report(first, second, matches, seed) for (first, second), matches in contests.items()]


def to_json(reports: Sequence[ContestReport]) -> dict[str, Any]:
    """The JSON object of `--summary`."""
    return {
        "confidence": CONFIDENCE,
        "intervals": f"percentile bootstrap over prompts, {RESAMPLES} resamples, paired",
        "contests": [asdict(report) for report in reports],
    }


def _report(first: str, second: str, matches: Sequence[Judged], seed: int) -> ContestReport:
    parsed = [match for match in matches if match.outcome != "unparsable"]
    counts = {outcome: sum(match.outcome == outcome for match in parsed) for outcome in OUTCOMES}
    win, tie, lose = (np.array([match.outcome == outcome for match in parsed], dtype=float) for outcome in OUTCOMES)
    score = win + tie / 2
    won, tied, lost, scored, led = _shares([win, tie, lose, score, win - lose], seed)
    sides = np.array([_side(match) for match in parsed])
    by_length = {name: _shares([score[sides == side]], seed)[0] for name, side in zip(LENGTHS, (-1, 0, 1), strict=True)}
    known = [share.value for share in by_length.values() if share.value is not None]
    decided = (sides != 0) & (tie == 0) if parsed else np.zeros(0, dtype=bool)
    longer = ((win - lose) * sides > 0).astype(float)[decided] if parsed else np.zeros(0)
    return ContestReport(
        first,
        second,
        len(parsed),
        len(matches) - len(parsed),
        won,
        tied,
        lost,
        scored,
        led,
        p_value=sign_test(counts["win"], counts["lose"]),
        bias=_bias(matches),
        by_length=by_length,
        controlled=sum(known) / len(known) if known else None,
        longer_won=_shares([longer], seed)[0],
    )


def _shares(rows: Sequence[NDArray[np.float64]], seed: int) -> list[Share]:
    """The mean of each row with its interval, all rows resampled alike."""
    count = len(rows[0])
    if not count:
        return [Share(0, None, None, None) for _ in rows]
    bounds = intervals(np.stack(rows), seed)
    return [Share(count, float(row.mean()), *bound) for row, bound in zip(rows, bounds, strict=True)]


def _side(match: Judged) -> int:
    """-1, 0 or 1 for a first answer that is shorter, alike or longer."""
    one, other = match.lengths
    return 0 if abs(one - other) <= ALIKE * max(one, other) else 1 if one > other else -1


def _bias(matches: Sequence[Judged]) -> Bias:
    asked = [match.verdicts for match in matches if len(match.verdicts) == 2 and None not in match.verdicts]
    agreeing = {("A", "B"), ("B", "A"), ("C", "C")}
    agreed, first, second = (
        sum(verdicts in kinds for verdicts in asked) for kinds in (agreeing, {("A", "A")}, {("B", "B")})
    )
    return Bias(len(asked), agreed, first, second, len(asked) - agreed - first - second)

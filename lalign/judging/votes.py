"""What people voted: read, merged by majority, and how far they agree among themselves and with a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from lalign.errors import InputError
from lalign.judging.ballots import MOST_SEED, is_swapped, pair_key
from lalign.judging.instructions import Outcome
from lalign.judging.judged import Judged, lengths
from lalign.judging.matches import Match
from lalign.records.json_line import json_object, line_text
from lalign.records.problems import Unusable, shown
from lalign.records.source import json_lines, open_lines

Votes = dict[int, Outcome]
"""By the number of the match."""

Merged = tuple[Match, Judged, dict[str, Outcome]]
"""A match, what came of it, and how each voted."""

_OPPOSITE: dict[Outcome, Outcome] = {"win": "lose", "lose": "win", "tie": "tie", "unparsable": "unparsable"}
_SIDES: dict[str, Outcome] = {"left": "win", "right": "lose", "tie": "tie"}


def read_votes(paths: Sequence[Path], matches: Sequence[Match]) -> dict[str, Votes]:
    """Each voter's votes, as outcomes for the first contestant.

    A voter is told by name, and may have saved several files. Raises `InputError` for a line that is no vote, a pair
    that is none of `matches`, and a voter who votes on a pair in two ways.
    """
    numbers = {pair_key(match): match.number for match in matches}
    voters: dict[str, Votes] = {}
    for path in paths:
        for where, fields in _lines(path):
            match fields:
                case {"voter": str(voter), "seed": int(seed), "pair": str(key), "vote": str(vote)} if vote in _SIDES:
                    pass
                case _:
                    raise InputError(f"{where}: is not a vote: voter, seed, pair, and vote (left, right or tie)")
            if not 0 <= seed <= MOST_SEED:
                raise InputError(f"{where}: seed: must be 0 to {MOST_SEED}, not {shown(seed)}")
            if key not in numbers:
                raise InputError(f"{where}: pair: {shown(key)} is of none of these files' answers")
            outcome = _OPPOSITE[_SIDES[vote]] if is_swapped(key, seed) else _SIDES[vote]
            votes = voters.setdefault(voter, {})
            if votes.setdefault(numbers[key], outcome) != outcome:
                raise InputError(f"{where}: voter: {shown(voter)} has voted on this pair before, in another way")
    return voters


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with open_lines(path) as stream:
        for raw in json_lines(stream, str(path)):
            where = f"{path}:{raw.number}"
            try:
                yield where, json_object(line_text(raw))
            except Unusable as error:
                raise InputError(f"{where}: {error}") from None


def merge_votes(matches: Iterable[Match], voters: Mapping[str, Votes]) -> list[Merged]:
    """The outcome that most voters see in each match that anybody voted on; where no outcome has most votes, a tie.

    Answers that are the same are a tie without votes.
    """
    merged = []
    for match in matches:
        cast = {voter: votes[match.number] for voter, votes in voters.items() if match.number in votes}
        if cast or match.texts[0] == match.texts[1]:
            judged = Judged(match.id, match.first, match.second, _majority(cast.values()), (), lengths(match))
            merged.append((match, judged, cast))
    return merged


def _majority(cast: Iterable[Outcome]) -> Outcome:
    ranked = Counter(cast).most_common(2)
    if not ranked or (len(ranked) == 2 and ranked[0][1] == ranked[1][1]):
        return "tie"
    return ranked[0][0]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two judges agree over `n` matches that both judged.

    share: of matches with the same outcome; kappa: Cohen's, what of that goes beyond chance, None where chance alone
    would agree on all. Over several voters, both are means over all pairs of them, and `n` counts all pairs' matches.
    """

    between: str
    n: int
    share: float | None
    kappa: float | None

    def told(self) -> str:
        """One line."""
        if self.share is None:
            return f"{self.between}: no match judged by both"
        kappa = "undefined" if self.kappa is None else f"{self.kappa:.2f}"
        return f"{self.between}: {100 * self.share:.0f} % of {self.n} the same, Cohen's kappa {kappa}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def agreements(
    voters: Mapping[str, Votes], merged: Iterable[Merged], model: Iterable[Judged] | None
) -> list[Agreement]:
    """Among the voters, and of their majority with a model's judgements where these are given.

    Matches without votes, of answers that are the same, are in neither: nobody was asked about them.
    """
    found = [
        _agreement([(one[number], other[number]) for number in one.keys() & other.keys()])
        for one, other in combinations(voters.values(), 2)
    ]
    met = [one for one in found if one.n]
    told = [Agreement("among people", sum(one.n for one in met), _mean(met, "share"), _mean(met, "kappa"))]
    if model is not None:
        said: dict[Any, Outcome] = {}
        for judged in model:
            said[judged.id, judged.first, judged.second] = judged.outcome
            said[judged.id, judged.second, judged.first] = _OPPOSITE[judged.outcome]
        both = [(one.outcome, said.get((one.id, one.first, one.second))) for _, one, votes in merged if votes]
        told.append(
            _agreement([(one, other) for one, other in both if other not in (None, "unparsable")], "people and model")
        )
    return told


def _agreement(pairs: Sequence[tuple[Any, Any]], between: str = "") -> Agreement:
    if not pairs:
        return Agreement(between, 0, None, None)
    count = len(pairs)
    share = sum(one == other for one, other in pairs) / count
    ones, others = Counter(one for one, _ in pairs), Counter(other for _, other in pairs)
    chance = sum(ones[outcome] * others[outcome] for outcome in ones) / count**2
    return Agreement(between, count, share, None if chance == 1 else (share - chance) / (1 - chance))


def _mean(found: Sequence[Agreement], name: str) -> float | None:
    values = [value for one in found if (value := getattr(one, name)) is not None]
    return sum(values) / len(values) if values else None

"""A match once it is judged: how it is written to an output, and read again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from lalign.asking.chats import Reply
from lalign.errors import InputError
from lalign.judging.instructions import Letter, Outcome, outcome_of, read_verdict
from lalign.judging.matches import Match
from lalign.records.json_line import json_object, line_text
from lalign.records.problems import Unusable
from lalign.records.source import json_lines, open_lines
from lalign.results import RecordId


@dataclass(frozen=True, slots=True)
class Judged:
    """The outcome of a match for its first contestant.

    verdicts: with the first contestant's answer as A, and as B; empty where nobody had to be asked, as the answers are
        the same, or where people voted.
    lengths: of both answers, in characters.
    """

    id: RecordId
    first: str
    second: str
    outcome: Outcome
    verdicts: tuple[Letter | None, ...]
    lengths: tuple[int, int]


def judged_by_model(match: Match, replies: Iterable[Reply]) -> Judged:
    """The outcome of the replies to both orders; without replies, of two answers that are the same."""
    verdicts = tuple(read_verdict(reply.text) for reply in replies)
    outcome = outcome_of(*verdicts) if verdicts else "tie"
    return Judged(match.id, match.first, match.second, outcome, verdicts, lengths(match))


def lengths(match: Match) -> tuple[int, int]:
    """Of both answers, in characters."""
    return len(match.texts[0]), len(match.texts[1])


def to_record(line: int, judged: Judged, replies: Iterable[Reply] = ()) -> dict[str, Any]:
    """The JSON object of a judged match, with what the judge said."""
    shown = ([judged.first, judged.second], [judged.second, judged.first])
    return {
        "id": judged.id,
        "line": line,
        "first": judged.first,
        "second": judged.second,
        "outcome": judged.outcome,
        "lengths": judged.lengths,
        "orders": [
            {"shown": order, "verdict": verdict, "reply": reply.text}
            for order, verdict, reply in zip(shown, judged.verdicts, replies, strict=False)
        ],
    }


def read_judged(path: Path) -> Iterator[Judged]:
    """The judged matches of an output; its error records are left out. Raises `InputError`."""
    with open_lines(path) as stream:
        for raw in json_lines(stream, str(path)):
            try:
                fields = json_object(line_text(raw))
            except Unusable as error:
                raise InputError(f"{path}:{raw.number}: {error}") from None
            if "error" not in fields:
                yield from_record(fields, f"{path}:{raw.number}")


def from_record(fields: Mapping[str, Any], where: str) -> Judged:
    """The judged match that a record of an output holds. Raises `InputError` that begins with `where`."""
    match fields:
        case {
            "id": str() | int() | float() as record_id,
            "first": str(first),
            "second": str(second),
            "outcome": str(outcome),
            "lengths": [int(one), int(other)],
            "orders": [*orders],
        } if outcome in get_args(Outcome):
            verdicts = tuple(order.get("verdict") if isinstance(order, dict) else None for order in orders)
            return Judged(record_id, first, second, outcome, verdicts, (one, other))  # type: ignore[arg-type]
    raise InputError(f"{where}: is not a judged match")

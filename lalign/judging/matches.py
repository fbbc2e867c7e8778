"""Who meets whom: matches of two contestants' answers to one prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import orjson

from lalign.errors import InputError, OptionError
from lalign.judging.answers import Contestant, Messages
from lalign.records.ids import counterpart
from lalign.records.problems import shown
from lalign.records.source import RawLine
from lalign.results import RecordId

Pairing = Literal["first", "all", "two"]


@dataclass(frozen=True, slots=True)
class Match:
    """One prompt and two contestants' answers to it.

    number: its place among all matches of the job, from 1.
    first, second: the contestants' names; `texts` their answers, in that order.
    """

    number: int
    id: RecordId
    first: str
    second: str
    conversation: Messages
    texts: tuple[str, str]

    def as_line(self) -> RawLine:
        """The match as a line of an input, for a resumed job to compare."""
        turns = [[message.role, message.content] for message in self.conversation]
        return RawLine(self.number, orjson.dumps([self.id, self.first, self.second, turns, self.texts]))


@dataclass(frozen=True, slots=True)
class Unmatched:
    """Ids of a contest that cannot be judged: for want of an answer in one file, or of one that is no error."""

    first: str
    second: str
    missing: int
    failed: int


def contests(contestants: Sequence[Contestant], pairing: Pairing) -> list[tuple[Contestant, Contestant]]:
    """Who meets whom.

    pairing: "first" (the first contestant meets each other one), "all" (each meets each) or "two" (the first meets
        the second, the third the fourth, and so on). Raises `OptionError` where there are too few or too many.
    """
    if len(contestants) < 2:
        raise OptionError("files", f"two files of answers are needed at the least, not {len(contestants)}")
    match pairing:
        case "first":
            return [(contestants[0], other) for other in contestants[1:]]
        case "all":
            return list(combinations(contestants, 2))
        case "two":
            if len(contestants) % 2:
                raise OptionError("match", f"two by two needs an even number of files, not {len(contestants)}")
            return list(zip(contestants[::2], contestants[1::2], strict=True))
    raise OptionError("match", f"must be one of first, all, two, not {pairing!r}")


def make_matches(
    pairs: Sequence[tuple[Contestant, Contestant]], prompts: Mapping[RecordId, Messages] | None = None
) -> tuple[list[Match], list[Unmatched]]:
    """All matches, contest by contest in the order of the first one's file, and what has no match.

    prompts: by id, where the answers do not hold them. Raises `InputError` for a prompt that cannot be found, for two
    answers to different prompts, and for two files that have no id in common.
    """
    matches: list[Match] = []
    unmatched: list[Unmatched] = []
    for first, second in pairs:
        before = len(matches)
        common = _common(first, second)
        for record_id, its_id in common:
            one, other = first.answers[record_id].text, second.answers[its_id].text
            if one is not None and other is not None:
                conversation = _conversation(record_id, its_id, first, second, prompts)
                number = len(matches) + 1
                matches.append(Match(number, record_id, first.name, second.name, conversation, (one, other)))
        if not common:
            raise InputError(f"{first.file} and {second.file} have no id in common")
        missing = len(first.answers) + len(second.answers) - 2 * len(common)
        found = Unmatched(first.name, second.name, missing, len(common) - (len(matches) - before))
        if found.missing or found.failed:
            unmatched.append(found)
    return matches, unmatched


def _common(first: Contestant, second: Contestant) -> list[tuple[RecordId, RecordId]]:
    """Of what both files answer, the id in each, in the order of the first."""
    found = ((record_id, counterpart(record_id, second.answers, first.answers)) for record_id in first.answers)
    return [(record_id, its_id) for record_id, its_id in found if its_id is not None]


def _conversation(
    record_id: RecordId,
    its_id: RecordId,
    first: Contestant,
    second: Contestant,
    prompts: Mapping[RecordId, Messages] | None,
) -> Messages:
    if prompts is not None:
        asked = counterpart(record_id, prompts, first.answers)
        if asked is None:
            raise InputError(f"--prompts: has no record of id {shown(record_id)}")
        return prompts[asked]
    one, other = first.answers[record_id], second.answers[its_id]
    if one.prompt is not None and other.prompt is not None and one.prompt != other.prompt:
        raise InputError(
            f"{first.file}:{one.line} and {second.file}:{other.line}: id {shown(record_id)} has two different prompts"
        )
    found = one.prompt or other.prompt
    if found is None:
        raise InputError(
            f"{first.file}:{one.line}: has no prompt; --prompts names the file that was answered, or generate --keep "
            "keeps prompts in the output"
        )
    return found

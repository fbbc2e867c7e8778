"""What `lalign judge` asks of its matches: a task each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lalign.asking.chats import Chat, Reply
from lalign.judging.instructions import judge_chats
from lalign.judging.judged import judged_by_model, to_record
from lalign.judging.matches import Match
from lalign.records.source import RawLine


@dataclass(frozen=True, slots=True)
class JudgeTask:
    """A match, to be judged in both orders; `asking.job.Task`. instructions: the judge's, with their places."""

    match: Match
    instructions: str

    @property
    def number(self) -> int:
        """As `Task.number`."""
        return self.match.number

    @property
    def names(self) -> dict[str, Any]:
        """As `Task.names`."""
        match = self.match
        return {"id": match.id, "line": match.number, "first": match.first, "second": match.second}

    def as_line(self) -> RawLine:
        """As `Task.as_line`."""
        return self.match.as_line()

    def chats(self, attempt: int) -> tuple[Chat, ...]:
        """Both orders, whatever the attempt; nothing where the answers are the same."""
        return () if self.match.texts[0] == self.match.texts[1] else judge_chats(self.match, self.instructions)

    def read(self, index: int, reply: Reply) -> Reply:
        """As `Task.read`; a reply without a verdict is told in its record."""
        return reply

    def record(self, replies: Sequence[Reply], said: Sequence[Any]) -> dict[str, Any]:
        """As `Task.record`."""
        return to_record(self.match.number, judged_by_model(self.match, replies), replies)


def contest_names(matches: Sequence[Match]) -> list[list[str]]:
    """Who meets whom, in order, for the fingerprint of a job."""
    return [list(contest) for contest in dict.fromkeys((match.first, match.second) for match in matches)]

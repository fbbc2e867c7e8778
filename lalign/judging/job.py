"""A judging job: matches in, judged matches out in their order, whatever happens on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import orjson

import lalign
from lalign.asking.chats import Asker, Chat, Reply, Stopped, Unanswered
from lalign.asking.replies import Replies, ask_once
from lalign.jobs.answered import line_digest
from lalign.jobs.output import Output
from lalign.jobs.reader import Comparison
from lalign.jobs.resume import Resumed
from lalign.judging.instructions import judge_chats
from lalign.judging.judged import Judged, judged_by_model, to_record
from lalign.judging.matches import Match


class JudgeJob:
    """One run of `lalign judge` over all matches.

    Args:
        matches: all of them, numbered from 1.
        instructions: the judge's, with their places.
        output: opened already; `replies` keeps what has been said and cannot be written yet.

    Attributes:
        judged: what this run has written, `failures` how many error records among it.
        resumed: what stood in the output when it started.
    """

    def __init__(self, matches: Sequence[Match], instructions: str, output: Output, replies: Replies) -> None:
        self.matches = matches
        self.instructions = instructions
        self.output = output
        self.replies = replies
        self.judged: list[Judged] = []
        self.failures = 0
        self.resumed = Resumed()

    def start(self, asker: Asker) -> None:
        """Begin the output, or go on with it.

        Raises `OutputError` where it belongs to a run of other settings, `InputError` to one of other answers.
        """
        contests = dict.fromkeys((match.first, match.second) for match in self.matches)
        fingerprint = {
            "lalign": lalign.__version__,
            "instructions": self.instructions,
            "contests": [list(contest) for contest in contests],
            **asker.fingerprint(),
        }
        self.resumed = self.output.start(fingerprint)
        if self.resumed.input is not None:
            self._compare()

    def _compare(self) -> None:
        comparison = Comparison(self.resumed)
        lines = [match.as_line() for match in self.matches[: comparison.last]]
        for line in lines:
            comparison.compare(line)
        comparison.end()
        for line in lines:
            if comparison.covered < line.number <= self.resumed.last_line:
                self.output.mark(line.number, line_digest(line))

    def run(self, asker: Asker, stopped: Stopped, on_judged: Callable[[int], None] = lambda done: None) -> None:
        """Judge what does not stand, after `start`; `on_judged` is told how many matches are done.

        Raises as `Asker.ask` and `Output.write`; what came before is written. Returns early once `stopped`.
        """
        left = [match for match in self.matches if not self.resumed.stands_whole(match.number)]
        chats = {match.number: self._chats(match) for match in left}
        got: dict[str, Reply | Unanswered] = {}
        written = self._write_ready(left, 0, chats, got)
        for chat, reply in ask_once(asker, (chat for both in chats.values() for chat in both), self.replies, stopped):
            got[chat.key] = reply
            written = self._write_ready(left, written, chats, got)
            on_judged(len(self.matches) - len(left) + written)
        self.output.sync()
        if written == len(left) and not self.failures and not self.resumed.failures:
            self.replies.remove()

    def _chats(self, match: Match) -> tuple[Chat, ...]:
        """What is to be asked of a match: nothing where the answers are the same."""
        return () if match.texts[0] == match.texts[1] else judge_chats(match, self.instructions)

    def _write_ready(
        self,
        left: Sequence[Match],
        written: int,
        chats: dict[int, tuple[Chat, ...]],
        got: dict[str, Reply | Unanswered],
    ) -> int:
        """Write all matches that may leave now, in order; returns how many of `left` are written."""
        while written < len(left):
            match = left[written]
            replies = [got[chat.key] for chat in chats[match.number] if chat.key in got]
            if len(replies) < len(chats[match.number]):
                break
            self._write(match, replies)
            written += 1
        return written

    def _write(self, match: Match, replies: Sequence[Reply | Unanswered]) -> None:
        said = [reply for reply in replies if isinstance(reply, Reply)]
        failed = next((reply for reply in replies if isinstance(reply, Unanswered)), None)
        record: dict[str, Any]
        if failed is not None:
            self.failures += 1
            error = {"type": failed.type, "message": failed.message}
            named = {"id": match.id, "line": match.number, "first": match.first, "second": match.second}
            record = {**named, "error": error}
        else:
            judged = judged_by_model(match, said)
            self.judged.append(judged)
            record = to_record(match.number, judged, said)
        self.output.mark(match.number, line_digest(match.as_line()))
        line = orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
        self.output.write(line, line=match.number, failed=failed is not None)

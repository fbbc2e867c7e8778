"""A job of questions to a model: tasks in, a record of each out in their order, whatever happens on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import orjson

import lalign
from lalign.asking.chats import Asker, Chat, Reply, Stopped, Unanswered
from lalign.asking.replies import Replies, ask_once
from lalign.jobs.answered import line_digest
from lalign.jobs.output import Output
from lalign.jobs.reader import Comparison
from lalign.jobs.resume import Resumed
from lalign.records.source import RawLine


class Unreadable(Exception):
    """Why a reply is not what was asked for: a short machine-readable name and one clear sentence."""

    def __init__(self, type: str, message: str) -> None:
        super().__init__(message)
        self.type = type


class Task(Protocol):
    """What one record of the output is made of.

    Attributes:
        number: its place among all tasks of the job, from 1.
        names: what its record begins with, `id` and `line` at the least.
    """

    @property
    def number(self) -> int: ...

    @property
    def names(self) -> dict[str, Any]: ...

    def as_line(self) -> RawLine:
        """The task as a line of an input, for a resumed job to compare."""

    def chats(self, attempt: int) -> tuple[Chat, ...]:
        """What is to be asked; `attempt` counts from 0, and above it keys differ, so that it is asked anew."""

    def read(self, index: int, reply: Reply) -> Any:
        """What the reply to the chat of this index says. Raises `Unreadable`."""

    def record(self, replies: Sequence[Reply], said: Sequence[Any]) -> dict[str, Any]:
        """The rest of the record, of the replies to all chats, and what they say."""


class AskingJob:
    """One run over all tasks.

    Args:
        tasks: all of them, in order.
        settings: what the records depend on besides the tasks and the model: flat, JSON values.
        output: opened already; `replies`, entered already, keeps what has been said and cannot be written yet.
        on_record: gets what is written, error records too.
        unit: what tasks are called in messages, in the plural.

    Attributes:
        failures: how many error records this run has written.
        resumed: what stood in the output when it started.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        settings: Mapping[str, Any],
        output: Output,
        replies: Replies,
        on_record: Callable[[dict[str, Any]], None] = lambda record: None,
        unit: str = "tasks",
    ) -> None:
        self.tasks = tasks
        self.unit = unit
        self.settings = settings
        self.output = output
        self.replies = replies
        self.failures = 0
        self.resumed = Resumed()
        self._on_record = on_record

    def start(self, asker: Asker) -> None:
        """Begin the output, or go on with it.

        Raises `OutputError` where it belongs to a run of other settings, `InputError` to one of other tasks.
        """
        settings = {"lalign": lalign.__version__, **self.settings, **asker.fingerprint()}
        self.resumed = self.output.start(settings)
        if self.resumed.input is not None:
            self._compare()
        self.replies.start(settings)

    def _compare(self) -> None:
        comparison = Comparison(self.resumed, self.unit)
        lines = [task.as_line() for task in self.tasks[: comparison.last]]
        for line in lines:
            comparison.compare(line)
        comparison.end()
        for line in lines:
            if comparison.covered < line.number <= self.resumed.last_line:
                self.output.mark(line.number, line_digest(line))

    def waiting(self) -> list[Chat]:
        """All that is still to be asked, after `start`."""
        chats = [chat for task in self._left() for chat in self._chats(task)]
        return [chat for chat in chats if chat not in self.replies]

    def run(self, asker: Asker, stopped: Stopped, on_done: Callable[[int], None] = lambda done: None) -> None:
        """Do what does not stand, after `start`; `on_done` is told how many tasks are done.

        Raises as `Asker.ask` and `Output.write`; what came before is written. Returns early once `stopped`.
        """
        left = self._left()
        chats = {task.number: self._chats(task) for task in left}
        got: dict[str, Reply | Unanswered] = {}
        written = self._write_ready(left, 0, chats, got)
        for chat, reply in ask_once(asker, (chat for of in chats.values() for chat in of), self.replies, stopped):
            got[chat.key] = reply
            written = self._write_ready(left, written, chats, got)
            on_done(len(self.tasks) - len(left) + written)
        self.output.sync()
        if written == len(left) and not self.failures and not self.resumed.failures:
            self.replies.remove()

    def _left(self) -> list[Task]:
        return [task for task in self.tasks if not self.resumed.stands_whole(task.number)]

    def _chats(self, task: Task) -> tuple[Chat, ...]:
        """The chats of a task, each of its latest attempt; what could not be read is asked anew if it is redone."""
        redone = self.resumed.redoes(task.number)
        return tuple(self._latest(task, index, redone) for index in range(len(task.chats(0))))

    def _latest(self, task: Task, index: int, redone: bool) -> Chat:
        attempt = 0
        while (chat := task.chats(attempt)[index]) in self.replies:
            later = task.chats(attempt + 1)[index]
            if later.key == chat.key or is_readable(task, index, self.replies[chat]):
                break
            if not redone and later not in self.replies:
                break
            attempt += 1
        return chat

    def _write_ready(
        self,
        left: Sequence[Task],
        written: int,
        chats: dict[int, tuple[Chat, ...]],
        got: dict[str, Reply | Unanswered],
    ) -> int:
        """Write all records that may leave now, in order; returns how many of `left` are written."""
        while written < len(left):
            task = left[written]
            replies = [got[chat.key] for chat in chats[task.number] if chat.key in got]
            if len(replies) < len(chats[task.number]):
                break
            self._write(task, replies)
            written += 1
        return written

    def _write(self, task: Task, replies: Sequence[Reply | Unanswered]) -> None:
        record = task.names | _outcome(task, replies)
        failed = "error" in record
        self.failures += failed
        self.output.mark(task.number, line_digest(task.as_line()))
        self.output.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE), line=task.number, failed=failed)
        self._on_record(record)


def is_readable(task: Task, index: int, reply: Reply) -> bool:
    """Whether the reply is what was asked for."""
    try:
        task.read(index, reply)
    except Unreadable:
        return False
    return True


def _outcome(task: Task, replies: Sequence[Reply | Unanswered]) -> dict[str, Any]:
    """What a record holds besides its names: what was said, or the error."""
    said: list[Reply] = []
    for reply in replies:
        if isinstance(reply, Unanswered):
            return {"error": {"type": reply.type, "message": reply.message}}
        said.append(reply)
    try:
        return task.record(said, [task.read(index, reply) for index, reply in enumerate(said)])
    except Unreadable as error:
        return {"error": {"type": error.type, "message": str(error)}, "replies": [reply.text for reply in said]}

"""A job of questions, broken off anywhere and gone on with, writes what one run writes, and asks nothing twice."""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lalign.asking.chats import Chat, Reply, Stopped, Unanswered, user_chat
from lalign.asking.job import AskingJob, Unreadable
from lalign.asking.replies import Replies
from lalign.errors import InputError, LalignError
from lalign.jobs.output import open_output
from lalign.records.source import RawLine


@dataclass(frozen=True)
class Asked:
    """A task of `count` chats; replies of lower case cannot be read."""

    number: int
    count: int
    text: str = "q"

    @property
    def names(self) -> dict[str, Any]:
        return {"id": f"t{self.number}", "line": self.number}

    def as_line(self) -> RawLine:
        return RawLine(self.number, f"{self.text} {self.count}".encode())

    def chats(self, attempt: int) -> tuple[Chat, ...]:
        return tuple(user_chat(f"{self.text} {self.number}.{index}", f"{attempt}") for index in range(self.count))

    def read(self, index: int, reply: Reply) -> str:
        if reply.text.islower():
            raise Unreadable("lower", f"{reply.text}: is of lower case")
        return reply.text

    def record(self, replies: Sequence[Reply], said: Sequence[Any]) -> dict[str, Any]:
        return {"said": list(said)}


@dataclass
class Answering:
    """Answers in a random order, and stops or breaks after `most`; `bad` chats get no reply, `low` one of lower case.

    Attributes: asked, every chat that got a reply.
    """

    seed: int = 0
    most: int = 10**6
    breaks: bool = False
    bad: set[str] = field(default_factory=set)
    low: set[str] = field(default_factory=set)
    asked: list[Chat] = field(default_factory=list)

    def fingerprint(self) -> dict[str, Any]:
        return {"model": "m"}

    def ask(self, chats: Iterable[Chat], stopped: Stopped) -> Iterator[tuple[Chat, Reply | Unanswered]]:
        waiting = list(chats)
        random.Random(self.seed).shuffle(waiting)
        for chat in waiting[: self.most]:
            text = chat.messages[0].content
            if text in self.bad:
                yield chat, Unanswered("bad", "no")
                continue
            self.asked.append(chat)
            yield chat, Reply("low" if text in self.low else text.upper())
        if self.breaks and len(waiting) > self.most:
            raise LalignError("broken")


def run(
    folder: Path, tasks: Sequence[Asked], asker: Answering, *, resume: bool = True, retry: bool = False
) -> AskingJob:
    path = folder / "out.jsonl"
    with (
        open_output(path, resume=resume, retry_errors=retry) as output,
        Replies(path, resume=resume) as replies,
    ):
        job = AskingJob(tasks, {"kind": "k"}, output, replies)
        job.start(asker)
        try:
            job.run(asker, lambda: False)
        except LalignError:
            output.sync()
    return job


def written(folder: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in (folder / "out.jsonl").read_bytes().splitlines()]


def expected(tasks: Sequence[Asked]) -> list[dict[str, Any]]:
    """What one run writes that nothing goes wrong in, made without any job."""
    return [{**task.names, "said": [f"Q {task.number}.{index}" for index in range(task.count)]} for task in tasks]


COUNTS = st.lists(st.integers(0, 3), min_size=1, max_size=6)


@settings(max_examples=40)
@given(COUNTS, st.lists(st.tuples(st.integers(0, 99), st.integers(0, 5), st.booleans()), max_size=4))
def test_a_job_in_pieces_is_a_job_in_one(counts: list[int], pieces: list[tuple[int, int, bool]]) -> None:
    tasks = [Asked(number, count) for number, count in enumerate(counts, start=1)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        askers = [Answering(seed, most, breaks) for seed, most, breaks in pieces] + [Answering(7)]
        for place, asker in enumerate(askers):
            run(folder, tasks, asker, resume=bool(place))
        assert written(folder) == expected(tasks)
        asked = Counter(chat.key for asker in askers for chat in asker.asked)
        assert asked == Counter(chat.key for task in tasks for chat in task.chats(0))
        assert not (folder / "out.jsonl.replies").exists()


@settings(max_examples=40)
@given(COUNTS, st.data())
def test_what_failed_is_asked_again_and_nothing_else(counts: list[int], data: st.DataObject) -> None:
    tasks = [Asked(number, count) for number, count in enumerate(counts, start=1)]
    texts = [chat.messages[0].content for task in tasks for chat in task.chats(0)]
    some = st.sets(st.sampled_from(texts)) if texts else st.just(set())
    bad, low = data.draw(some), data.draw(some)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first = Answering(1, bad=bad, low=low - bad)
        job = run(folder, tasks, first, resume=False)
        failed = [task for task in tasks if {chat.messages[0].content for chat in task.chats(0)} & (bad | low)]
        assert [record["id"] for record in written(folder) if "error" in record] == [f"t{one.number}" for one in failed]
        assert job.failures == len(failed)
        # Without being told to, a resumed job lets errors stand.
        second = Answering(2)
        assert run(folder, tasks, second).resumed.failures == len(failed)
        assert not second.asked
        third = Answering(3)
        assert not run(folder, tasks, third, retry=True).failures
        assert {chat.messages[0].content for chat in third.asked} == bad | low
        assert len(third.asked) == len(bad | low)
        assert written(folder) == expected(tasks)


def test_waiting_is_what_a_run_would_ask(tmp_path: Path) -> None:
    tasks = [Asked(1, 2), Asked(2, 0), Asked(3, 2)]
    run(tmp_path, tasks, Answering(most=1), resume=False)
    path = tmp_path / "out.jsonl"
    with open_output(path, resume=True) as output, Replies(path, resume=True) as replies:
        job = AskingJob(tasks, {"kind": "k"}, output, replies)
        job.start(Answering())
        assert len(job.waiting()) == 3


def test_other_tasks_are_refused(tmp_path: Path) -> None:
    run(tmp_path, [Asked(1, 1), Asked(2, 1)], Answering(), resume=False)
    with pytest.raises(InputError, match="are not those the output answers"):
        run(tmp_path, [Asked(1, 1), Asked(2, 1, "r")], Answering())
    # One more is no other.
    run(tmp_path, [Asked(1, 1), Asked(2, 1), Asked(3, 1)], Answering())
    assert len(written(tmp_path)) == 3

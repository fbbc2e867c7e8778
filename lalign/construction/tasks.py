"""What the stages ask, and what they read in the replies: each a `Task` of an `asking.job.AskingJob`."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from lalign.asking.chats import Chat, Reply, user_chat
from lalign.asking.instructions import fill
from lalign.asking.job import Unreadable
from lalign.construction.form import Broken, read_blocks, read_fields, within, write_block
from lalign.construction.questions import ANSWERS, FIELDS, PREFERENCES, USERS, Question
from lalign.construction.similarity import names_person, repeats, sorted_words
from lalign.errors import InputError
from lalign.records.source import RawLine

QUESTIONS_A_REQUEST = 5
FEWEST_SHOWN, MOST_SHOWN = 3, 5


@dataclass(frozen=True, slots=True)
class QuestionsTask:
    """A request for five more questions, with three to five examples."""

    number: int
    shown: tuple[Question, ...]
    instructions: str

    @property
    def names(self) -> dict[str, Any]:
        """As `Task.names`."""
        return {"id": self.number, "line": self.number, "shown": [seed.id for seed in self.shown]}

    def as_line(self) -> RawLine:
        """As `Task.as_line`."""
        return RawLine(self.number, orjson.dumps([seed.fields for seed in self.shown]))

    def chats(self, attempt: int) -> tuple[Chat, ...]:
        """As `Task.chats`; two requests that show the same are two requests."""
        examples = "\n\n".join(write_block(seed.fields) for seed in self.shown)
        return (user_chat(fill(self.instructions, {"examples": examples}), f"{self.number} {_salt(attempt)}"),)

    def read(self, index: int, reply: Reply) -> tuple[list[dict[str, str]], list[Broken]]:
        """The questions, and the blocks that are none. Raises `Unreadable` where there is no question."""
        seen = {sorted_words(seed.question) for seed in self.shown}
        good, broken = [], []
        for block in read_blocks(reply.text, FIELDS):
            if isinstance(block, Broken):
                broken.append(block)
            elif sorted_words(block["question"]) in seen:
                broken.append(Broken(write_block(block), "question: is that of an example"))
            else:
                good.append(block)
        if not good:
            problem = broken[0].problem if broken else "no block between [[ and ]]"
            raise Unreadable("unparsable", f"no question could be read: {problem}{_cut(reply)}")
        return good, broken

    def record(self, replies: Sequence[Reply], said: Sequence[Any]) -> dict[str, Any]:
        """As `Task.record`."""
        ((good, broken),) = said
        return {"questions": good, "unparsed": [{"text": one.text, "problem": one.problem} for one in broken]}


def questions_tasks(seeds: Sequence[Question], count: int, seed: int, instructions: str) -> list[QuestionsTask]:
    """Requests for `count` questions, five each; which seeds one shows is drawn by `seed` and its number alone.

    Raises `InputError` where there are too few seeds.
    """
    if len(seeds) < FEWEST_SHOWN:
        raise InputError(f"{len(seeds)} seed examples are too few: at least {FEWEST_SHOWN} are shown in a request")
    return [
        QuestionsTask(number, _drawn(seeds, f"{seed}/{number}"), instructions)
        for number in range(1, -(-count // QUESTIONS_A_REQUEST) + 1)
    ]


def _drawn(seeds: Sequence[Question], seed: str) -> tuple[Question, ...]:
    draw = random.Random(seed)
    return tuple(draw.sample(seeds, draw.randint(FEWEST_SHOWN, min(MOST_SHOWN, len(seeds)))))


@dataclass(frozen=True, slots=True)
class AnswersTask:
    """A question, to be answered for each of its users in a request of its own. number: as `Task.number`."""

    number: int
    question: Question
    instructions: str

    @property
    def names(self) -> dict[str, Any]:
        """As `Task.names`: the question itself."""
        return {"id": self.question.id, "line": self.number, **self.question.fields}

    def as_line(self) -> RawLine:
        """As `Task.as_line`."""
        return RawLine(self.number, orjson.dumps([self.question.id, self.question.fields]))

    def chats(self, attempt: int) -> tuple[Chat, ...]:
        """As `Task.chats`: one for each user."""
        return tuple(
            user_chat(
                fill(
                    self.instructions,
                    {"question": self.question.question, "preference": preference, "letter": letter},
                ),
                _salt(attempt),
            )
            for letter, preference in zip(USERS, self.question.preferences, strict=True)
        )

    def read(self, index: int, reply: Reply) -> str:
        """The answer. Raises `Unreadable`, also where it repeats the description or does not begin as it should."""
        answer = _only_field(reply, ANSWERS[index])
        if not answer.lower().startswith("for ") or len(answer.split()) < 3:
            raise Unreadable("unparsable", f'{ANSWERS[index]}: does not begin with "For ..."')
        preference = self.question.preferences[index]
        if repeats(preference, answer) or names_person(preference, _opening(answer)):
            raise Unreadable("names_description", f"{ANSWERS[index]}: repeats {PREFERENCES[index]}")
        return answer

    def record(self, replies: Sequence[Reply], said: Sequence[Any]) -> dict[str, Any]:
        """As `Task.record`."""
        return dict(zip(ANSWERS, said, strict=True))


@dataclass(frozen=True, slots=True)
class PrincipleTask:
    """A conversation, and what is known of who asks, if anything.

    number: as `Task.number`. asked: what the record takes over of the input: `id` and a prompt that `generate` reads.
    """

    number: int
    asked: Mapping[str, Any]
    conversation: str
    preference: str | None
    instructions: str

    @property
    def names(self) -> dict[str, Any]:
        """As `Task.names`."""
        described = {} if self.preference is None else {"preference": self.preference}
        return {"id": self.asked["id"], "line": self.number, **self.asked, **described}

    def as_line(self) -> RawLine:
        """As `Task.as_line`."""
        return RawLine(self.number, orjson.dumps([self.asked, self.preference]))

    def chats(self, attempt: int) -> tuple[Chat, ...]:
        """As `Task.chats`."""
        texts = {"conversation": self.conversation, "preference": self.preference or ""}
        return (user_chat(fill(self.instructions, texts), _salt(attempt)),)

    def read(self, index: int, reply: Reply) -> str:
        """The principle. Raises `Unreadable`."""
        return _only_field(reply, "principle")

    def record(self, replies: Sequence[Reply], said: Sequence[Any]) -> dict[str, Any]:
        """As `Task.record`."""
        return {"principle": said[0]}


def _opening(answer: str) -> str:
    """What an answer is for, by its first phrase."""
    return re.split(r"[,.:;–—]", answer[len("for ") :], maxsplit=1)[0]


def _only_field(reply: Reply, name: str) -> str:
    if reply.cut:
        raise Unreadable("cut_off", f"{name}: cut off by the limit of tokens")
    try:
        (text,) = read_fields(reply.text, [name]).values()
    except ValueError as error:
        raise Unreadable("unparsable", str(error)) from None
    return " ".join(within(text).split())


def _salt(attempt: int) -> str:
    return f"again {attempt}" if attempt else ""


def _cut(reply: Reply) -> str:
    return "; the reply was cut off by the limit of tokens" if reply.cut else ""

"""What principles are wanted for: conversations, and who asks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lalign.asking.instructions import transcript
from lalign.construction.prompts import instructions
from lalign.construction.questions import USERS, objects, source_name, to_question
from lalign.construction.tasks import PrincipleTask
from lalign.errors import InputError
from lalign.records.parsing import Message, parse_fields
from lalign.records.problems import Unusable, filled
from lalign.records.source import RawLine
from lalign.results import Failure


@dataclass(frozen=True, slots=True)
class Wanted:
    """One principle that is wanted: what its record takes over of the input, and who asks, if that is known."""

    asked: Mapping[str, Any]
    messages: tuple[Message, ...]
    preference: str | None


def read_wanted(path: Path | None, *, general: bool = False) -> list[Wanted]:
    """What to make principles for: of a question with descriptions one for each, of other records of `generate` one.

    general: for people in general, whatever descriptions there are, so one a record. A record that is no question may
    have its description under `preference`. Raises `InputError`.
    """
    name = source_name(path)
    wanted: list[Wanted] = []
    for raw, fields in objects(path):
        try:
            wanted += _wanted(raw, fields, general)
        except Unusable as error:
            raise InputError(f"{name}:{raw.number}: {error}") from None
    if not wanted:
        raise InputError(f"{name}: holds no records")
    return wanted


def principle_tasks(wanted: list[Wanted], own: str | None) -> list[PrincipleTask]:
    """A task each; `own` instructions stand in the place of lalign's. Raises `OptionError` where they lack a place."""
    texts = {
        described: instructions("principles_described" if described else "principles", own)
        for described in {one.preference is not None for one in wanted}
    }
    return [
        PrincipleTask(number, one.asked, transcript(one.messages), one.preference, texts[one.preference is not None])
        for number, one in enumerate(wanted, start=1)
    ]


def _wanted(raw: RawLine, fields: Mapping[str, Any], general: bool) -> Iterator[Wanted]:
    if any(fields.get(key) is not None for key in ("question", "questions", "error")):
        question = to_question(raw, fields)
        message = Message("user", question.question)
        if general:
            yield Wanted({"id": question.id, "prompt": question.question}, (message,), None)
            return
        for user, preference in zip(USERS, question.preferences, strict=True):
            yield Wanted({"id": f"{question.id}-{user}", "prompt": question.question}, (message,), preference)
        return
    record = parse_fields(fields, raw.number)
    if isinstance(record, Failure):
        raise Unusable("invalid_type", record.message)
    given = None if general else fields.get("preference")
    turns = [{"role": message.role, "content": message.content} for message in record.messages]
    asked = {"id": record.id, **({"prompt": turns[0]["content"]} if len(turns) == 1 else {"messages": turns})}
    yield Wanted(asked, record.messages, None if given is None else filled("preference", given).strip())

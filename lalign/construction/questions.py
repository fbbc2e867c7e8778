"""Questions with four descriptions of who may ask: seeds, what a model has added, what `lalign eval` reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lalign.errors import InputError
from lalign.records.json_line import json_object, line_text
from lalign.records.problems import Unusable, filled, shown
from lalign.records.source import RawLine, json_lines, open_lines
from lalign.results import RecordId

USERS = "abcd"
PREFERENCES = tuple(f"preference_{user}" for user in USERS)
ANSWERS = tuple(f"answer_{user}" for user in USERS)
FIELDS = ("domain", "question", *PREFERENCES)


@dataclass(frozen=True, slots=True)
class Question:
    """A question, the phrases that describe its four users, and the line that it stands in."""

    raw: RawLine
    id: RecordId
    domain: str
    question: str
    preferences: tuple[str, ...]

    @property
    def fields(self) -> dict[str, str]:
        """Its texts, by their keys in a record."""
        return dict(zip(FIELDS, (self.domain, self.question, *self.preferences), strict=True))


def read_questions(path: Path | None) -> list[Question]:
    """All questions of a file of JSON Lines. Raises `InputError` for a line that is none, and where there are none."""
    name = source_name(path)
    questions = []
    for raw, fields in objects(path):
        try:
            questions.append(to_question(raw, fields))
        except Unusable as error:
            raise InputError(f"{name}:{raw.number}: {error}") from None
    if not questions:
        raise InputError(f"{name}: holds no questions")
    return questions


def to_question(raw: RawLine, fields: Mapping[str, Any]) -> Question:
    """The question of a record; other keys are passed over. Raises `Unusable`."""
    if isinstance(fields.get("questions"), list):
        raise Unusable("invalid_type", "questions: are taken apart by `lalign construct filter`")
    if fields.get("error") is not None:
        raise Unusable("invalid_type", "error: is an error record, which `lalign construct filter` leaves out")
    domain, question, *preferences = (_text(name, fields) for name in FIELDS)
    return Question(raw, record_id(fields, raw.number), domain, question, tuple(preferences))


def record_id(fields: Mapping[str, Any], number: int) -> RecordId:
    """The id of a record, else the number of its line. Raises `Unusable`."""
    value = fields.get("id")
    if value is None:
        return number
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise Unusable("invalid_type", f"id: must be a string or a number, not {shown(value)}")
    return value


def objects(path: Path | None) -> Iterator[tuple[RawLine, dict[str, Any]]]:
    """The lines of a file, and the objects in them. Raises `InputError`."""
    name = source_name(path)
    with open_lines(path) as stream:
        for raw in json_lines(stream, name):
            try:
                yield raw, json_object(line_text(raw))
            except Unusable as error:
                raise InputError(f"{name}:{raw.number}: {error}") from None


def source_name(path: Path | None) -> str:
    """What a source is called in messages."""
    return "stdin" if path is None else str(path)


def _text(name: str, fields: Mapping[str, Any]) -> str:
    if fields.get(name) is None:
        raise Unusable("missing_field", f"{name}: missing")
    return filled(name, fields[name]).strip()

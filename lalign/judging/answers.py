"""The answers that are to be judged: one file a contestant, told apart by the ids of its records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lalign.asking.batch_files import response_reply
from lalign.asking.chats import Reply
from lalign.errors import InputError
from lalign.records.conversations import asked_of
from lalign.records.json_line import json_object, line_text
from lalign.records.parsing import Message, parse_fields
from lalign.records.problems import Unusable, shown
from lalign.records.source import json_lines, open_lines
from lalign.results import Failure, RecordId, whole_answer

Messages = tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """One record: its line, its text (None for an error record), and the prompt, where the record holds it."""

    line: int
    text: str | None
    prompt: Messages | None


@dataclass(frozen=True, slots=True)
class Contestant:
    """The answers of one file, by their ids, in its order."""

    name: str
    file: str
    answers: Mapping[RecordId, Answer]


def read_contestant(path: Path, name: str, field: str = "response") -> Contestant:
    """The answers of a file: lalign's own output, OpenAI Batch output, or any JSON Lines with a text under `field`.

    A prefill that a response of lalign's goes on from is part of the answer.

    The id is `id` or `custom_id`, else the number of the line. The prompt is that of `input` (`generate --keep`), else
    that of the record itself. Raises `InputError` for a line that is no answer, and for an id that is there twice.
    """
    answers: dict[RecordId, Answer] = {}
    for number, fields in _objects(path):
        record_id = _id(fields, number, path)
        if record_id in answers:
            first = answers[record_id].line
            raise InputError(f"{path}:{number}: id: {shown(record_id)} is there twice, first in line {first}")
        try:
            text = _text(fields, field)
        except Unusable as error:
            raise InputError(f"{path}:{number}: {error}") from None
        answers[record_id] = Answer(number, text, _prompt(fields, number))
    if not answers:
        raise InputError(f"{path}: holds no records")
    return Contestant(name, str(path), answers)


def read_prompts(path: Path) -> dict[RecordId, Messages]:
    """The conversations of an input of `lalign generate`, by id. Raises `InputError` for a line that has none."""
    prompts: dict[RecordId, Messages] = {}
    for number, fields in _objects(path):
        record = parse_fields(fields, number)
        if isinstance(record, Failure):
            raise InputError(f"{path}:{number}: {record.message}")
        if record.id in prompts:
            raise InputError(f"{path}:{number}: id: {shown(record.id)} is there twice")
        prompts[record.id] = asked_of(record.messages)
    return prompts


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with open_lines(path) as stream:
        for raw in json_lines(stream, str(path)):
            try:
                yield raw.number, json_object(line_text(raw))
            except Unusable as error:
                raise InputError(f"{path}:{raw.number}: {error}") from None


def _id(fields: Mapping[str, Any], number: int, path: Path) -> RecordId:
    value = fields.get("id") if fields.get("custom_id") is None else fields.get("custom_id")
    if value is None:
        return number
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise InputError(f"{path}:{number}: id: must be a string or a number, not {shown(value)}")
    return value


def _text(fields: Mapping[str, Any], field: str) -> str | None:
    if fields.get("error") is not None:
        return None
    value = fields.get(field)
    if isinstance(value, dict) and "custom_id" in fields:
        reply = response_reply(fields)
        own = fields.get("lalign")
        return whole_answer(own if isinstance(own, dict) else {}, reply.text) if isinstance(reply, Reply) else None
    if value is None:
        raise Unusable("invalid_type", f"{field}: missing; --response-field names another")
    if not isinstance(value, str):
        raise Unusable("invalid_type", f"{field}: must be a string, not {shown(value)}")
    return whole_answer(fields, value) if field == "response" else value


def _prompt(fields: Mapping[str, Any], number: int) -> Messages | None:
    given = fields.get("input")
    record = parse_fields(given if isinstance(given, dict) else fields, number)
    return None if isinstance(record, Failure) else asked_of(record.messages)

"""The answers that are to be judged: one file a contestant, told apart by the ids of its records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lalign.asking.batch_files import response_reply
from lalign.asking.chats import Reply
from lalign.errors import InputError
from lalign.jobs.read_as import read_as, read_kept, reading_of
from lalign.records.batch_lines import id_fields, unpacked
from lalign.records.conversations import asked_of
from lalign.records.inputs import Inputs, named
from lalign.records.json_line import json_object, line_text
from lalign.records.parsing import Message, parse_fields, parse_record
from lalign.records.problems import Unusable, shown
from lalign.records.reading import Reading
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
    """The answers of one file, by their ids, in its order.

    readings: in which ways its prompts were read, as far as the file tells.
    """

    name: str
    file: str
    answers: Mapping[RecordId, Answer]
    readings: frozenset[Reading] = field(default_factory=frozenset)


def read_contestant(path: Path, name: str, field: str = "response") -> Contestant:
    """The answers of a file: lalign's own output, OpenAI Batch output, or any JSON Lines with a text under `field`.

    A prefill that a response of lalign's goes on from is part of the answer.

    The id is `id`, else `custom_id`, in batch results the other way about, else the number of the line. The prompt is
    that of `input` (`generate --keep`), read as the job read it, else that of the record itself. Raises `InputError`
    for a line that is no answer, and for an id that is there twice, `OutputError` for a header that cannot be read.
    """
    answers: dict[RecordId, Answer] = {}
    said = reading_of(path)
    readings: set[Reading] = set()
    for number, written, fields in _objects(path):
        record_id = _id(fields, number, path)
        if record_id in answers:
            first = answers[record_id].line
            raise InputError(f"{path}:{number}: id: {shown(record_id)} is there twice, first in line {first}")
        try:
            text = _text(fields, field)
            reading = read_as(fields, said)
        except Unusable as error:
            raise InputError(f"{path}:{number}: {error}") from None
        answers[record_id] = Answer(number, text, _prompt(written, fields, number, reading))
        readings |= set() if reading is None else {reading}
    if not answers:
        raise InputError(f"{path}: holds no records")
    return Contestant(name, str(path), answers, frozenset(readings))


def read_prompts(path: Path, contestants: Sequence[Contestant] = ()) -> dict[RecordId, Messages]:
    """The conversations of an input of `lalign generate`, or of several that a pattern names, by id.

    contestants: who answered them; they are read as their jobs did. Raises `InputError` for a line that has none, and
    where they were read in different ways.
    """
    ways = frozenset[Reading]().union(*(contestant.readings for contestant in contestants))
    if len(ways) > 1:
        files = ", ".join(contestant.file for contestant in contestants if contestant.readings)
        raise InputError(f"--prompts: the jobs of {files} did not read their prompts alike; generate --keep keeps them")
    reading = next(iter(ways), None)
    prompts: dict[RecordId, Messages] = {}
    inputs = Inputs(named([path]))
    with inputs.open() as stream:
        for raw in json_lines(stream, inputs.name):
            record, where = parse_record(raw, reading=reading), inputs.place(raw.number)
            if isinstance(record, Failure):
                raise InputError(f"{where}: {record.message}")
            if record.id in prompts:
                raise InputError(f"{where}: id: {shown(record.id)} is there twice")
            prompts[record.id] = asked_of(record.messages)
    return prompts


def _objects(path: Path) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
    """Of each line its number, its text, and its record, in lalign's own shape where lalign wrote it."""
    with open_lines(path) as stream:
        for raw in json_lines(stream, str(path)):
            try:
                text = line_text(raw)
                yield raw.number, text, unpacked(json_object(text))
            except Unusable as error:
                raise InputError(f"{path}:{raw.number}: {error}") from None


def _id(fields: Mapping[str, Any], number: int, path: Path) -> RecordId:
    value = next((found for key in id_fields(fields) if (found := fields.get(key)) is not None), None)
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
        return reply.text if isinstance(reply, Reply) else None
    if value is None:
        raise Unusable("invalid_type", f"{field}: missing; --response-field names another")
    if not isinstance(value, str):
        raise Unusable("invalid_type", f"{field}: must be a string, not {shown(value)}")
    return whole_answer(fields, value) if field == "response" else value


def _prompt(text: str, fields: Mapping[str, Any], number: int, reading: Reading | None) -> Messages | None:
    if isinstance(fields.get("input"), dict):
        record = read_kept(text, fields, number, reading)
    else:
        record = parse_fields(fields, number)
    return None if isinstance(record, Failure) else asked_of(record.messages)

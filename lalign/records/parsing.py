"""One input line to one `Record`, or to the `Failure` that says what is wrong with it (design section 4).

A key that is null counts as absent. What a line asks for is honoured, refused, or named in `Record.ignored`; all keys
that are nothing like an option are data, and left alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lalign.records.conversations import (
    Message,
    Role,
    has_later_turns,
    read_body,
    read_conversation,
    read_messages,
    read_named_prompt,
    with_system,
)
from lalign.records.fields import check_kind, ignored, read_instruction, read_options, read_system, read_variables
from lalign.records.json_line import exact_json, json_object, line_text
from lalign.records.problems import Problem, Unusable, shown
from lalign.records.reading import Reading, field_of
from lalign.records.source import RawLine
from lalign.results import Failure, RecordId

__all__ = ["Message", "Problem", "Record", "Role", "parse_fields", "parse_record"]


@dataclass(frozen=True, slots=True)
class Record:
    """A line that can be answered.

    `messages` end with a user turn, or with one of the assistant's that the response goes on from, and only the first
    can be a system turn. `options` holds the line's own values
    of `ratio` and `p` (fields of `options.Alignment`) and `temperature`, `top_p`, `top_k`, `min_p`,
    `repetition_penalty`, `max_new_tokens`, `seed` and `stop` (of `options.Sampling`), each valid there. `principle`
    and `contrast` are texts, never file names, `principles` those of the job with the record's fields in them,
    `chat_template_kwargs` variables for the chat template. `raw` is the
    input object where it was asked to be kept, for `results.to_line` to write. No digit of an integer is lost: one
    beyond 64 bits is an `orjson.Fragment` in it, and any number beyond 1.8e308 a string. `ignored` names what the
    line asks for and does not get, and `read_from` the key that its prompt was read from, where that is not one of
    lalign's own.
    """

    line: int
    id: RecordId
    messages: tuple[Message, ...]
    options: Mapping[str, Any]
    principle: str | None = None
    principles: tuple[str, ...] | None = None
    contrast: str | None = None
    chat_template_kwargs: Mapping[str, Any] | None = None
    raw: Any = None
    ignored: tuple[str, ...] = ()
    read_from: str | None = None


def parse_record(raw: RawLine, *, keep: bool = False, reading: Reading | None = None) -> Record | Failure:
    """What a line asks for, or why it cannot be used; no line makes it raise.

    `Failure.type` is one of `Problem`, `Failure.id` the line's own id where that could be read, else its number.
    With `keep` the record holds the input object as `raw`. `reading` says where its prompt, id and principle stand.
    """
    try:
        text = line_text(raw)
        fields = json_object(text)
    except Unusable as error:
        return Failure(raw.number, raw.number, error.problem, str(error))
    exact = exact_json(text) if keep or (reading and reading.fills) else None
    return parse_fields(fields, raw.number, raw=exact if keep else None, reading=reading, exact=exact)


def parse_fields(
    fields: Mapping[str, Any],
    line: int,
    *,
    raw: Any = None,
    reading: Reading | None = None,
    exact: Mapping[str, Any] | None = None,
) -> Record | Failure:
    """As `parse_record`, of an object read already; `raw` goes into the record as it is.

    exact: the same object with every digit of its numbers, for templates; without it they are filled from `fields`.
    """
    reading = reading or Reading()
    record_id: RecordId = line
    try:
        record_id = _id(fields, line, reading.id_field)
        asked = _asked_of(fields, reading, exact or fields)
        body: Mapping[str, Any] = {} if asked else read_body(fields)
        check_kind(body)
        messages, read_from = (asked, None) if asked else read_conversation(fields, body)
        system = read_system(fields, body)
        asked_with = with_system(messages, system)
        if reading.system is not None and asked_with[0].role != "system":
            asked_with = with_system(messages, reading.system.filled(exact or fields))
        principle = read_instruction(fields, body, "principle")
        filled = () if principle is not None else reading.principles
        contrast = read_instruction(fields, body, "contrast")
        if contrast is None and reading.contrast is not None:
            contrast = reading.contrast.filled(exact or fields)
        return Record(
            line=line,
            id=record_id,
            messages=asked_with,
            options=read_options(fields, body),
            principle=principle,
            principles=tuple(template.filled(exact or fields) for template in filled) or None,
            contrast=contrast,
            chat_template_kwargs=read_variables(fields, body),
            raw=raw,
            ignored=(
                *ignored(fields, body),
                *([] if asked else _unused(fields, messages, system, read_from)),
                *_later_turns(fields, read_from or reading.prompt_field),
            ),
            read_from=read_from,
        )
    except Unusable as error:
        return Failure(record_id, line, error.problem, str(error))


def _asked_of(fields: Mapping[str, Any], reading: Reading, exact: Mapping[str, Any]) -> tuple[Message, ...] | None:
    """The conversation that the job itself finds in a record; None where it leaves that to the record."""
    if reading.prompt_template is not None:
        return (Message("user", reading.prompt_template.filled(exact)),)
    if reading.prompt_field is not None:
        return read_named_prompt(reading.prompt_field, field_of(fields, reading.prompt_field, "prompt_field"))
    if reading.messages_field is not None:
        return read_messages(reading.messages_field, field_of(fields, reading.messages_field, "messages_field"))
    return None


def _id(fields: Mapping[str, Any], line: int, id_field: str | None = None) -> RecordId:
    for field in ("id", "custom_id") if id_field is None else (id_field,):
        value = fields.get(field) if id_field is None else field_of(fields, field, "id_field")
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (str, int, float)) or not _can_be_given_back(value):
            raise Unusable("invalid_type", f"{field}: must be a string or a number of 64 bits, not {shown(value)}")
        return value
    return line


def _can_be_given_back(value: str | int | float) -> bool:
    if isinstance(value, int):
        return -(2**63) <= value < 2**64
    # An integer beyond 64 bits is read as a float, and as another number.
    return isinstance(value, str) or (math.isfinite(value) and abs(value) < 2**63)


def _unused(
    fields: Mapping[str, Any], messages: tuple[Message, ...], system: str | None, read_from: str | None
) -> list[str]:
    """What may belong to the prompt and did not go into it."""
    unused = ["system"] if system is not None and messages[0].role == "system" else []
    if read_from is None and isinstance(given := fields.get("input"), str) and given.strip():
        unused.append("input")
    return unused


def _later_turns(fields: Mapping[str, Any], field: str | None) -> list[str]:
    return [f"{field} after the first"] if field is not None and has_later_turns(fields.get(field)) else []

"""Ids of records as texts and as numbers: OpenAI's batch files have texts alone, so 1 comes back as "1"."""

from __future__ import annotations

from collections.abc import Container

import orjson

from lalign.results import RecordId


def other_form(record_id: RecordId) -> RecordId | None:
    """An id that is a number as a text, one that is the text of a number as that; None for any other."""
    if not isinstance(record_id, str):
        return str(record_id)
    try:
        number = orjson.loads(record_id)
    except orjson.JSONDecodeError:
        return None
    is_number = isinstance(number, (int, float)) and not isinstance(number, bool)
    return number if is_number and str(number) == record_id else None


def counterpart(record_id: RecordId, others: Container[RecordId], own: Container[RecordId] = ()) -> RecordId | None:
    """Which of `others` an id is: itself, else its other form, unless `own`, the ids it is one of, have that too."""
    if record_id in others:
        return record_id
    other = other_form(record_id)
    return other if other is not None and other in others and other not in own else None

"""The JSON object of a line, and what it is that no JSON object could be read from."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

import orjson

from lalign.records.problems import Unusable, shown
from lalign.records.source import MAX_LINE_BYTES, RawLine


def line_text(raw: RawLine) -> str:
    """The text of a line. Raises `Unusable`."""
    if raw.too_long:
        raise Unusable("too_long", f"the line is longer than {MAX_LINE_BYTES >> 20} MiB")
    try:
        return raw.data.decode()
    except UnicodeDecodeError as error:
        byte = raw.data[error.start]
        raise Unusable("invalid_utf8", f"not UTF-8: byte 0x{byte:02x} at position {error.start + 1}") from None


def json_object(text: str) -> dict[str, Any]:
    """The object that a line holds; a number beyond 1.8e308 is inf. Raises `Unusable`."""
    try:
        value = _json(text)
        # One level more, as in the output under `input`, where orjson writes a quarter of the levels that it reads.
        orjson.dumps([value])
    except json.JSONDecodeError as error:
        if "depth" in error.msg or "recursion" in error.msg.lower():
            raise Unusable("too_deep", "nested too deeply") from None
        problem = "a lone surrogate in a string" if "surrogate" in error.msg else error.msg
        raise Unusable("invalid_json", f"not valid JSON: {problem} at column {error.colno}") from None
    except (TypeError, RecursionError) as error:
        if "surrogate" in str(error):
            raise Unusable("invalid_json", "not valid JSON: a lone surrogate in a string") from None
        raise Unusable("too_deep", "nested too deeply") from None
    if not isinstance(value, dict):
        raise Unusable("not_an_object", f"must be a JSON object, not {shown(value)}")
    return value


def exact_json(text: str) -> Any:
    """The object with every digit of its integers, for `results.to_line` to write; see `parsing.Record.raw`."""

    # Many readers, orjson among them, refuse a line for one number beyond 1.8e308, so those are kept as strings.
    def whole(digits: str) -> int | str | orjson.Fragment:
        if isinstance(value := _nearest(digits), int):
            return value
        return orjson.Fragment(digits) if math.isfinite(value) else digits

    def real(digits: str) -> float | str:
        return value if math.isfinite(value := float(digits)) else digits

    return json.loads(text, parse_int=whole, parse_float=real)


def _json(text: str) -> Any:
    """As orjson reads it, save that numbers beyond 1.8e308, which it refuses, become inf."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if "infinity" not in error.msg:
            raise

    def refuse(constant: str) -> NoReturn:
        raise json.JSONDecodeError(f"{constant} is not a number", text, text.find(constant))

    return json.loads(text, parse_int=_nearest, parse_constant=refuse)


def _nearest(digits: str) -> int | float:
    # Python refuses to make an int of some thousands of digits, and takes quadratic time below that.
    if len(digits) <= 20 and -(2**63) <= int(digits) < 2**64:
        return int(digits)
    return float(digits)

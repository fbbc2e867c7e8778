"""A JSON array of objects as JSON Lines: an element a line, as it is written in the file."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from lalign.errors import InputError
from lalign.records.formats import plain_suffix
from lalign.records.source import READ_ERRORS, open_source, read_error

MAX_ARRAY_BYTES = 1 << 30
"""The longest array that is taken, decompressed: it is read whole."""

_BOM = b"\xef\xbb\xbf"
_HEAD_BYTES = 1 << 12
_SPACE = re.compile(r"[ \t\n\r]*")
_START = re.compile(rb"\s*\[\s*([{\]]|\Z)")
# A byte that is no UTF-8 stays what it is, for the record's own check to refuse.
_CODEC = ("utf-8", "surrogateescape")


def is_array(path: Path) -> bool:
    """Whether a file is called .json (.gz and .zst too) and begins as an array of objects does."""
    if plain_suffix(path) != ".json" or not path.is_file():
        return False
    try:
        with open_source(path) as stream:
            return _START.match(stream.read(_HEAD_BYTES).removeprefix(_BOM)) is not None
    except (*READ_ERRORS, InputError):
        return False  # for whoever reads it to tell


def array_elements(stream: BinaryIO, name: str) -> list[bytes]:
    """The elements of an array as they are written, each in one line without its end.

    Raises `InputError` ("name:line: problem", of the file's own lines) where it cannot be read or is no array.
    """
    try:
        data = stream.read(MAX_ARRAY_BYTES + 1)
    except READ_ERRORS as error:
        raise InputError(f"{name}:1: {read_error(error)}") from error
    if len(data) > MAX_ARRAY_BYTES:
        raise InputError(
            f"{name}: is a JSON array of more than {MAX_ARRAY_BYTES >> 20} MiB, which is read as JSON Lines alone: "
            f"jq -c '.[]' {shlex.quote(name)}"
        )
    text = data.removeprefix(_BOM).decode(*_CODEC)
    del data
    try:
        return [
            # No JSON string holds a bare line end, so one between two words of an element may as well be a space.
            text[start:end].replace("\n", " ").replace("\r", " ").encode(*_CODEC)
            for start, end in _bounds(text)
        ]
    except json.JSONDecodeError as error:
        problem = f"{error.msg.removesuffix(' at')} at column {error.colno}"
        raise InputError(f"{name}:{error.lineno}: line: not valid JSON: {problem}") from None
    except RecursionError:
        raise InputError(f"{name}: nested too deeply") from None


def _bounds(text: str) -> Iterator[tuple[int, int]]:
    """Where each element of an array starts and ends. Raises `json.JSONDecodeError`."""
    decode = json.JSONDecoder(parse_int=str, parse_float=str).raw_decode
    at = _behind(text, 0)
    if text[at : at + 1] != "[":
        raise json.JSONDecodeError("Expecting an array", text, at)
    at = _behind(text, at + 1)
    separator = "" if text[at : at + 1] == "]" else ","
    while separator == ",":
        start = at
        _, at = decode(text, start)
        yield start, at
        at = _behind(text, at)
        separator = text[at : at + 1]
        at = _behind(text, at + 1) if separator == "," else at
    if text[at : at + 1] != "]":
        raise json.JSONDecodeError("Expecting ',' delimiter", text, at)
    if (at := _behind(text, at + 1)) < len(text):
        raise json.JSONDecodeError("Extra data", text, at)


def _behind(text: str, at: int) -> int:
    """The place behind white space."""
    found = _SPACE.match(text, at)
    assert found is not None
    return found.end()

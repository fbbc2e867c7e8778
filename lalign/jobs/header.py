"""The header beside an output: the settings it was made with, and how far into the input it reaches.

`out.jsonl` has `out.jsonl.run.json`, a JSON object of `format`, `fingerprint` (setting name to JSON value) and
`input` (`lines`, `sha256`): the digest of the first `lines` lines of the input, all of which the output answers.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import orjson

from lalign.errors import InputError, OutputError

FORMAT = 1
_SHOWN = 40  # characters of a value in a message
_ABSENT = object()


@dataclass(frozen=True, slots=True)
class Header:
    """What a resume must find unchanged. `input_lines` 0 says nothing about the input."""

    fingerprint: Mapping[str, Any]
    input_lines: int = 0
    input_sha256: str = ""


def beside(output: Path, suffix: str) -> Path:
    """The path of a file that goes with `output`: `out.jsonl` and `.lock` give `out.jsonl.lock`."""
    return output.with_name(output.name + suffix)


def read_header(output: Path) -> Header | None:
    """The header of `output`; None where there is none.

    Raises `OutputError` where it cannot be read or was written in another format.
    """
    path = beside(output, ".run.json")
    try:
        stored = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise OutputError(f"{path}: is not a run header") from error
    match stored:
        case {"format": int(number)} if number != FORMAT:
            raise OutputError(f"{path}: has format {number}, this version of lalign reads {FORMAT}")
        case {"format": int(), "fingerprint": dict(fingerprint), "input": {"lines": int(lines), "sha256": str(sha256)}}:
            return Header(fingerprint, lines, sha256)
    raise OutputError(f"{path}: is not a run header")


def write_header(output: Path, header: Header) -> None:
    """Puts `header` beside `output`: after a crash at any moment, the old one or the new one is there, whole.

    Raises `OSError`.
    """
    stored = {
        "format": FORMAT,
        "fingerprint": header.fingerprint,
        "input": {"lines": header.input_lines, "sha256": header.input_sha256},
    }
    path = beside(output, ".run.json")
    aside = beside(output, ".run.json.tmp")
    with aside.open("wb") as file:
        file.write(_json(stored))
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)


def differences(stored: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """One phrase per setting that differs: `ratio: 3.0 in the output, 2.0 now`. Long values are shortened."""
    # What is stored went through JSON, where a tuple is a list and infinity is null.
    current = orjson.loads(_json(current))
    found = []
    for name in {**stored, **current}:
        old, new = stored.get(name, _ABSENT), current.get(name, _ABSENT)
        # 1 == 1.0 == True in Python, and JSON tells only the last apart by type.
        if old != new or isinstance(old, bool) != isinstance(new, bool):
            old_text, new_text = _shortened(old, new)
            found.append(f"{name}: {old_text} in the output, {new_text} now")
    return found


class InputProgress:
    """How far into the input the output reaches.

    The input is read ahead of the output, so marks wait until their line is answered. Made from the `settled` mark of
    an earlier run, the input must come by the same mark again. Marks may come from another thread than answers.
    """

    def __init__(self, lines: int = 0, sha256: str = "") -> None:
        self.settled = (lines, sha256)
        self._lock = threading.Lock()
        self._expected = (lines, sha256) if lines else None
        self._waiting: deque[tuple[int, str]] = deque()
        self._answered = 0

    def mark(self, lines: int, sha256: str) -> None:
        """The digest of the first `lines` lines, as they are read.

        Raises `InputError` where they are not those that the earlier run read.
        """
        if self._expected is not None and lines >= self._expected[0]:
            if (lines, sha256) != self._expected:
                raise InputError(f"the first {self._expected[0]} lines of the input are not those the output answers")
            self._expected = None
        with self._lock:
            self._waiting.append((lines, sha256))
            self._settle()

    def answer(self, line: int) -> None:
        """The output answers every input line up to `line`."""
        with self._lock:
            self._answered = max(self._answered, line)
            self._settle()

    def end(self) -> None:
        """The input is at its end. Raises `InputError` where it is shorter than when the earlier run read it."""
        if self._expected is not None:
            raise InputError(f"the input has lost some of the {self._expected[0]} lines the output answers")

    def _settle(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._answered:
            self.settled = max(self.settled, self._waiting.popleft())


def _json(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _shortened(old: Any, new: Any) -> tuple[str, str]:
    texts = ["not set" if value is _ABSENT else repr(value) for value in (old, new)]
    # Long texts that begin alike are shown from where they part, else the message would show the same text twice.
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(*texts, strict=False)))
    start = shared - _SHOWN // 4 if shared > _SHOWN // 2 else 0
    first, second = (_cut(text, start) for text in texts)
    return first, second


def _cut(text: str, start: int) -> str:
    head = "…" if start else ""
    tail = text[start:]
    return head + (tail if len(tail) <= _SHOWN else tail[: _SHOWN - 1] + "…")

"""The header beside an output: the settings it was made with, and what of the input it answers.

`out.jsonl` has `out.jsonl.run.json`, a JSON object of `format`, `fingerprint` (setting name to JSON value) and `input`
(`lines`, `digest`, `failed`): the sum of the digests of the first `lines` lines of the input, all of which the output
answers, without those that `failed`, given as ranges. So a line that failed may be corrected, and no other. `end`
(`last_line`, `lines`) is there once all of the input is answered.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import orjson

from lalign.errors import OutputError

FORMAT = 2
# What readers of an output are told, such as `lalign plot`, and no setting: a model is the same wherever it lies.
TOLD = frozenset({"model_name"})
_SHOWN = 40  # characters of a value in a message
_ABSENT = object()


@dataclass(frozen=True, slots=True)
class InputMark:
    """What of its input an output answers: the lines numbered up to `lines`.

    digest: the sum, modulo 2**256, of the digests of those lines, the `failed` ones (in order) left out.
    """

    lines: int = 0
    digest: int = 0
    failed: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class End:
    """What a job has read when all is answered: the number of the last line, and how many lines it answered."""

    last_line: int
    lines: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a resume must find unchanged. `input` of 0 lines says nothing about the input.

    end: None until the job has come to the end of its input.
    """

    fingerprint: Mapping[str, Any]
    input: InputMark = InputMark()
    end: End | None = None


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
        case {"format": int(), "fingerprint": dict(fingerprint), "input": dict(of_input)}:
            try:
                end = stored.get("end")
                return Header(fingerprint, _input_mark(**of_input), None if end is None else End(**end))
            except (TypeError, ValueError) as error:
                raise OutputError(f"{path}: is not a run header") from error
    raise OutputError(f"{path}: is not a run header")


def write_header(output: Path, header: Header) -> None:
    """Puts `header` beside `output`: after a crash at any moment, the old one or the new one is there, whole.

    Raises `OSError`.
    """
    stored: dict[str, Any] = {
        "format": FORMAT,
        "fingerprint": header.fingerprint,
        "input": {
            "lines": header.input.lines,
            "digest": f"{header.input.digest:064x}",
            "failed": ranges(header.input.failed),
        },
    }
    if header.end is not None:
        stored["end"] = asdict(header.end)
    path = beside(output, ".run.json")
    aside = beside(output, ".run.json.tmp")
    with aside.open("wb") as file:
        try:
            file.write(_json(stored))
            file.flush()
            os.fsync(file.fileno())
            os.replace(aside, path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise


def differences(stored: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """One phrase per setting that differs: `ratio: 3.0 in the output, 2.0 now`. Long values are shortened.

    What is `TOLD` may differ.
    """
    # What is stored went through JSON, where a tuple is a list and infinity is null.
    current = orjson.loads(_json(current))
    found = []
    for name in {**stored, **current}:
        if name in TOLD:
            continue
        old, new = stored.get(name, _ABSENT), current.get(name, _ABSENT)
        # 1 == 1.0 == True in Python, and JSON tells only the last apart by type.
        if old != new or isinstance(old, bool) != isinstance(new, bool):
            old_text, new_text = _shortened(old, new)
            found.append(f"{name}: {old_text} in the output, {new_text} now")
    return found


def _input_mark(lines: int, digest: str, failed: list[list[int]]) -> InputMark:
    numbers = [number for first, last in failed for number in range(first, last + 1)]
    return InputMark(int(lines), int(digest, 16), numbers)


def ranges(numbers: Iterable[int]) -> list[list[int]]:
    """Numbers in order as their first and last of each run without a gap."""
    found: list[list[int]] = []
    for number in numbers:
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return found


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

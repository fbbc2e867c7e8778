"""What lalign has written, read back: records with a response, and those with an error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lalign.errors import InputError
from lalign.jobs.read_as import read_as, reading_of
from lalign.records.batch_lines import unpacked
from lalign.records.json_line import json_object, line_text
from lalign.records.problems import Unusable
from lalign.records.reading import Reading
from lalign.records.source import json_lines, open_lines


@dataclass(frozen=True, slots=True)
class Answer:
    """A record of an output.

    source: the file, for messages; number: the record's line in it.
    raw: its bytes, without the line ending; record: what they say, in lalign's own shape.
    said: how the prompts of the file were read, by the header beside it; None without one.
    """

    source: str
    number: int
    raw: bytes
    record: Mapping[str, Any]
    said: Reading | None = None

    @property
    def failed(self) -> bool:
        """True for an error, in whose place there is no response."""
        return self.record.get("error") is not None

    @property
    def line(self) -> int:
        """The line of the input that it answers; its own where it does not say."""
        line = self.record.get("line")
        return line if isinstance(line, int) else self.number

    @property
    def id(self) -> str | int | float:
        """Its id, else the line that it answers."""
        return next((self.record[key] for key in ("id", "custom_id") if self.record.get(key) is not None), self.line)

    @property
    def reading(self) -> Reading:
        """How its prompt was read. Raises `InputError` where that cannot be told."""
        try:
            return read_as(self.record, self.said) or Reading()
        except Unusable as error:
            raise self.error(str(error)) from None

    def error(self, problem: str) -> InputError:
        """What to raise of it: the file, the line, the problem."""
        return InputError(f"{self.source}:{self.number}: {problem}")


def read_answers(path: Path | None) -> Iterator[Answer]:
    """The records of an output of either shape, as they are read; None is stdin.

    Raises `InputError` where it cannot be read, and for a line that is no record with a `response` or an `error`;
    `OutputError` for a header that cannot be read.
    """
    name = "stdin" if path is None else str(path)
    said = reading_of(path)
    with open_lines(path) as stream:
        for raw in json_lines(stream, name):
            try:
                record = unpacked(json_object(line_text(raw)))
            except Unusable as error:
                raise InputError(f"{name}:{raw.number}: {error}") from None
            answer = Answer(name, raw.number, raw.data.strip(), record, said)
            if not answer.failed and not isinstance(record.get("response"), str):
                raise answer.error("response: missing; this is no output of lalign")
            if not isinstance(answer.id, (str, int, float)) or isinstance(answer.id, bool):
                raise answer.error("id: must be a string or a number")
            yield answer

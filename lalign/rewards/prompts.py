"""The conversations that answers belong to: from the records themselves, or from the input they were made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from lalign.errors import InputError
from lalign.jobs.read_as import read_kept
from lalign.records.conversations import asked_of
from lalign.records.ids import counterpart, other_form
from lalign.records.inputs import Inputs, named
from lalign.records.parsing import Message, Record, parse_record
from lalign.records.reading import Reading
from lalign.records.source import json_lines
from lalign.results import Failure, RecordId
from lalign.rewards.answers import Answer

Conversation = tuple[Message, ...]


class _Lines(NamedTuple):
    """What the lines of an input are, by their numbers and by their ids."""

    by_line: dict[int, Record | Failure]
    by_id: dict[RecordId, list[Record | Failure]]


def kept_prompt(answer: Answer) -> Conversation:
    """The conversation of a record that `--keep` wrote. Raises `InputError` where it holds none."""
    kept = answer.record.get("input")
    if not isinstance(kept, Mapping):
        raise answer.error("input: missing; generate with --keep, or give the input with --input")
    found = read_kept(answer.raw.decode(), answer.record, answer.line, answer.reading)
    if isinstance(found, Failure):
        raise answer.error(f"input: {found.message}")
    return asked_of(found.messages)


class PromptFile:
    """The input of a job, for the conversations of its output, each as the job has read it; held whole.

    Args:
        path: of a file that a job can read, or a pattern that names several, which were read as one.

    Raises `InputError` where it cannot be read. Lines that could not be answered are no fault here.
    """

    def __init__(self, path: Path) -> None:
        self._inputs = Inputs(named([path]))
        self.name = self._inputs.name
        with self._inputs.open() as stream:
            self._raw = list(json_lines(stream, self.name))
        self._read: dict[Reading, _Lines] = {}

    def __call__(self, answer: Answer) -> Conversation:
        """The conversation that an answer's line and id name.

        Raises `InputError` where there is none, or where the two do not name the same.
        """
        read = self._as(answer.reading)
        if isinstance(answer.record.get("line"), int):
            found = read.by_line.get(answer.line)
            if found is not None and answer.id not in (found.id, other_form(found.id)):
                raise answer.error(f"id: is {answer.id!r} here, and {found.id!r} in line {answer.line} of {self.name}")
        else:
            record_id = counterpart(answer.id, read.by_id)
            same = [] if record_id is None else read.by_id[record_id]
            if len(same) > 1:
                raise answer.error(f"id: {answer.id!r} names {len(same)} lines of {self.name}, and there is no line")
            found = same[0] if same else None
        if found is None:
            raise answer.error(f"{self.name} has no line for it")
        if isinstance(found, Failure):
            raise InputError(f"{self._inputs.place(found.line)}: {found.message}")
        return asked_of(found.messages)

    def _as(self, reading: Reading) -> _Lines:
        if reading not in self._read:
            by_line = {raw.number: parse_record(raw, reading=reading) for raw in self._raw}
            by_id: dict[RecordId, list[Record | Failure]] = {}
            for found in by_line.values():
                by_id.setdefault(found.id, []).append(found)
            self._read[reading] = _Lines(by_line, by_id)
        return self._read[reading]


def conversations(answers: Iterable[Answer], prompts: PromptFile | None) -> Iterable[tuple[Answer, Conversation]]:
    """Each answer with its conversation; an error with none."""
    find = prompts or kept_prompt
    return ((answer, () if answer.failed else find(answer)) for answer in answers)

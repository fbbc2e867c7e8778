"""The conversations that answers belong to: from the records themselves, or from the input they were made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from lalign.errors import InputError
from lalign.records.conversations import asked_of
from lalign.records.parsing import Message, Record, parse_fields, parse_record
from lalign.records.source import json_lines, open_lines
from lalign.results import Failure
from lalign.rewards.answers import Answer

Conversation = tuple[Message, ...]


def kept_prompt(answer: Answer) -> Conversation:
    """The conversation of a record that `--keep` wrote. Raises `InputError` where it holds none."""
    kept = answer.record.get("input")
    if not isinstance(kept, Mapping):
        raise answer.error("input: missing; generate with --keep, or give the input with --input")
    found = parse_fields(kept, answer.line)
    if isinstance(found, Failure):
        raise answer.error(f"input: {found.message}")
    return asked_of(found.messages)


class PromptFile:
    """The input of a job, for the conversations of its output; held whole.

    Raises `InputError` where it cannot be read. Lines that could not be answered are no fault here.
    """

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        with open_lines(path) as stream:
            read = (parse_record(raw) for raw in json_lines(stream, self.name))
            self._lines = {found.line: found for found in read}
        self._ids: dict[object, list[Record | Failure]] = {}
        for found in self._lines.values():
            self._ids.setdefault(found.id, []).append(found)

    def __call__(self, answer: Answer) -> Conversation:
        """The conversation that an answer's line and id name.

        Raises `InputError` where there is none, or where the two do not name the same.
        """
        if isinstance(answer.record.get("line"), int):
            found = self._lines.get(answer.line)
            if found is not None and found.id != answer.id:
                raise answer.error(f"id: is {answer.id!r} here, and {found.id!r} in line {answer.line} of {self.name}")
        else:
            named = self._ids.get(answer.id, [])
            if len(named) > 1:
                raise answer.error(f"id: {answer.id!r} names {len(named)} lines of {self.name}, and there is no line")
            found = named[0] if named else None
        if found is None:
            raise answer.error(f"{self.name} has no line for it")
        if isinstance(found, Failure):
            raise InputError(f"{self.name}:{found.line}: {found.message}")
        return asked_of(found.messages)


def conversations(answers: Iterable[Answer], prompts: PromptFile | None) -> Iterable[tuple[Answer, Conversation]]:
    """Each answer with its conversation; an error with none."""
    find = prompts or kept_prompt
    return ((answer, () if answer.failed else find(answer)) for answer in answers)

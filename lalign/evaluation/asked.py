"""An item once it was asked: how it is written to an output, and read again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from lalign.errors import InputError
from lalign.evaluation.preferences import LETTERS, Item
from lalign.evaluation.scoring import Score
from lalign.method.recipe import Recipe
from lalign.records.source import RawLine
from lalign.text import json_number


def to_record(number: int, score: Score, alignments: Sequence[Recipe]) -> dict[str, Any]:
    """The JSON object of an item: what was asked, and the letter chosen at each of `alignments`, or none."""
    letters = [None if choice is None else LETTERS[choice] for choice in score.choices]
    choices = [
        {name: json_number(value) for name, value in alignment.point.items()} | {"chosen": letter}
        for alignment, letter in zip(alignments, letters, strict=True)
    ]
    return {"line": number, **_told(score.item), "choices": choices}


def as_line(number: int, item: Item) -> RawLine:
    """What tells an item from others, for an output to be compared by."""
    return RawLine(number, orjson.dumps({**_told(item), "principle": item.principle}))


def read_scores(path: Path, items: Sequence[Item], points: int, count: int) -> Iterator[Score]:
    """The scores of the first `count` items, of an output that holds them. Raises `InputError`."""
    with path.open("rb") as file:
        for number, (item, line) in enumerate(zip(items[:count], file, strict=False), start=1):
            fields = orjson.loads(line)
            choices = _choices(fields, len(item.order))
            if choices is None or len(choices) != points:
                raise InputError(f"{path}:{number}: choices: are not those of this evaluation")
            yield Score(item, choices)


def _choices(fields: Mapping[str, Any], letters: int) -> tuple[int | None, ...] | None:
    match fields:
        case {"choices": [*choices]}:
            chosen = [choice.get("chosen") if isinstance(choice, dict) else "" for choice in choices]
            if all(letter is None or letter in [*LETTERS[:letters]] for letter in chosen):
                return tuple(None if letter is None else LETTERS.index(letter) for letter in chosen)
    return None


def _told(item: Item) -> dict[str, Any]:
    users = item.question.users
    return {
        "question_line": item.question.line,
        "domain": item.question.domain,
        "question": item.question.question,
        "user": None if users is None else users[item.right],
        "answers": {LETTERS[place]: item.question.answers[index] for place, index in enumerate(item.order)},
        "right": LETTERS[item.letter],
    }

"""The form in which a model is asked to write: `<<Name>>: text`, several of these between `[[` and `]]`.

Appendix E.2 of the paper. Names may be written with other capitals, and with blanks for underscores.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

OPEN, CLOSE = "[[", "]]"
_TAG = re.compile(r"<<\s*(\w[\w ]*?)\s*>>\s*:?")
_WORD = re.compile(r"\w")


@dataclass(frozen=True, slots=True)
class Broken:
    """A piece that is not in the form, and what is wrong with it."""

    text: str
    problem: str


def read_blocks(text: str, names: Iterable[str]) -> list[dict[str, str] | Broken]:
    """The blocks of a text, in order: each its fields, of just these names, or what is wrong with it.

    What stands between blocks is passed over. White space within a field is made single blanks.
    """
    found: list[dict[str, str] | Broken] = []
    for piece in text.split(OPEN)[1:]:
        body, closed, _ = piece.partition(CLOSE)
        if not closed:
            found.append(Broken(piece.strip(), f"no {CLOSE}"))
            continue
        try:
            fields = read_fields(body, names)
        except ValueError as error:
            found.append(Broken(body.strip(), str(error)))
        else:
            found.append({name: " ".join(value.split()) for name, value in fields.items()})
    return found


def read_fields(text: str, names: Iterable[str]) -> dict[str, str]:
    """The fields of these names, each of which must be there once and hold a word.

    Raises `ValueError` that says what is wrong.
    """
    found: dict[str, str] = {}
    tags = list(_TAG.finditer(text))
    for place, tag in enumerate(tags):
        end = tags[place + 1].start() if place + 1 < len(tags) else len(text)
        name = re.sub(r"\s+", "_", tag[1]).lower()
        if name in found:
            raise ValueError(f"{name}: is there twice")
        found[name] = text[tag.end() : end].strip()
    for name in names:
        if name not in found:
            raise ValueError(f"{name}: missing")
        if not _WORD.search(found[name]):
            raise ValueError(f"{name}: is empty")
    return {name: found[name] for name in names}


def within(text: str) -> str:
    """A field's text up to the `]]` that ends its block; brackets that the text itself has opened end nothing."""
    depth = 0
    for place, letter in enumerate(text):
        if depth == 0 and text.startswith(CLOSE, place):
            return text[:place]
        depth = max(0, depth + (letter == "[") - (letter == "]"))
    return text


def write_block(fields: Mapping[str, str]) -> str:
    """The block that `read_blocks` reads these fields from."""
    lines = [f"<<{name.capitalize()}>>: {value}" for name, value in fields.items()]
    return "\n".join([OPEN, *lines, CLOSE])

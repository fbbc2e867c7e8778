"""Instructions with places in braces, {question}, that are filled for each thing asked; conversations as text."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

from lalign.errors import OptionError
from lalign.records.parsing import Message

_SPEAKERS = {"system": "System", "user": "User", "assistant": "Assistant"}


def check_places(text: str, places: Collection[str], option: str) -> str:
    """`text`, which must hold each place once. Raises `OptionError` that lays it to `option`."""
    for place in places:
        if text.count("{" + place + "}") != 1:
            raise OptionError(option, f"must hold {{{place}}} once")
    return text


def fill(text: str, texts: Mapping[str, str]) -> str:
    """`text` with each of `texts` in its place, in one go, so that nothing within them passes for a place."""
    place = re.compile(r"\{(" + "|".join(map(re.escape, texts)) + r")\}")
    return place.sub(lambda found: texts[found[1]], text)


def transcript(conversation: Iterable[Message]) -> str:
    """The turns, each under its speaker's name."""
    return "\n\n".join(f"{_SPEAKERS[message.role]}: {message.content.strip()}" for message in conversation)

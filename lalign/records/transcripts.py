"""Transcripts of the Anthropic HH data: a conversation as one text, each turn after its speaker's name."""

from __future__ import annotations

import re
from itertools import pairwise

from lalign.records.problems import Unusable, shown

Turn = tuple[str, str]
"""The speaker, "Human" or "Assistant", and what is said, stripped."""

# Every character that some reader takes for the end of a line.
_LINE_END = "\n\r\v\f\x1c-\x1e\x85\u2028\u2029"
_SPEAKER = re.compile(rf"(?:\A|(?<=[{_LINE_END}]))[^\S{_LINE_END}]*(human|assistant)[^\S{_LINE_END}]*:", re.IGNORECASE)


def begins(text: str) -> bool:
    """Whether `text` begins as a transcript does, by a speaker's name."""
    return _SPEAKER.match(text.lstrip()) is not None


def split(field: str, text: str) -> list[Turn]:
    """The turns of a transcript: each begins with a line that begins with a speaker's name, in any case.

    As the data are published, a blank line stands before each speaker. Where some have one and some do not, the names
    without one count as words of the turn (a dialogue that is quoted in it), if the others make a whole conversation,
    that is, human and assistant by turns to an answer at the end. Raises `Unusable` where they do not, and where the
    text does not begin with a speaker.
    """
    text = text.strip()
    marks = list(_SPEAKER.finditer(text))
    if not marks or marks[0].start() > 0:
        head = text[: marks[0].start()].strip() if marks else text
        raise Unusable("invalid_type", f"{field}: must start with 'Human:', not {shown(head)}")
    apart = [marks[0], *(mark for before, mark in pairwise(marks) if _blank_line(text, before, mark))]
    if len(apart) in (1, len(marks)):
        return _turns(text, marks)
    turns = _turns(text, apart)
    if [speaker for speaker, _ in turns] != ["Human", "Assistant"] * (len(turns) // 2):
        problem = "a blank line stands before some speakers and not before others: which of them speak is not clear"
        raise Unusable("invalid_type", f"{field}: {problem}")
    return turns


def _blank_line(text: str, before: re.Match[str], mark: re.Match[str]) -> bool:
    turn = text[before.end() : mark.start()]
    return len(turn[len(turn.rstrip()) :].splitlines()) > 1


def _turns(text: str, marks: list[re.Match[str]]) -> list[Turn]:
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    return [(mark[1].capitalize(), text[mark.end() : end].strip()) for mark, end in zip(marks, ends, strict=True)]

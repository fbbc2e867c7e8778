"""What a judge is asked, and the verdict read from what it says."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Literal

from lalign.asking.chats import Chat, user_chat
from lalign.asking.instructions import check_places, fill, transcript
from lalign.judging.matches import Match

Letter = Literal["A", "B", "C"]
Outcome = Literal["win", "tie", "lose", "unparsable"]

PLACES = ("conversation", "answer_a", "answer_b")
_VERDICT = re.compile(r"\[\[\s*([ABC])\s*\]\]", re.IGNORECASE)
# What the letters mean for the contestant that comes first in a match, in the order shown and in the other.
_FORWARD: dict[Letter | None, int] = {"A": 1, "B": -1, "C": 0}


def default_instructions() -> str:
    """The instructions of `lalign judge`: what the paper's Appendix H asks of a judge, in our own words."""
    return files("lalign.judging").joinpath("judge.txt").read_text(encoding="utf-8").strip()


def check_instructions(text: str) -> str:
    """`text`, which must have a place for the conversation and each answer. Raises `OptionError`."""
    return check_places(text, PLACES, "judge_prompt")


def judge_chats(match: Match, instructions: str) -> tuple[Chat, Chat]:
    """The match as it is asked: with the first contestant's answer as A, and as B."""
    first, second = match.texts
    spoken = transcript(match.conversation)
    return _chat(instructions, spoken, first, second), _chat(instructions, spoken, second, first)


def _chat(instructions: str, spoken: str, answer_a: str, answer_b: str) -> Chat:
    texts = {"conversation": spoken, "answer_a": answer_a, "answer_b": answer_b}
    return user_chat(fill(instructions, texts))


def read_verdict(reply: str) -> Letter | None:
    """The verdict of a reply: [[A]], [[B]] or [[C]] as its last word; None where there is none, or no telling.

    Where words follow, it counts if all verdicts in the reply are the same.
    """
    found = list(_VERDICT.finditer(reply))
    if not found:
        return None
    letters = {verdict[1].upper() for verdict in found}
    is_last_word = not re.search(r"\w", reply[found[-1].end() :])
    if not is_last_word and len(letters) > 1:
        return None
    letter: Letter = found[-1][1].upper()  # type: ignore[assignment]
    return letter


def outcome_of(forward: Letter | None, backward: Letter | None) -> Outcome:
    """The outcome for the first contestant, of the verdicts with its answer as A and as B: a disagreement is a tie."""
    if forward is None or backward is None:
        return "unparsable"
    one, other = _FORWARD[forward], -_FORWARD[backward]
    if one != other:
        return "tie"
    return "win" if one > 0 else "lose" if one < 0 else "tie"

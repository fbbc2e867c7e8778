"""What a judge is shown, what is read from its words, and what two orders make of them."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lalign.errors import OptionError
from lalign.judging.instructions import (
    check_instructions,
    default_instructions,
    judge_chats,
    outcome_of,
    read_verdict,
)
from lalign.judging.matches import Match
from lalign.records.parsing import Message

TALK = (Message("system", "Be kind."), Message("user", "Hi"), Message("assistant", "Hello"), Message("user", "Bye"))


def asked(first: str, second: str, instructions: str | None = None) -> list[str]:
    match = Match(1, "x", "one", "two", TALK, (first, second))
    return [chat.messages[-1].content for chat in judge_chats(match, instructions or default_instructions())]


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("A is more helpful. [[A]]", "A"),
        ("**[[B]]**.", "B"),
        ("Neither.\n\n[[C]]\n", "C"),
        ("[[ a ]]", "A"),
        ("I first thought [[A]], but no: [[B]]", "B"),
        ("[[B]]\n\nI hope that helps!", "B"),
        ("[[A]] it was; [[B]] is worse in the end", None),
        ("A", None),
        ("[A]", None),
        ("[[D]]", None),
        ("My answer was cut of", None),
        ("", None),
    ],
)
def test_the_verdict_is_the_last_word(reply: str, verdict: str | None) -> None:
    assert read_verdict(reply) == verdict


@pytest.mark.parametrize(
    ("forward", "backward", "outcome"),
    [
        ("A", "B", "win"),
        ("B", "A", "lose"),
        ("C", "C", "tie"),
        ("A", "A", "tie"),
        ("B", "B", "tie"),
        ("A", "C", "tie"),
        ("C", "B", "tie"),
        (None, "A", "unparsable"),
        ("A", None, "unparsable"),
        (None, None, "unparsable"),
    ],
)
def test_only_what_both_orders_say_is_no_tie(forward: Any, backward: Any, outcome: str) -> None:
    assert outcome_of(forward, backward) == outcome


def test_the_outcome_for_the_other_side_is_the_opposite() -> None:
    opposite = {"win": "lose", "lose": "win", "tie": "tie", "unparsable": "unparsable"}
    letters: list[Any] = ["A", "B", "C", None]
    for forward, backward in itertools.product(letters, letters):
        assert outcome_of(backward, forward) == opposite[outcome_of(forward, backward)]


def test_both_orders_are_asked_and_differ_by_the_order_alone() -> None:
    forward, backward = asked("apple", "berry")
    assert "Answer A:\n<answer_a>\napple\n" in forward
    assert "Answer B:\n<answer_b>\nberry\n" in forward
    assert forward.replace("apple", "#").replace("berry", "apple").replace("#", "berry") == backward
    assert "System: Be kind.\n\nUser: Hi\n\nAssistant: Hello\n\nUser: Bye" in forward
    assert "one" not in {*forward.split()} - {*default_instructions().split()}


@given(st.text(), st.text())
def test_texts_are_shown_as_they_are_also_where_they_look_like_places(first: str, second: str) -> None:
    only = "{conversation}|{answer_a}|{answer_b}"
    spoken = asked("", "", "{conversation}{answer_a}{answer_b}")[0]
    first, second = first + "{answer_b}", second + "{conversation}"
    assert asked(first, second, only) == [f"{spoken}|{first}|{second}", f"{spoken}|{second}|{first}"]


@pytest.mark.parametrize("text", ["{answer_a} {answer_b}", "{conversation} {answer_a} {answer_a} {answer_b}", ""])
def test_instructions_have_a_place_for_each_text(text: str) -> None:
    with pytest.raises(OptionError, match="judge_prompt"):
        check_instructions(text)


def test_the_instructions_that_come_with_lalign_have_them() -> None:
    assert check_instructions(default_instructions())

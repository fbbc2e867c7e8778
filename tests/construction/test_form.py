"""The form that a model is asked to write: read back whole, and whatever else it writes is told and never raises."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lalign.construction.form import Broken, read_blocks, read_fields, write_block
from lalign.construction.prompts import PLACES, Stage, instructions
from lalign.construction.questions import FIELDS

WORDS = st.text(st.characters(categories=("L", "N", "P", "Zs"), exclude_characters="<>[]"), min_size=1).filter(
    lambda text: re.search(r"\w", text)
)
BLOCK = st.fixed_dictionaries(dict.fromkeys(FIELDS, WORDS))
# What may stand around blocks, and cannot open or close one.
PROSE = st.text(st.characters(codec="utf-8", exclude_characters="[]"))
PIECES = st.sampled_from(
    ["[[", "]]", "<<", ">>", ":", "Domain", "<<Domain>>:", "<<Question>>", "<<Preference a>>:", "x", "\n", " "]
)


def flat(fields: dict[str, str]) -> dict[str, str]:
    return {name: " ".join(text.split()) for name, text in fields.items()}


class TestProperties:
    @given(st.lists(st.tuples(PROSE, BLOCK), max_size=4), PROSE)
    def test_what_is_written_in_the_form_is_read(self, pieces: list[tuple[str, dict[str, str]]], last: str) -> None:
        text = "".join(prose + write_block(block) for prose, block in pieces) + last
        assert read_blocks(text, FIELDS) == [flat(block) for _, block in pieces]

    @given(st.one_of(st.text(), st.lists(PIECES).map("".join)))
    def test_any_text_gives_whole_blocks_or_says_what_is_wrong(self, text: str) -> None:
        found = read_blocks(text, FIELDS)
        assert len(found) == text.count("[[")
        for block in found:
            if isinstance(block, Broken):
                assert block.problem
            else:
                assert tuple(block) == FIELDS
                assert all(re.search(r"\w", value) and value == " ".join(value.split()) for value in block.values())

    @given(BLOCK, BLOCK, st.integers(0, 500))
    def test_a_block_that_breaks_off_leaves_the_others(
        self, first: dict[str, str], second: dict[str, str], cut: int
    ) -> None:
        whole = write_block(second)
        broken = whole[: 2 + cut % (len(whole) - 3)]
        (one, other) = read_blocks(write_block(first) + broken, FIELDS)
        assert one == flat(first)
        assert isinstance(other, Broken)
        # What follows a block that breaks off is read too.
        assert read_blocks(broken + write_block(first), FIELDS)[-1] == flat(first)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("<<A>>: x", "b: missing"),
        ("<<A>>: x <<B>>: ... ", "b: is empty"),
        ("<<A>>: x <<B>>: y <<A>>: z", "a: is there twice"),
        ("A: x B: y", "a: missing"),
        ("", "a: missing"),
    ],
)
def test_what_is_wrong_is_said(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        read_fields(text, ["a", "b"])


def test_names_are_read_with_other_capitals_and_blanks() -> None:
    assert read_fields("<<PREFERENCE A>> : x\n<< preference_b >> y", ["preference_a", "preference_b"]) == {
        "preference_a": "x",
        "preference_b": "y",
    }


@pytest.mark.parametrize("stage", PLACES)
def test_laligns_own_instructions_have_their_places(stage: Stage) -> None:
    text = instructions(stage)
    assert instructions(stage, text) == text

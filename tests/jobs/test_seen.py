"""Marks that were given before are known, and cost little memory."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lalign.jobs import seen
from lalign.jobs.seen import Seen


@given(st.lists(st.integers(-5, 5) | st.integers(-(2**63), 2**63 - 1)), st.integers(1, 9))
def test_it_tells_what_a_set_does(numbers: list[int], recent: int) -> None:
    plain: set[int] = set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seen, "RECENT", recent)
        marks = Seen()
        for number in numbers:
            assert marks.add(number) == (number in plain)
            plain.add(number)


def test_many_are_no_objects_of_python_s() -> None:
    marks = Seen()
    before = sys.getallocatedblocks()
    for number in range(4 * seen.RECENT):
        assert not marks.add(hash(str(number)))
    assert marks.add(hash("0"))
    assert sys.getallocatedblocks() - before < 1000

"""The mark of what is answered: the same whatever the order in which lines that failed come right."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lalign.jobs.answered import AnsweredInput, line_digest
from lalign.jobs.header import InputMark
from lalign.records.source import RawLine, read_lines

DIGESTS = st.integers(0, 2**256 - 1)


def answered(lines: dict[int, tuple[int, bool]]) -> InputMark:
    progress = AnsweredInput()
    for line, (digest, failed) in sorted(lines.items()):
        progress.answer(line, digest, failed=failed)
    return progress.mark()


def test_lines_that_failed_are_named_and_not_in_the_sum() -> None:
    assert answered({1: (10, False), 3: (20, True), 4: (30, False)}) == InputMark(
        4, 40, answered({3: (0, True)}).failed
    )


@given(st.dictionaries(st.integers(1, 50), st.tuples(DIGESTS, st.booleans(), st.booleans())), st.randoms())
def test_answering_anew_in_any_order_comes_to_what_a_first_answer_would(
    lines: dict[int, tuple[int, bool, bool]], chance: object
) -> None:
    first = answered({line: (digest, failed) for line, (digest, failed, _) in lines.items()})
    progress = AnsweredInput(first)
    numbers = list(lines)
    chance.shuffle(numbers)  # type: ignore[attr-defined]
    for line in numbers + numbers[:3]:
        digest, _, failed = lines[line]
        progress.answer(line, digest, failed=failed)
    assert progress.mark() == answered({line: (digest, failed) for line, (digest, _, failed) in lines.items()})


@pytest.mark.parametrize(
    "other", [RawLine(2, b"a"), RawLine(1, b"b"), RawLine(1, b""), RawLine(1, b"a", too_long=True)]
)
def test_a_digest_tells_lines_apart(other: RawLine) -> None:
    assert line_digest(other) != line_digest(RawLine(1, b"a"))
    assert 0 <= line_digest(other) < 2**256


def digests(data: bytes) -> list[int]:
    return [line_digest(raw) for raw in read_lines(io.BufferedReader(io.BytesIO(data)), "in")]


@pytest.mark.parametrize("same", [b"one\r\ntwo\r\n", b"\xef\xbb\xbfone\ntwo\n", b"one\ntwo", b"one\ntwo\n\n \n"])
def test_a_digest_is_of_a_line_not_of_how_it_ends(same: bytes) -> None:
    assert digests(same) == digests(b"one\ntwo\n")

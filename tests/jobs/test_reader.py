"""What is read, passed over and refused: the input of a job that goes on must be the one that was answered."""

from __future__ import annotations

import io
from array import array
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lalign.errors import InputError
from lalign.jobs import reader as reader_module
from lalign.jobs.answered import AnsweredInput, line_digest
from lalign.jobs.header import InputMark
from lalign.jobs.reader import JobInput, Reader
from lalign.jobs.resume import Resumed
from lalign.records.source import RawLine


def line(number: int, text: str = "a") -> bytes:
    return b'{"prompt":"%s%d"}' % (text.encode(), number)


def joined(lines: Iterable[bytes]) -> bytes:
    return b"".join(raw + b"\n" for raw in lines)


def mark(lines: dict[int, bytes], failed: Iterable[int] = ()) -> InputMark:
    answered = AnsweredInput()
    for number, raw in lines.items():
        answered.answer(number, line_digest(RawLine(number, raw)), failed=number in failed)
    return answered.mark()


def resumed(
    answered: Iterable[int], covered: int, failed: Iterable[int] = (), redo: Iterable[int] = (), text: str = "a"
) -> Resumed:
    """Of an input of `line(1)`, `line(2)`, ..., all of which are in the mark up to `covered`."""
    of_header = mark({number: line(number, text) for number in range(1, covered + 1)}, failed)
    return Resumed(lines=array("q", answered), failed=array("q", failed), redo=array("q", redo), input=of_header)


def reader(content: bytes, stands: Resumed | None = None, limit: int | None = None) -> Reader:
    return Reader(io.BufferedReader(io.BytesIO(content)), JobInput(limit=limit), stands or Resumed())


def read(content: bytes, stands: Resumed | None = None, limit: int | None = None) -> list[int]:
    return [record.line for record in reader(content, stands, limit)]


FIVE = joined(line(number) for number in range(1, 6))


class TestWhatIsRun:
    @pytest.mark.parametrize(("limit", "wanted"), [(None, [1, 2, 3, 4, 5]), (2, [1, 2]), (9, [1, 2, 3, 4, 5])])
    def test_of_a_fresh_start_all(self, limit: int | None, wanted: list[int]) -> None:
        assert read(FIVE, limit=limit) == wanted

    @pytest.mark.parametrize("covered", [0, 1, 3, 5])
    def test_what_stands_is_passed_over(self, covered: int) -> None:
        """Whether the mark has come as far as the output, or the output was cut behind it."""
        going_on = reader(FIVE, resumed([1, 2, 3], covered))
        assert [record.line for record in going_on] == [4, 5]
        assert going_on.skipped == 3

    def test_what_is_to_be_redone_comes_first(self) -> None:
        assert read(FIVE, resumed([1, 2, 3, 4], 4, failed=[2], redo=[2])) == [2, 5]

    @pytest.mark.parametrize(("limit", "wanted"), [(1, []), (2, [2]), (4, [2]), (5, [2, 5])])
    def test_a_limit_counts_lines_that_stand(self, limit: int, wanted: list[int]) -> None:
        assert read(FIVE, resumed([1, 2, 3, 4], 4, failed=[2], redo=[2]), limit) == wanted

    def test_many_lines_wait_on_the_disk(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(reader_module, "_HELD_BYTES", 100)
        numbers = range(1, 1001)
        content = joined(line(number) for number in numbers)
        assert read(content, resumed(numbers, 1000, failed=numbers, redo=numbers)) == list(numbers)

    def test_blank_lines_are_no_lines(self) -> None:
        content = b"\n" + joined([line(2), b" ", line(4)])
        stands = Resumed(lines=array("q", [2]), input=mark({2: line(2)}))
        assert read(content, stands) == [4]

    def test_where_anything_goes_nothing_is_compared(self) -> None:
        assert read(FIVE, Resumed(lines=array("q", [3]))) == [4, 5]


class TestWhatIsHeardOfIt:
    def test_lines_that_are_run_with_their_records(self) -> None:
        reading = reader(FIVE + b"{}\n")
        assert len(list(reading)) == 6
        taken = reading.take()
        assert [(each.line, each.record is not None) for each in taken] == [(n, n < 6) for n in range(1, 7)]
        assert taken[0].digest == line_digest(RawLine(1, line(1)))
        assert reading.take() == []

    def test_lines_that_stand_where_the_mark_does_not_cover_them(self) -> None:
        reading = reader(FIVE, resumed([1, 2, 3, 4], 2, failed=[3], redo=[3]))
        assert [record.line for record in reading] == [3, 5]
        assert [each.line for each in reading.take()] == [3, 4, 3, 5]


class TestRefused:
    def refused(self, content: bytes, stands: Resumed, message: str, limit: int | None = None) -> None:
        """Before any line is given out or heard of."""
        reading = reader(content, stands, limit)
        with pytest.raises(InputError, match=message):
            next(iter(reading), None)
        assert reading.take() == []

    @pytest.mark.parametrize("limit", [None, 1])
    def test_another_input(self, limit: int | None) -> None:
        other = joined(line(number, "b") for number in range(1, 9))
        self.refused(other, resumed([1, 2, 3, 4], 4, [1], [1]), "the first 4 lines of the input are not those", limit)

    @pytest.mark.parametrize("changed", [1, 3, 4])
    def test_one_that_changed_where_a_response_stands(self, changed: int) -> None:
        lines = [line(number, "b" if number == changed else "a") for number in range(1, 6)]
        self.refused(joined(lines), resumed([1, 2, 3, 4], 4, [2], [2]), "the first 4 lines of the input are not those")

    def test_one_that_lost_a_line(self) -> None:
        lost = "the input has lost some of the 4 lines the output answers"
        self.refused(joined(line(number) for number in (1, 2, 3)), resumed([1, 2, 3, 4], 4, [2], [2]), lost)
        self.refused(joined(line(number) for number in (1, 2, 3)), resumed([1, 2, 3, 4], 0, [2], [2]), lost)
        self.refused(joined(line(number) for number in (1, 2, 3)), resumed([1, 2], 4), lost)

    @pytest.mark.parametrize("covered", [0, 4])
    def test_an_output_that_lost_a_line(self, covered: int) -> None:
        message = "line 2 of the input has no record in the output, but later lines have"
        self.refused(FIVE, resumed([1, 3, 4], covered), message)

    @pytest.mark.parametrize("covered", [0, 4])
    def test_an_output_with_a_line_too_many(self, covered: int) -> None:
        message = "line 2 of the input, which the output answers, is blank"
        self.refused(joined([line(1), b"", line(3), line(4), line(5)]), resumed([1, 2, 3, 4], covered), message)


@given(st.sets(st.integers(1, 8)), st.integers(0, 8), st.data())
def test_lines_that_failed_may_be_corrected_and_no_others(failed: set[int], covered: int, data: st.DataObject) -> None:
    """Lines that the mark covers, whatever the order of the rest."""
    changed = data.draw(st.sets(st.integers(1, 8)))
    content = joined(line(number, "b" if number in changed else "a") for number in range(1, 11))
    gone = {number for number in failed if number <= covered}
    stands = resumed(range(1, 9), covered, sorted(gone), sorted(gone))
    if {number for number in changed if number <= covered} <= gone:
        assert read(content, stands) == [*sorted(gone), 9, 10]
    else:
        with pytest.raises(InputError, match=f"the first {covered} lines of the input"):
            read(content, stands)


class TestDuplicates:
    def test_the_first_is_told(self) -> None:
        reading = reader(joined(b'{"id":"%s","prompt":"a"}' % given for given in (b"x", b"y", b"y", b"x")))
        assert len(list(reading)) == 4
        assert reading.duplicate == "stdin:3: id 'y' was given before; all are kept"

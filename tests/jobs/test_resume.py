"""What stands of an earlier run, and how redone records take the place of errors."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import orjson
import pytest

from lalign.errors import OutputError
from lalign.jobs.resume import Redone, Resumed, redone_path, scan, seal
from lalign.jobs.resume import merge_redone as merge


def record(line: int, item: int = 0, *, failed: bool = False, text: str = "é") -> bytes:
    content: dict[str, Any] = {"id": line, "line": line, "item": item, "alignment": {}}
    content |= {"error": {"type": "out_of_memory", "message": ""}} if failed else {"response": text}
    return orjson.dumps(content) + b"\n"


SEAL = seal(0xAB)


def merge_redone(output: Path) -> list[Redone]:
    """Merges, and closes what it has opened."""
    done, stream = merge(output, "out.jsonl", lambda: None)
    stream.close()
    return done


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def test_what_stands_is_counted(output: Path) -> None:
    records = [record(1, 0), record(1, 1), record(4, 0, failed=True), record(4, 1), record(7, 0)]
    output.write_bytes(b"".join(records))
    resumed, size = scan(output, "out.jsonl", retry_errors=False, points=2)
    assert (resumed.records, resumed.failures, resumed.standing, resumed.last_line) == (5, 1, 2, 4)
    assert (resumed.partial, resumed.partial_records, resumed.partial_responses) == (7, 1, 1)
    assert size == output.stat().st_size
    stands = [(line, item) for line in (1, 4, 7, 8) for item in (0, 1) if resumed.stands(line, item)]
    assert stands == [(1, 0), (1, 1), (4, 0), (4, 1), (7, 0)]


def test_an_error_of_a_whole_line_is_all_there_is_of_it(output: Path) -> None:
    whole = orjson.dumps({"id": 2, "line": 2, "error": {}}) + b"\n"
    output.write_bytes(record(1, 0) + record(1, 1) + whole)
    resumed, _ = scan(output, "out.jsonl", retry_errors=False, points=2)
    assert (resumed.last_line, resumed.partial, list(resumed.failed)) == (2, 0, [2])
    output.write_bytes(whole + record(2, 1))
    with pytest.raises(OutputError, match="has 2 records of line 2 where 1 belong"):
        scan(output, "out.jsonl", retry_errors=False, points=2)


def test_a_line_without_any_response_has_failed(output: Path) -> None:
    output.write_bytes(record(1, 0, failed=True) + record(1, 1) + b"".join(record(2, n, failed=True) for n in (0, 1)))
    resumed, _ = scan(output, "out.jsonl", retry_errors=True, points=2)
    assert (list(resumed.failed), list(resumed.redo)) == ([2], [1, 2])


def test_a_line_with_an_error_is_redone_whole(output: Path) -> None:
    errors = [record(line, item, failed=item == 0) for line in (4, 9) for item in (0, 1)]
    output.write_bytes(b"".join([record(1), record(1, 1), *errors[:2], record(7), record(7, 1), *errors[2:3]]))
    resumed, _ = scan(output, "out.jsonl", retry_errors=True, points=2)
    assert (resumed.records, resumed.failures, list(resumed.redo)) == (4, 0, [4, 9])
    assert [line for line in range(1, 12) if resumed.redoes(line)] == [4, 9]
    assert [line for line in (1, 4, 7, 9) if resumed.stands(line)] == [1, 7]
    assert not resumed.stands(4, 1)


def test_nothing_stands_of_no_run() -> None:
    assert not Resumed().stands(1)
    assert not Resumed().redoes(1)


def test_cut_at_any_byte_the_whole_records_before_stand(output: Path) -> None:
    records = [record(1), record(2, failed=True), record(3, text="a\nb"), record(4)]
    whole = b"".join(records)
    ends = [sum(map(len, records[:count])) for count in range(len(records) + 1)]
    for cut in range(len(whole) + 1):
        output.write_bytes(whole[:cut])
        resumed, size = scan(output, "out.jsonl", retry_errors=False)
        assert size == max(end for end in ends if end <= cut)
        assert resumed.records == resumed.last_line == len(resumed.lines) == ends.index(size)


@pytest.mark.parametrize("tail", [b"\0" * 50, b"\0\n", b"{\n", b'{"line":2}', b"\xff\xfe\n", b"\n"])
def test_a_last_line_that_is_no_whole_json_is_torn(output: Path, tail: bytes) -> None:
    output.write_bytes(record(1) + tail)
    resumed, size = scan(output, "out.jsonl", retry_errors=False)
    assert (resumed.records, size) == (1, len(record(1)))


@pytest.mark.parametrize("line", [b"{\n", b"\n", b"\0\n", b"[]\n", b"{}\n", b'{"line":"2"}\n', b'{"line":0}\n'])
def test_a_bad_line_before_the_last_is_told_by_its_number(output: Path, line: bytes) -> None:
    output.write_bytes(record(1) + line + record(3))
    with pytest.raises(OutputError, match=r"^out\.jsonl: line 2 is not a record that follows the one before$"):
        scan(output, "out.jsonl", retry_errors=False)


@pytest.mark.parametrize("line", [b'{"name":"another file"}\n', record(1)])
def test_a_last_line_of_another_file_is_not_cut(output: Path, line: bytes) -> None:
    output.write_bytes(record(2) + line)
    with pytest.raises(OutputError, match="line 2"):
        scan(output, "out.jsonl", retry_errors=False)


def test_redone_records_take_the_place_of_their_lines(output: Path) -> None:
    old = [record(1), record(2, 0, failed=True), record(2, 1), record(3), record(4, failed=True), record(5)]
    output.write_bytes(b"".join(old) + b'{"torn')
    output.chmod(0o600)
    redone_path(output).write_bytes(record(2, 0) + record(2, 1) + SEAL + record(4) + SEAL)
    merge_redone(output)
    assert output.read_bytes() == b"".join([record(1), record(2, 0), record(2, 1), record(3), record(4), record(5)])
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    assert sorted(path.name for path in output.parent.iterdir()) == ["out.jsonl", "out.jsonl.retry"]


def test_a_merge_tells_what_it_has_put_there(output: Path) -> None:
    output.write_bytes(record(1) + record(2, failed=True) + record(3, failed=True))
    redone_path(output).write_bytes(record(2) + seal(7) + record(3, failed=True) + seal(8))
    assert merge_redone(output) == [Redone(2, 7, False, b""), Redone(3, 8, True, b"")]


def test_merging_again_after_a_kill_changes_nothing(output: Path) -> None:
    output.write_bytes(record(1) + record(2, failed=True) + record(3))
    waiting = record(2) + SEAL
    redone_path(output).write_bytes(waiting)
    merge_redone(output)
    merged = output.read_bytes()
    redone_path(output).write_bytes(waiting)  # as if killed before it was removed
    merge_redone(output)
    assert output.read_bytes() == merged == record(1) + record(2) + record(3)


def test_a_redone_line_counts_only_once_it_is_whole(output: Path) -> None:
    old = record(1, failed=True) + record(2, 0, failed=True) + record(2, 1, failed=True)
    waiting = record(1) + SEAL + record(2, 0) + record(2, 1) + SEAL
    first = len(record(1) + SEAL)
    for cut in range(len(waiting) + 1):
        output.write_bytes(old)
        redone_path(output).write_bytes(waiting[:cut])
        merge_redone(output)
        expected = (record(1) if cut >= first else record(1, failed=True)) + (
            record(2, 0) + record(2, 1)
            if cut == len(waiting)
            else record(2, 0, failed=True) + record(2, 1, failed=True)
        )
        assert output.read_bytes() == expected


@pytest.mark.parametrize(
    "waiting", [SEAL, b"\0\0" + SEAL, b"{}\n" + SEAL, b"[]\n" + SEAL, record(1) + SEAL[:-2] + b"\n"]
)
def test_damaged_redone_records_leave_the_old(output: Path, waiting: bytes) -> None:
    output.write_bytes(record(1, failed=True))
    redone_path(output).write_bytes(waiting)
    merge_redone(output)
    assert output.read_bytes() == record(1, failed=True)


def test_a_merge_that_fails_leaves_both_files(output: Path) -> None:
    damaged = record(1, failed=True) + b"{}\n" + record(3)
    output.write_bytes(damaged)
    redone_path(output).write_bytes(record(1) + SEAL)
    with pytest.raises(OutputError, match="line 2"):
        merge_redone(output)
    assert output.read_bytes() == damaged
    assert sorted(path.name for path in output.parent.iterdir()) == ["out.jsonl", "out.jsonl.retry"]

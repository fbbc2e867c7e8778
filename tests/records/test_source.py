"""Raw lines: what is read, what is skipped, and what a broken input leaves standing."""

from __future__ import annotations

import gzip
import io
import os
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lalign.errors import InputError
from lalign.records import source
from lalign.records.source import RawLine, filled_lines, open_source, read_lines, zstd

BOM = b"\xef\xbb\xbf"
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": partial(gzip.compress, compresslevel=1),
    ".zst": zstd.compress,
}


def lines_of(data: bytes) -> list[tuple[int, bytes]]:
    return [(line.number, line.data) for line in read_lines(io.BytesIO(data), "in.jsonl")]


def lines_before_error(lines: Iterator[RawLine]) -> tuple[list[bytes], str]:
    """What was yielded before reading failed, and the error's text."""
    read: list[bytes] = []
    with pytest.raises(InputError) as failure:
        read.extend(line.data for line in lines)
    return read, str(failure.value)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"a\nb\n", [(1, b"a"), (2, b"b")]),
        (b"a\r\nb\r\n", [(1, b"a"), (2, b"b")]),
        (b"a\nb", [(1, b"a"), (2, b"b")]),
        (b"\n \t\r\n\na\n\n", [(4, b"a")]),
        (BOM + b"a\nb\n", [(1, b"a"), (2, b"b")]),
        (BOM, []),
        (BOM + b"\r\na\n", [(2, b"a")]),
        (b"a\n" + BOM + b"b\n", [(1, b"a"), (2, BOM + b"b")]),
        (b"\x00\xff\n", [(1, b"\x00\xff")]),
        (b" a \n", [(1, b" a ")]),
    ],
)
def test_lines_lose_their_endings_and_blank_ones_are_skipped_but_counted(
    data: bytes, expected: list[tuple[int, bytes]]
) -> None:
    assert lines_of(data) == expected


@pytest.mark.parametrize("suffix", COMPRESS)
def test_a_file_is_decompressed_by_its_suffix(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"in.jsonl{suffix}"
    path.write_bytes(COMPRESS[suffix](BOM + b"one\r\ntwo"))
    with open_source(path) as stream:
        assert list(read_lines(stream, path.name)) == [RawLine(1, b"one"), RawLine(2, b"two")]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_compressed_files_may_be_joined_end_to_end(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"in{suffix}"
    path.write_bytes(COMPRESS[suffix](b"one\ntw") + COMPRESS[suffix](b"o\n"))
    with open_source(path) as stream:
        assert [line.data for line in read_lines(stream, "in")] == [b"one", b"two"]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_an_empty_file_has_no_lines(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"in{suffix}"
    path.write_bytes(b"")
    with open_source(path) as stream:
        assert list(read_lines(stream, "in")) == []


def test_a_zstd_file_without_a_frame_is_one_that_was_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "in.zst"
    path.write_bytes(b"")
    with open_source(path) as stream:
        read, error = lines_before_error(read_lines(stream, "in"))
    assert read == []
    assert "ended before" in error


@pytest.mark.parametrize("path", [None, Path("-")])
def test_no_name_and_dash_are_stdin(monkeypatch: pytest.MonkeyPatch, path: Path | None) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\n")))
    assert list(read_lines(open_source(path), "stdin")) == [RawLine(1, b"a")]


def test_a_closed_stdin_is_an_input_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match=r"^stdin: closed$"):
        open_source(None)


@pytest.mark.parametrize("suffix", COMPRESS)
def test_what_cannot_be_opened_is_named_in_one_line(tmp_path: Path, suffix: str) -> None:
    missing, folder = tmp_path / f"missing{suffix}", tmp_path / f"folder{suffix}"
    folder.mkdir()
    (folder / "a.jsonl").touch()
    mended = f"is a folder, not a file; for all of its .jsonl files: cat {folder}/*.jsonl"
    for path, reason in ((missing, "No such file or directory"), (folder, mended)):
        with pytest.raises(InputError) as failure:
            open_source(path)
        assert str(failure.value) == f"{path}: {reason}"
    (folder / "a.jsonl").rename(folder / "a.bin")
    with pytest.raises(InputError) as failure:
        open_source(folder)
    assert str(failure.value) == f"{folder}: is a folder, not a file"


def test_a_name_that_no_file_can_have_is_an_input_error() -> None:
    with pytest.raises(InputError, match="null"):
        open_source(Path("a\0b"))


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_file_that_is_not_compressed_as_it_says(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"in{suffix}"
    path.write_bytes(b'{"prompt": "plain"}\n')
    with open_source(path) as stream:
        read, error = lines_before_error(read_lines(stream, "in"))
    assert read == []
    assert error.startswith("in:1: ")


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("cut", [1, 100])
def test_a_file_cut_short_fails_after_its_complete_lines(tmp_path: Path, suffix: str, cut: int) -> None:
    lines = [os.urandom(40).hex().encode() for _ in range(20_000)]
    path = tmp_path / f"in{suffix}"
    path.write_bytes(COMPRESS[suffix](b"\n".join(lines) + b"\n")[:-cut])
    with open_source(path) as stream:
        read, error = lines_before_error(read_lines(stream, "in"))
    assert read == lines[: len(read)]
    # A compressor's last block, 128 KiB of text for zstd, is all there or not at all.
    assert len(read) > 18_000
    assert error.startswith(f"in:{len(read) + 1}: ")
    assert "\n" not in error


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_damaged_file_fails_where_it_is_damaged(tmp_path: Path, suffix: str) -> None:
    lines = [os.urandom(40).hex().encode() for _ in range(20_000)]
    data = bytearray(COMPRESS[suffix](b"\n".join(lines) + b"\n"))
    middle = len(data) // 2
    data[middle : middle + 64] = bytes(64)
    path = tmp_path / f"in{suffix}"
    path.write_bytes(data)
    with open_source(path) as stream:
        read, error = lines_before_error(read_lines(stream, "in"))
    assert len(read) > 1000
    assert error.startswith("in:")


class FailingDisk(io.RawIOBase):
    """Gives `data`, then an input/output error."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if size := self._data.readinto(buffer):
            return size
        raise OSError(5, "Input/output error")


def test_a_read_error_fails_after_the_complete_lines_before_it() -> None:
    stream = io.BufferedReader(FailingDisk(b"one\n\ntwo\nthr"))
    assert lines_before_error(read_lines(stream, "in.jsonl")) == (
        [b"one", b"two"],
        "in.jsonl:4: Input/output error",
    )


def test_a_line_leaves_a_pipe_as_soon_as_it_is_complete() -> None:
    reader, writer = os.pipe()
    with open(reader, "rb") as stream, open(writer, "wb", buffering=0) as sink, ThreadPoolExecutor(1) as thread:
        lines = read_lines(stream, "pipe")
        try:
            sink.write(b"one\ntw")
            assert thread.submit(next, lines).result(timeout=10) == RawLine(1, b"one")
            sink.write(b"o\n")
            assert thread.submit(next, lines).result(timeout=10) == RawLine(2, b"two")
        finally:
            sink.close()


def test_a_growing_file_is_read_to_its_end_of_that_time(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"one\n")
    with path.open("ab", buffering=0) as grower, open_source(path) as stream:
        lines = read_lines(stream, "in")
        assert next(lines).data == b"one"
        grower.write(b"two\nthr")
        assert [next(lines).data, next(lines).data] == [b"two", b"thr"]
        grower.write(b"ee\nfour\n")
        assert list(lines) == []


def test_a_line_of_ten_megabytes_is_a_line() -> None:
    line = b"x" * 10_000_000
    assert lines_of(b"a\n" + line + b"\r\nb") == [(1, b"a"), (2, line), (3, b"b")]


def test_a_line_over_the_limit_is_flagged_without_its_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "MAX_LINE_BYTES", 8)
    data = b"12345678\n123456789\nshort\n" + b"x" * 100
    assert list(read_lines(io.BytesIO(data), "in")) == [
        RawLine(1, b"12345678"),
        RawLine(2, b"", too_long=True),
        RawLine(3, b"short"),
        RawLine(4, b"", too_long=True),
    ]


class EndlessLine(io.RawIOBase):
    """A line of `size` bytes, then a short one, without holding either."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._tail = io.BytesIO(b"\nshort\n")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if not self._left:
            return self._tail.readinto(buffer)
        size = min(len(buffer), self._left)
        buffer[:size] = bytes(size)
        self._left -= size
        return size


def test_a_line_over_the_limit_is_not_held_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "MAX_LINE_BYTES", 1 << 20)
    stream = io.BufferedReader(EndlessLine(200 << 20), buffer_size=1 << 18)
    tracemalloc.start()
    try:
        lines = list(read_lines(stream, "in"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert lines == [RawLine(1, b"", too_long=True), RawLine(2, b"short")]
    assert peak < 8 << 20


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_small_file_that_unpacks_to_a_huge_line_is_not_held_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr(source, "MAX_LINE_BYTES", 1 << 20)
    path = tmp_path / f"in{suffix}"
    path.write_bytes(COMPRESS[suffix](bytes(128 << 20)) + COMPRESS[suffix](b"\nshort\n"))
    with open_source(path) as stream:
        tracemalloc.start()
        try:
            lines = list(read_lines(stream, "in"))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert lines == [RawLine(1, b"", too_long=True), RawLine(2, b"short")]
    assert peak < 8 << 20


@given(st.lists(st.sampled_from([b"a", b" ", b"\n", b"\r\n", b"\t", BOM, b"\x00"])).map(b"".join))
def test_the_filled_lines_are_those_yielded(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "counted.jsonl"
    path.write_bytes(data)
    assert list(filled_lines(path) or ()) == [number for number, _ in lines_of(data)]


def test_filled_lines_are_found_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "_BLOCK_BYTES", 4)
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"a\n    \n      b   \n\ncc\ndddddddddddd")
    assert list(filled_lines(path) or ()) == [1, 3, 5, 6]


def test_filled_lines_that_only_reading_would_tell_are_not_looked_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "in.gz").write_bytes(gzip.compress(b"a\n"))
    for path in (None, Path("-"), tmp_path, *(tmp_path / name for name in ("fifo", "in.gz", "missing"))):
        assert filled_lines(path) is None

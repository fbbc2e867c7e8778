"""The files of an input: which they are, and their lines, numbered as one process numbers them."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import orjson
import pytest

pytest.importorskip("ray.data", reason="needs Ray Data: pip install 'lalign[ray]'")

import pyarrow as pa
import pyarrow.parquet as pq

from lalign.errors import InputError
from lalign.ray.files import input_paths, numbered, read_blocks, survey
from lalign.records.inputs import Inputs
from lalign.records.source import json_lines

ROWS = [{"prompt": f"{number}?", "n": number} for number in range(5)]


def write(path: Path) -> Path:
    """Rows in the format that the name says, with a blank line or a cell of two lines where it has those."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist([*ROWS, {"prompt": "bytes", "data": b"\x00\xff"}]), path)
    elif path.suffix == ".arrow":
        table = pa.Table.from_pylist(ROWS)
        with pa.ipc.new_stream(str(path), table.schema) as writer:
            writer.write_table(table)
    elif path.suffix in (".csv", ".tsv"):
        between = "," if path.suffix == ".csv" else "\t"
        path.write_text(f'id{between}prompt\n\nx{between}"two\nlines"\ny{between}one\n')
    else:
        lines = b"\n\n".join(map(orjson.dumps, ROWS)) + b"\n \n"
        path.write_bytes(gzip.compress(lines) if path.suffix == ".gz" else lines)
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".txt", ".csv", ".tsv", ".arrow", ".parquet"])
def test_lines_are_numbered_as_in_one_process(tmp_path: Path, suffix: str) -> None:
    paths = [write(tmp_path / f"{name}{suffix}") for name in "ab"]
    with Inputs(paths).open() as stream:
        expected = [(raw.number, raw.data) for raw in json_lines(stream, "in")]
    files = numbered([survey(path) for path in paths])
    blocks = [block for file in files for block in read_blocks(file, np.zeros(100, np.uint8), rows=2)]
    assert [(row["line"], row["data"]) for block in blocks for row in block.to_pylist()] == expected
    assert sum(file.filled for file in files) == len(expected)


def test_a_folder_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl.gz", ".c.jsonl", "_d.jsonl", "notes.md"):
        write(tmp_path / name)
    assert input_paths(tmp_path) == ([tmp_path / "a.jsonl.gz", tmp_path / "b.jsonl"], "jsonl")


@pytest.mark.parametrize(
    ("name", "form"), [("in.csv", "jsonl"), ("in.PARQUET", "parquet"), ("in.arrow", "jsonl"), ("in.txt", "jsonl")]
)
def test_only_parquet_is_answered_as_parquet(tmp_path: Path, name: str, form: str) -> None:
    (tmp_path / name).touch()
    assert input_paths(tmp_path / name) == ([tmp_path / name], form)


def test_a_saved_dataset_is_one_input(tmp_path: Path) -> None:
    for name in ("data-0.arrow", "data-1.arrow", "cache-f00.arrow"):
        write(tmp_path / name)
    (tmp_path / "state.json").write_bytes(
        orjson.dumps({"_data_files": [{"filename": "data-0.arrow"}, {"filename": "data-1.arrow"}]})
    )
    assert input_paths(tmp_path) == ([tmp_path], "jsonl")
    found = survey(tmp_path)
    assert (found.lines, found.filled) == (10, 10)
    (tmp_path / "cache-f00.arrow").unlink()
    assert survey(tmp_path) == found
    (tmp_path / "data-1.arrow").write_bytes((tmp_path / "data-1.arrow").read_bytes() + b" ")
    assert survey(tmp_path).digest != found.digest


def test_files_of_two_formats_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl")
    write(tmp_path / "b.csv")
    with pytest.raises(InputError, match="holds CSV and JSON Lines files; one folder is read as one format"):
        input_paths(tmp_path)


def test_what_only_one_could_read_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe: is neither a file nor a folder"):
        input_paths(tmp_path / "pipe")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: holds no files that end in \.jsonl, "):
        input_paths(tmp_path / "empty")


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("in.jsonl.gz", gzip.compress(b"{}" * 999)[:-9], r"in\.jsonl\.gz: Compressed file ended before"),
        ("in.csv", b"id,prompt\nx\n", r"in\.csv:2: has 1 values under 2 columns"),
        ("in.parquet", b"PAR1", r"in\.parquet: "),
        ("in.jsonl", b"PAR1", r"in\.jsonl: is a Parquet file, not JSON Lines"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_before_the_job(tmp_path: Path, name: str, data: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=says):
        survey(tmp_path / name)

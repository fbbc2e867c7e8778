"""Outputs that are packed at the end: what they hold, and that nothing is lost before."""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet
import pytest
from conftest import Lalign

from lalign.errors import OutputError
from lalign.jobs.header import End, read_header
from lalign.jobs.output import open_output, whole_output
from lalign.jobs.packed import Packed
from lalign.records.source import zstd

PROMPTS = b"".join(orjson.dumps({"id": f"n{number}", "prompt": f"{number}?"}) + b"\n" for number in range(1, 5))
UNPACK: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.decompress, ".zst": zstd.decompress}


def record(line: int, **more: Any) -> bytes:
    return orjson.dumps({"id": line, "line": line, "response": "Hi", **more}) + b"\n"


def write(path: Path, records: list[bytes], *, finish: bool = True, first: int = 1, **options: Any) -> None:
    clock = itertools.count(0.0).__next__
    with open_output(path, clock=clock, **options) as output:
        output.start({"model": "tiny"})
        for line, raw in enumerate(records, first):
            output.mark(line, line)
            output.write(raw, line=line)
        if finish:
            output.finish(first + len(records) - 1, len(records))
        output.sync()


RECORDS = [record(line) for line in range(1, 600)]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
class TestCompressed:
    def test_holds_the_lines(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"out.jsonl{suffix}"
        write(path, RECORDS)
        assert UNPACK[suffix](path.read_bytes()) == b"".join(RECORDS)
        assert {file.name for file in tmp_path.iterdir()} == {path.name, f"{path.name}.run.json"}

    def test_what_is_not_done_stands_beside_it_and_is_gone_on_with(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"out.jsonl{suffix}"
        write(path, RECORDS[:5], finish=False)
        assert not path.exists()
        assert (tmp_path / f"{path.name}.part").read_bytes() == b"".join(RECORDS[:5])
        with pytest.raises(OutputError, match="exists; --overwrite replaces it, --resume continues it"):
            open_output(path, resume=False)
        write(path, RECORDS[5:], first=6, resume=True)
        assert UNPACK[suffix](path.read_bytes()) == b"".join(RECORDS)

    def test_what_is_done_can_be_gone_on_with(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"out.jsonl{suffix}"
        write(path, RECORDS[:5])
        with pytest.raises(OutputError, match="exists; --overwrite replaces it"):
            open_output(path)
        write(path, RECORDS[5:], first=6, resume=True)
        assert UNPACK[suffix](path.read_bytes()) == b"".join(RECORDS)

    def test_is_replaced_only_when_the_new_one_is_done(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"out.jsonl{suffix}"
        write(path, RECORDS[:5])
        write(path, RECORDS[:2], finish=False, overwrite=True)
        assert UNPACK[suffix](path.read_bytes()) == b"".join(RECORDS[:5])
        write(path, RECORDS[2:3], first=3, resume=True)
        assert UNPACK[suffix](path.read_bytes()) == b"".join(RECORDS[:3])

    def test_a_damaged_one_is_not_gone_on_with(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"out.jsonl{suffix}"
        write(path, RECORDS)
        path.write_bytes(path.read_bytes()[:-9])
        with pytest.raises(OutputError, match="out"):
            open_output(path, resume=True)
        assert not (tmp_path / f"{path.name}.part").exists()

    def test_one_job_at_a_time(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"out.jsonl{suffix}"
        with open_output(path), pytest.raises(OutputError, match="is being written by another lalign job"):
            open_output(path)

    def test_where_packing_fails_the_lines_stay(
        self, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        path = tmp_path / f"out.jsonl{suffix}"
        monkeypatch.setattr("lalign.jobs.packed.shutil.copyfileobj", full)
        with pytest.raises(OutputError, match="No space left"):
            write(path, RECORDS)
        monkeypatch.undo()
        assert (tmp_path / f"{path.name}.part").read_bytes() == b"".join(RECORDS)
        write(path, [], first=600, resume=True)
        assert UNPACK[suffix](path.read_bytes()) == b"".join(RECORDS)


class TestParquet:
    def rows(self, path: Path) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
        return rows

    def test_has_a_row_for_each_record(self, tmp_path: Path) -> None:
        path = tmp_path / "out.parquet"
        error = orjson.dumps({"id": 600, "line": 600, "error": {"type": "a", "message": "b"}}) + b"\n"
        write(path, [*RECORDS, error])
        rows = self.rows(path)
        assert [row["line"] for row in rows] == [*range(1, 601)]
        assert (rows[0]["response"], rows[0]["error"]) == ("Hi", None)
        assert (rows[-1]["response"], rows[-1]["error"]) == (None, {"type": "a", "message": "b"})

    def test_ids_of_several_kinds_are_texts_and_inputs_json(self, tmp_path: Path) -> None:
        path = tmp_path / "out.parquet"
        write(path, [record(1, input={"a": 1}), record(2, input={"a": "x"}).replace(b'"id":2', b'"id":"two"')])
        assert [(row["id"], row["input"]) for row in self.rows(path)] == [("1", '{"a":1}'), ("two", '{"a":"x"}')]

    def test_inputs_have_every_digit_of_their_integers(self, tmp_path: Path) -> None:
        path = tmp_path / "out.parquet"
        long = b'{"n":123456789012345678901234567890,"m":-18446744073709551617}'
        plain, batch = record(1, input={}), record(2, lalign={"line": 2, "input": {}})
        write(path, [one.replace(b'"input":{}', b'"input":' + long) for one in (plain, batch)])
        first, second = self.rows(path)
        assert (first["input"], second["lalign"]["input"]) == (long.decode(), long.decode())

    def test_an_infinite_p_is_a_number(self, tmp_path: Path) -> None:
        path = tmp_path / "out.parquet"
        write(path, [record(1, alignment={"p": 2.0}), record(2, alignment={"p": "inf", "summary": {}})])
        assert [row["alignment"]["p"] for row in self.rows(path)] == [2.0, float("inf")]

    def test_is_resumed_until_it_is_done(self, tmp_path: Path) -> None:
        path = tmp_path / "out.parquet"
        write(path, RECORDS[:5], finish=False)
        write(path, RECORDS[5:9], first=6, resume=True)
        assert len(self.rows(path)) == 9
        with pytest.raises(OutputError, match="is done, and a Parquet file cannot be continued"):
            open_output(path, resume=True)


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz"])
class TestWhole:
    def test_is_done_when_it_is_left(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / name
        with whole_output(path, {"model": "tiny"}) as put:
            for line in (3, 1, 3):
                put(record(line), line=line)
        read = gzip.open if name.endswith(".gz") else open
        with read(path, "rb") as file:
            assert file.read() == record(3) + record(1) + record(3)
        header = read_header(path)
        assert header is not None
        assert (header.fingerprint, header.end) == ({"model": "tiny"}, End(3, 2))
        assert {file.name for file in tmp_path.iterdir()} == {name, f"{name}.run.json"}

    def test_left_by_an_error_it_replaces_nothing_packed(self, tmp_path: Path, name: str) -> None:
        def fail() -> None:
            with whole_output(tmp_path / name, {}) as put:
                put(record(1), line=1)
                raise OSError("no")

        with pytest.raises(OSError, match="no"):
            fail()
        assert (tmp_path / name).exists() == (name == "out.jsonl")


def test_other_names_are_plain(tmp_path: Path) -> None:
    with open_output(tmp_path / "out.jsonl") as output:
        assert not isinstance(output, Packed)


@pytest.mark.parametrize("name", ["out.jsonl.gz", "out.parquet"])
def test_a_command_writes_what_it_would_in_plain(lalign: Lalign, tmp_path: Path, name: str) -> None:
    (tmp_path / "in.jsonl").write_bytes(PROMPTS)
    assert lalign.generate("in.jsonl", "-o", name, "--limit", 2, "--stats", "none").status == 0
    plain = lalign.generate("in.jsonl", "--limit", 2, "--stats", "none").records
    if name.endswith(".gz"):
        found = [orjson.loads(line) for line in gzip.decompress((tmp_path / name).read_bytes()).splitlines()]
        assert lalign.generate("in.jsonl", "-o", name, "--resume", "--stats", "none").status == 0
        assert len(gzip.decompress((tmp_path / name).read_bytes()).splitlines()) == 4
    else:
        found = pyarrow.parquet.read_table(tmp_path / name).to_pylist()
    assert found == plain

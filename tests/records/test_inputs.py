"""Several files, tables and folders as one input: rows as lines, numbered as they stand in their files."""

from __future__ import annotations

import csv
import datetime
import gzip
import io
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lalign.errors import InputError
from lalign.records.arrays import array_elements
from lalign.records.inputs import Inputs, named, streamed
from lalign.records.source import json_lines, zstd
from lalign.records.tables import table_lines

ROWS = [{"id": f"r{number}", "prompt": f"{number}?"} for number in range(1, 150)]


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*rows[0]])
        writer.writeheader()
        writer.writerows(rows)


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=40)


def write_arrow(path: Path, rows: list[dict[str, Any]], opened: Callable[..., Any] = pyarrow.ipc.new_stream) -> None:
    table = pyarrow.Table.from_pylist(rows)
    with path.open("wb") as file, opened(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=70)


def write_dataset(path: Path, rows: list[dict[str, Any]]) -> None:
    """A folder as `datasets.Dataset.save_to_disk` makes it, of two files."""
    path.mkdir()
    for number, part in enumerate((rows[:100], rows[100:])):
        write_arrow(path / f"data-{number}.arrow", part)
    names = [{"filename": "data-0.arrow"}, {"filename": "data-1.arrow"}]
    (path / "state.json").write_text(json.dumps({"_data_files": names}))


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_bytes(b"\n".join(map(orjson.dumps, rows)))  # without a line end at its end


def read(*paths: Path) -> list[tuple[int, Any]]:
    inputs = Inputs(paths)
    with inputs.open() as stream:
        return [(raw.number, orjson.loads(raw.data)) for raw in json_lines(stream, inputs.name)]


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("in.parquet", write_parquet),
        ("in.arrow", write_arrow),
        ("file.arrow", lambda path, rows: write_arrow(path, rows, pyarrow.ipc.new_file)),
        ("folder", write_dataset),
        ("in.jsonl", write_lines),
    ],
)
def test_rows_are_lines_numbered_from_one(tmp_path: Path, name: str, write: Callable[..., None]) -> None:
    write(tmp_path / name, ROWS)
    assert read(tmp_path / name) == [*enumerate(ROWS, 1)]


def test_rows_of_parquet_are_counted_unread(tmp_path: Path) -> None:
    write_parquet(tmp_path / "in.parquet", ROWS)
    assert list(Inputs([tmp_path / "in.parquet"]).filled() or []) == [*range(1, len(ROWS) + 1)]


@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
def test_a_row_of_csv_has_the_number_of_the_line_where_it_begins(tmp_path: Path, packed: str) -> None:
    text = b'\xef\xbb\xbfid,prompt\r\n1,"two\r\nlines, ""quoted"""\r\n\r\n2,plain\n3,last'
    path = tmp_path / f"in.csv{packed}"
    path.write_bytes({"": lambda data: data, ".gz": gzip.compress, ".zst": zstd.compress}[packed](text))
    assert read(path) == [
        (2, {"id": "1", "prompt": 'two\r\nlines, "quoted"'}),
        (5, {"id": "2", "prompt": "plain"}),
        (6, {"id": "3", "prompt": "last"}),
    ]


def test_a_tsv_has_tabs(tmp_path: Path) -> None:
    (tmp_path / "in.tsv").write_text("id\tprompt\n1\ta, b\n")
    assert read(tmp_path / "in.tsv") == [(2, {"id": "1", "prompt": "a, b"})]


def test_of_csv_empty_cells_are_absent_and_options_are_numbers(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text('prompt,ratio,seed,stop,year\nHi,2.5,,.,1999\nHo,inf?,3,"",""\n')
    first, second = (row for _, row in read(tmp_path / "in.csv"))
    assert first == {"prompt": "Hi", "ratio": 2.5, "stop": ".", "year": "1999"}
    assert second == {"prompt": "Ho", "ratio": "inf?", "seed": 3}


@given(
    st.lists(st.tuples(*[st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1)] * 2), min_size=1)
)
def test_whatever_csv_can_hold_comes_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    file = io.StringIO(newline="")
    csv.writer(file).writerows([("a", "b"), *rows])
    text = file.getvalue().encode()
    lines = list(table_lines(Path("in.csv"), lambda path: io.BytesIO(text)))
    found = [orjson.loads(line) for line in b"".join(lines).split(b"\n") if line]
    assert found == [{"a": first, "b": second} for first, second in rows]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"a,b\n1,2,3\n", ":2: has 3 values under 2 columns"),
        (b"a,b\n1\n", ":2: has 1 values under 2 columns"),
        (b"a,a\n1,2\n", ":1: must be a header in which each column, save the first, has a name of its own"),
        (b"a,\n1,2\n", ":1: must be a header in which each column, save the first, has a name of its own"),
        (b",,a\n1,2,3\n", ":1: must be a header in which each column, save the first, has a name of its own"),
        (b'""\n1\n', ":1: must be a header in which each column, save the first, has a name of its own"),
        (b'a,b\n1,"2\n', ":2: unexpected end of data"),
        (b"a,b\n1,\xff\n", ":1: not UTF-8"),
    ],
)
def test_csv_that_is_broken_is_refused(tmp_path: Path, text: bytes, told: str) -> None:
    (tmp_path / "in.csv").write_bytes(text)
    with pytest.raises(InputError, match=r"in\.csv") as raised:
        read(tmp_path / "in.csv")
    assert told in str(raised.value)


@pytest.mark.parametrize("kept", [5, 40, -3])
@pytest.mark.parametrize("name", ["in.csv.gz", "in.tsv.zst"])
def test_a_damaged_packed_table_is_refused(tmp_path: Path, name: str, kept: int) -> None:
    data = b"".join(b"%d,%d\n" % (number, number**9) for number in range(4000))
    separator = b"\t" if ".tsv" in name else b","
    packed = (gzip.compress if name.endswith(".gz") else zstd.compress)(data.replace(b",", separator))
    (tmp_path / name).write_bytes(packed[:kept])
    with pytest.raises(InputError, match=rf"{name}:\d+: "):
        read(tmp_path / name)
    (tmp_path / name).write_bytes(b"No such format")
    with pytest.raises(InputError, match=rf"{name}:1: "):
        read(tmp_path / name)


@pytest.mark.parametrize("text", [",prompt\n0,Hi\n\n1,Ho\n", '"",prompt\n0,Hi\n\n1,"Ho"\n'])
def test_of_csv_a_first_column_without_a_name_is_left_out_and_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "in.csv"
    path.write_text(text)
    assert read(path) == [(2, {"prompt": "Hi"}), (4, {"prompt": "Ho"})]
    assert Inputs([path]).notices() == [f"{path}: its first column, which has no name, is left out"]
    path.write_text("n" + text.removeprefix('""'))
    assert Inputs([path]).notices() == []


class TestArrays:
    """A JSON array in a .json file: its elements as lines, numbered by their place."""

    @pytest.mark.parametrize("indent", [None, 2])
    @pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
    def test_elements_are_lines(self, tmp_path: Path, indent: int | None, packed: str) -> None:
        data = b"\xef\xbb\xbf" + json.dumps(ROWS, indent=indent).replace("\n", "\r\n").encode() + b"\n"
        path = tmp_path / f"in.JSON{packed}"
        path.write_bytes({"": lambda data: data, ".gz": gzip.compress, ".zst": zstd.compress}[packed](data))
        assert read(path) == [*enumerate(ROWS, 1)]
        assert list(Inputs([path]).filled() or []) == [*range(1, len(ROWS) + 1)]
        assert Inputs([path]).place(7) == f"{path}: element 7"

    def test_among_several_files_lines_are_numbered_through(self, tmp_path: Path) -> None:
        write_lines(tmp_path / "a.jsonl", ROWS[:2])
        (tmp_path / "b.json").write_text(json.dumps(ROWS[2:5], indent=1))
        write_lines(tmp_path / "c.json", ROWS[5:6])
        paths = [tmp_path / name for name in ("a.jsonl", "b.json", "c.json")]
        inputs = Inputs(paths)
        with inputs.open() as stream:
            found = [orjson.loads(raw.data)["id"] for raw in json_lines(stream, inputs.name)]
        assert found == ["r1", "r2", "r3", "r4", "r5", "r6"]
        assert [inputs.place(number) for number in (2, 3, 6)] == [
            f"{paths[0]}:2",
            f"{paths[1]}: element 1",
            f"{paths[2]}:1",
        ]

    def test_every_digit_and_byte_stays_as_it_is_written(self, tmp_path: Path) -> None:
        elements = [b'{"n": 123456789012345678901234567890, "x": 1.10, "y": 1e999}', b'{"t": "\xff"}', b"7"]
        (tmp_path / "in.json").write_bytes(b"[ " + b" , ".join(elements) + b" ]")
        with Inputs([tmp_path / "in.json"]).open() as stream:
            assert [raw.data for raw in json_lines(stream, "in.json")] == elements

    @pytest.mark.parametrize("data", ["[]", " [ \n ] \n"])
    def test_one_may_be_empty(self, tmp_path: Path, data: str) -> None:
        (tmp_path / "in.json").write_text(data)
        assert read(tmp_path / "in.json") == []

    @pytest.mark.parametrize(
        ("data", "told"),
        [
            ('[{"a": 1},\n{"a": }]', ":2: line: not valid JSON: Expecting value at column 7"),
            ('[{"a": 1},\n{"a": 1}', ":2: line: not valid JSON: Expecting ',' delimiter at column 9"),
            ('[{"a": 1} {"a": 1}]', ":1: line: not valid JSON: Expecting ',' delimiter at column 11"),
            ('[{"a": 1},]', ":1: line: not valid JSON: Expecting value at column 11"),
            ('[{"a": 1}]\n[{"a": 1}]', ":2: line: not valid JSON: Extra data at column 1"),
            ('[{"a": "b\n"}]', ":1: line: not valid JSON: Invalid control character at column 10"),
            ("[" + '{"a":[' * 200_000, ": nested too deeply"),
        ],
    )
    def test_what_is_wrong_with_one_is_told_before_any_is_answered(self, tmp_path: Path, data: str, told: str) -> None:
        (tmp_path / "in.json").write_text(data)
        with pytest.raises(InputError) as raised:
            Inputs([tmp_path / "in.json"]).open()
        assert str(raised.value) == f"{tmp_path / 'in.json'}{told}"

    def test_one_that_is_too_long_to_be_read_whole_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("lalign.records.arrays.MAX_ARRAY_BYTES", 1 << 20)
        (tmp_path / "in.json").write_bytes(b"[" + b'{"a": 1},' * (1 << 17) + b"{}]")
        with pytest.raises(
            InputError, match=r"is a JSON array of more than 1 MiB, which .*: jq -c '\.\[\]' .*in\.json"
        ):
            Inputs([tmp_path / "in.json"]).open()

    @given(st.lists(st.dictionaries(st.text(), st.recursive(st.none() | st.integers() | st.text(), st.lists))))
    def test_whatever_one_can_hold_comes_back(
        self, tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
    ) -> None:
        for indent in (None, 1):
            text = json.dumps(rows, indent=indent, ensure_ascii=indent is None).encode("utf-8", "surrogatepass")
            elements = array_elements(io.BytesIO(text), "in.json")
            assert [json.loads(one.decode("utf-8", "surrogatepass")) for one in elements] == rows


class TestParquetFolders:
    """Data sets as the hub gives them: the files of one split."""

    @pytest.mark.parametrize(
        "names",
        [
            ("data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"),
            ("a.parquet", "b.parquet"),
            ("train.parquet",),
            ("default/train/0000.parquet", "default/train/0001.parquet"),
            ("part-00000-ab.c000.snappy.parquet", "part-00001-ab.c000.snappy.parquet"),
        ],
    )
    def test_the_files_of_one_split_are_read_in_order(self, tmp_path: Path, names: tuple[str, ...]) -> None:
        (tmp_path / ".cache").mkdir()
        (tmp_path / ".cache" / "test.parquet").touch()
        (tmp_path / "README.md").touch()
        half = len(ROWS) // len(names)
        for number, name in enumerate(names):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            last = number == len(names) - 1
            write_parquet(tmp_path / name, ROWS[number * half :] if last else ROWS[number * half : (number + 1) * half])
        assert read(tmp_path) == [*enumerate(ROWS, 1)]
        assert list(Inputs([tmp_path]).filled() or []) == [*range(1, len(ROWS) + 1)]

    @pytest.mark.parametrize(
        ("names", "patterns"),
        [
            (
                (
                    "data/test-00000-of-00001.parquet",
                    "data/train-00000-of-00002.parquet",
                    "data/train-00001-of-00002.parquet",
                ),
                ("data/test-00000-of-00001.parquet", "'data/train-*.parquet'"),
            ),
            (("main/test.parquet", "main/train.parquet"), ("main/test.parquet", "main/train.parquet")),
            (
                ("a/train/0000.parquet", "a/train/0001.parquet", "b/train/0000.parquet"),
                ("'a/train/*.parquet'", "b/train/0000.parquet"),
            ),
        ],
    )
    def test_of_several_splits_one_must_be_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], patterns: tuple[str, ...]
    ) -> None:
        monkeypatch.chdir(tmp_path)
        for name in names:
            Path("set", name).parent.mkdir(parents=True, exist_ok=True)
            write_parquet(Path("set", name), ROWS[:3])
        wanted = ", ".join(
            f"'set/{one[1:]}" if (one := pattern).startswith("'") else f"set/{one}" for pattern in patterns
        )
        with pytest.raises(InputError) as raised:
            Inputs([Path("set")]).open()
        assert str(raised.value) == f"set: holds several splits; name one: {wanted}"
        for pattern in patterns:
            assert read(*named([Path("set", pattern.strip("'"))]))

    def test_a_damaged_file_is_named(self, tmp_path: Path) -> None:
        write_parquet(tmp_path / "a.parquet", ROWS)
        (tmp_path / "b.parquet").write_bytes(b"PAR1")
        with pytest.raises(InputError, match=r"/b\.parquet: "):
            read(tmp_path)


def test_what_json_has_no_word_for_becomes_text(tmp_path: Path) -> None:
    row = {"when": datetime.datetime(2020, 1, 2), "cost": Decimal("1.50"), "raw": b"\xff\0", "nan": float("nan")}
    write_parquet(tmp_path / "in.parquet", [row])
    expected = {"when": "2020-01-02T00:00:00", "cost": "1.50", "raw": "/wA=", "nan": None}
    assert read(tmp_path / "in.parquet") == [(1, expected)]


@pytest.mark.parametrize("name", ["in.parquet", "in.arrow"])
def test_a_table_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match=name):
        Inputs([tmp_path / name]).open()


def test_of_a_dataset_of_several_splits_one_must_be_named(tmp_path: Path) -> None:
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(InputError, match=r"holds the splits train, test; name one: .*/train"):
        Inputs([tmp_path]).open()


class TestSeveral:
    def test_are_numbered_through(self, tmp_path: Path) -> None:
        write_lines(tmp_path / "a.jsonl", ROWS[:2])
        (tmp_path / "b.jsonl").write_bytes(b'\xef\xbb\xbf{"id": "b"}\n\n{"id": "c"}\n')
        write_csv(tmp_path / "c.csv", ROWS[2:4])
        write_parquet(tmp_path / "d.parquet", ROWS[4:6])
        inputs = Inputs([tmp_path / name for name in ("a.jsonl", "b.jsonl", "c.csv", "d.parquet")])
        with inputs.open() as stream:
            found = [(raw.number, orjson.loads(raw.data)["id"]) for raw in json_lines(stream, inputs.name)]
        assert found == [(1, "r1"), (2, "r2"), (3, "b"), (5, "c"), (7, "r3"), (8, "r4"), (9, "r5"), (10, "r6")]
        places = [
            "a.jsonl:1",
            "a.jsonl:2",
            "b.jsonl:1",
            "b.jsonl:3",
            "c.csv:2",
            "c.csv:3",
            "d.parquet:1",
            "d.parquet:2",
        ]
        assert [inputs.place(number).removeprefix(f"{tmp_path}/") for number, _ in found] == places

    def test_one_that_cannot_be_read_is_told_before_the_others_are_read(self, tmp_path: Path) -> None:
        write_lines(tmp_path / "a.jsonl", ROWS[:2])
        (tmp_path / "b.jsonl").write_text("[{}]")
        with pytest.raises(InputError, match=r"b\.jsonl: is a JSON array"):
            Inputs([tmp_path / "a.jsonl", tmp_path / "b.jsonl"]).open()

    def test_a_damaged_one_is_named_with_the_line(self, tmp_path: Path) -> None:
        write_lines(tmp_path / "a.jsonl", ROWS[:2])
        packed = gzip.compress(b'{"id": 1}\n' * 3)
        (tmp_path / "b.jsonl.gz").write_bytes(packed[:-4])
        with pytest.raises(InputError, match=r"b\.jsonl\.gz:[14]: "):
            read(tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz")

    def test_stdin_is_none_of_them(self) -> None:
        with pytest.raises(InputError, match="stdin: cannot be one of several inputs"):
            Inputs([Path("a"), Path("-")])

    def test_a_pattern_names_what_fits_by_name(self, tmp_path: Path) -> None:
        for name in ("b.jsonl", "a.jsonl", "c.txt", "[x].jsonl"):
            (tmp_path / name).touch()
        assert named([tmp_path / "[ab].jsonl", tmp_path / "c.txt"]) == [
            tmp_path / name for name in ("a.jsonl", "b.jsonl", "c.txt")
        ]
        assert named([tmp_path / "[x].jsonl"]) == [tmp_path / "[x].jsonl"]
        with pytest.raises(InputError, match="no file fits this pattern"):
            named([tmp_path / "*.csv"])


@given(st.lists(st.binary()), st.integers(1, 100))
def test_pieces_of_whatever_length_are_one_stream(pieces: list[bytes], size: int) -> None:
    stream, found = streamed(pieces), b""
    while part := stream.read(size):
        found += part
    assert found == b"".join(pieces)

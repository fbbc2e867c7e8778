"""Files that are no JSON Lines: told before anything else is done, with a command that mends them."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from lalign.errors import InputError
from lalign.records.source import json_lines, open_lines, zstd

RECORDS = [{"prompt": "Grüße, Welt"}, {"prompt": "two\nlines"}]
LINES = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in RECORDS)
TABLE = 'prompt{0}x\n"Grüße, Welt"{0}1\n"two\nlines"{0}2\n'


def zipped(data: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("in.jsonl", data)
    return packed.getvalue()


def parquet() -> bytes:
    pyarrow = pytest.importorskip("pyarrow")
    written = io.BytesIO()
    pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(RECORDS), written)
    return written.getvalue()


FORMATS: list[tuple[str, str, Callable[[], bytes], str]] = [
    ("array.json", "a JSON array", lambda: json.dumps(RECORDS).encode(), "jq -c '.[]' array.json"),
    ("array.jsonl", "a JSON array", lambda: json.dumps(RECORDS, indent=2).encode(), "jq -c '.[]' array.jsonl"),
    (
        "bom.json",
        "a JSON array",
        lambda: b"\xef\xbb\xbf \n[\n" + json.dumps(RECORDS).encode()[1:],
        "jq -c '.[]' bom.json",
    ),
    (
        "array.json.gz",
        "a JSON array",
        lambda: gzip.compress(json.dumps(RECORDS).encode()),
        "gzip -dc < array.json.gz | jq -c '.[]'",
    ),
    (
        "array.json.zst",
        "a JSON array",
        lambda: zstd.compress(json.dumps(RECORDS).encode()),
        "zstd -dc < array.json.zst | jq -c '.[]'",
    ),
    (
        "it's an array.json",
        "a JSON array",
        lambda: json.dumps(RECORDS).encode(),
        """jq -c '.[]' 'it'"'"'s an array.json'""",
    ),
    (
        "pretty.json",
        "JSON of several lines a record",
        lambda: "\r\n".join(json.dumps(record, indent=1) for record in RECORDS).encode(),
        "jq -c . pretty.json",
    ),
    ("utf16.jsonl", "UTF-16", lambda: LINES.encode("utf-16"), "iconv -f UTF-16 -t UTF-8 utf16.jsonl"),
    ("big.jsonl", "UTF-16", lambda: b"\xfe\xff" + LINES.encode("utf-16-be"), "iconv -f UTF-16 -t UTF-8 big.jsonl"),
    (
        "bare.jsonl",
        "UTF-16 without a byte order mark",
        lambda: LINES.encode("utf-16-le"),
        "iconv -f UTF-16LE -t UTF-8 bare.jsonl",
    ),
    (
        "bare_big.jsonl",
        "UTF-16 without a byte order mark",
        lambda: LINES.encode("utf-16-be"),
        "iconv -f UTF-16BE -t UTF-8 bare_big.jsonl",
    ),
    ("utf32.jsonl", "UTF-32", lambda: LINES.encode("utf-32"), "iconv -f UTF-32 -t UTF-8 utf32.jsonl"),
    ("in.zip", "a zip archive", lambda: zipped(LINES.encode()), "unzip -p in.zip"),
    ("named.jsonl", "gzip data", lambda: gzip.compress(LINES.encode()), "gzip -dc < named.jsonl"),
    ("zstd.jsonl", "zstd data", lambda: zstd.compress(LINES.encode()), "zstd -dc < zstd.jsonl"),
    ("in.parquet", "a Parquet file", parquet, "python -c "),
    ("in.csv", "a table of values between commas", lambda: TABLE.format(",").encode(), "python -c "),
    ("in.TSV", "a table of values between tabs", lambda: TABLE.format("\t").encode(), "python -c "),
]


@pytest.mark.parametrize(("name", "called", "data", "command"), FORMATS, ids=[name for name, *_ in FORMATS])
def test_another_format_is_named_with_a_command_that_makes_json_lines_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, called: str, data: Callable[[], bytes], command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(data())
    with pytest.raises(InputError) as refused:
        open_lines(Path(name))
    message = str(refused.value)
    told, _, shown = message.partition("; this makes JSON Lines of it: ")
    assert told == f"{name}: is {called}, not JSON Lines"
    assert shown.startswith(command)
    assert "\n" not in message
    if shutil.which(shown.split()[0]) is None:
        pytest.skip(f"no {shown.split()[0]} here")
    shown = shown.replace("python ", f"{sys.executable} ")
    done = subprocess.run(["bash", "-c", shown], capture_output=True, check=True, timeout=60)
    assert [json.loads(line)["prompt"] for line in done.stdout.splitlines()] == [record["prompt"] for record in RECORDS]


def test_the_same_through_a_pipe_is_told_when_it_is_read() -> None:
    reader, writer = os.pipe()
    os.write(writer, json.dumps(RECORDS).encode())
    os.close(writer)
    with open(reader, "rb") as stream, pytest.raises(InputError) as refused:
        next(json_lines(stream, "stdin"))
    assert str(refused.value) == "stdin: is a JSON array, not JSON Lines; this makes JSON Lines of it: jq -c '.[]'"


def test_nothing_is_waited_for_in_a_pipe_before_it_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    keep = os.open(tmp_path / "fifo", os.O_RDWR)
    try:
        open_lines(tmp_path / "fifo").close()
    finally:
        os.close(keep)


def test_redirected_stdin_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in.json").write_text(json.dumps(RECORDS))
    with (tmp_path / "in.json").open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        with pytest.raises(InputError, match=r"^stdin: is a JSON array"):
            open_lines(None)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n\n",
        b"[1, 2]\n" + LINES.encode(),
        b"{}\n",
        b'{ "prompt": "Hi"}\n',
        b"\x00\xff\n",
        b"prompt,x\na,b\n",
        b"nonsense\n" + LINES.encode(),
        b"P",
    ],
)
def test_lines_that_are_only_odd_are_read(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(data)
    with open_lines(path) as stream:
        read = [line.data for line in json_lines(stream, "in.jsonl")]
    assert read == [line for line in data.splitlines() if line]


@pytest.mark.parametrize("name", ["in.csv", "in.tsv.gz"])
def test_json_lines_by_another_name_are_json_lines(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(LINES.encode()) if name.endswith("gz") else LINES.encode())
    with open_lines(path) as stream:
        assert len(list(json_lines(stream, str(path)))) == 2


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_file_that_is_not_compressed_as_it_says_is_refused_at_once(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"in{suffix}"
    path.write_bytes(LINES.encode())
    with pytest.raises(InputError, match=rf"in\{suffix}:1: [^\n]+\Z"):
        open_lines(path)

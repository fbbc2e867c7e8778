"""Whole commands as people watch them: in a terminal of 80 columns, in a log file, and told to be quiet."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path

import orjson
import pytest
from conftest import TinyModel, TinyTokenizer
from tiny_gguf import write_tiny_gguf

from lalign.cli import terminal
from lalign.cli.run import run

COLUMNS = 80
RECORDS = b"".join(orjson.dumps({"prompt": f"{number}?"}) + b"\n" for number in range(3))


@pytest.fixture
def gguf(tiny_model: TinyModel, tiny_tokenizer: TinyTokenizer, tmp_path: Path) -> Path:
    """A model that is converted at its first start."""
    return write_tiny_gguf(tmp_path / "tiny.gguf", tiny_model("llama"), tiny_tokenizer("chatml"))


def watched(folder: Path, *arguments: object, typed: bytes = b"", shown: bool = False) -> tuple[str, bytes]:
    """What a command has written to a terminal that is its stderr, and to a file that is its stdout.

    typed: what is typed there, where the terminal is its stdin too. shown: the terminal is its stdout too.
    """
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 24, COLUMNS, 0, 0))
    command = [sys.executable, "-m", "lalign", *map(str, arguments)]
    unset = ("COLUMNS", "LINES", "TQDM_DISABLE", "CI")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    environment |= {"LALIGN_CACHE": str(folder / "cache"), "TERM": "xterm-256color"}
    (folder / "in.jsonl").write_bytes(RECORDS)
    with (folder / "out.jsonl").open("wb") as out:
        given = slave if typed else subprocess.DEVNULL
        process = subprocess.Popen(command, stderr=slave, stdout=slave if shown else out, stdin=given, env=environment)
        os.write(master, typed)
        os.close(slave)
        written = b""
        with suppress(OSError):  # which is how a terminal ends
            while part := os.read(master, 1 << 16):
                written += part
        os.close(master)
        assert process.wait() == 0, written
    return written.decode(), (folder / "out.jsonl").read_bytes()


def screen(written: str) -> list[str]:
    """The lines that are left to be seen: each carriage return begins its line anew, over what stands there."""
    lines = []
    for line in re.sub(r"\x1b\[[0-9;]*m", "", written).replace("\r\n", "\n").split("\n"):
        cells: list[str] = []
        for frame in line.split("\r"):
            assert "\x1b" not in frame, "moves of the cursor"
            assert len(frame) < COLUMNS + 1, "a frame that would wrap"
            cells[: len(frame)] = frame
        lines.append("".join(cells).rstrip())
    return lines


def test_a_terminal_shows_one_clean_bar_and_the_summary(gguf: Path, tmp_path: Path) -> None:
    arguments = ("generate", tmp_path / "in.jsonl", "--principle-text", "Be kind.", "--model", gguf)
    watched(tmp_path, *arguments, "--max-new-tokens", 1)  # converts
    written, out = watched(tmp_path, *arguments, "--max-new-tokens", 4)
    bar, *rest = screen(written)
    assert re.fullmatch(r"100%\|█+\| 3/3 \[00:\d\d<00:00, +[\d.]+(rec/s|s/rec), tok/s=[\d.]+, KL=[\d.]+\]", bar), bar
    assert "3 records to stdout" in rest[0]
    assert not [line for line in rest if "%|" in line]
    assert len(out.splitlines()) == 3


def figures(lines: list[str]) -> list[list[str]]:
    """The rows of a table that are figures alone."""
    number = re.compile(r"[-+]?[\d.]+|\[[\d.]+-[\d.]+\]|\d+/\d+|◆|knee")
    rows = [line.split() for line in lines]
    return [row for row in rows if len(row) > 4 and all(map(number.fullmatch, row))]


def test_the_table_of_a_sweep_fits_a_terminal(tiny_folder: Path, tmp_path: Path) -> None:
    points = ("--ratios", "0,0.5,10", "--ps", "1.5,2")
    arguments = ("sweep", tmp_path / "in.jsonl", "--principle-text", "Be kind.", "--model", tiny_folder, *points)
    written, out = watched(tmp_path, *arguments, "--max-new-tokens", 8)
    assert len(out.splitlines()) == 3 * 6
    lines = screen(written)
    (heading,) = [line.split() for line in lines if line.split()[:2] == ["p", "ratio"]]
    assert heading == [
        "p",
        "ratio",
        "length",
        "KL",
        "KL",
        "max",
        "flipped",
        "dist-2",
        "rep-4",
        "lp",
        "base",
        "lp",
        "princ",
    ]
    rows = [row[:10] for row in figures(lines)]
    assert [row[:2] for row in rows] == [[p, ratio] for p in ("1.5", "2") for ratio in ("0", "0.5", "10")]
    assert {len(row) for row in rows} == {10}


def test_the_tables_of_a_bench_fit_a_terminal(tiny_folder: Path, tmp_path: Path) -> None:
    arguments = ("bench", tmp_path / "in.jsonl", "--principle-text", "Be kind.", "--model", tiny_folder)
    written, out = watched(tmp_path, *arguments, "--max-new-tokens", 2, "--repeats", 1, "--batch-sizes", "2")
    found = orjson.loads(out)
    lines = screen(written)
    for one in found["runs"]:
        row, *_ = [line.split() for line in lines if line.split()[:2] == ["2", one["contender"]]]
        assert len(row[2:8]) == 6
        assert all(re.fullmatch(r"[\d.]+|\[[\d.]+-[\d.]+\]", cell) for cell in row[2:8]), row
    for name in found["contenders"]:
        assert any(line.startswith(f"{name} ") for line in lines)


def test_the_prompts_of_a_dry_run_fit_a_terminal(tiny_folder: Path, tmp_path: Path) -> None:
    arguments = ("generate", tmp_path / "in.jsonl", "--principle-text", "Be kind. " * 20, "--model", tiny_folder)
    written, out = watched(tmp_path, *arguments, "--dry-run", 2, shown=True)
    lines = screen(written)
    assert out == b""
    assert [line for line in lines if "in.jsonl:" in line] == [
        f"{tmp_path / 'in.jsonl'}:{number}  id {number}" for number in (1, 2)
    ]
    twins = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    assert twins
    assert {len(row) for row in twins} == {2}
    assert "0?<|im_end|>" in [row[0] for row in twins]
    assert " ".join(row[1] for row in twins).count("kind.") == 2 * 20


def test_who_gives_no_file_is_told_that_records_are_awaited(tiny_folder: Path, tmp_path: Path) -> None:
    arguments = ("generate", "--principle-text", "Be kind.", "--model", tiny_folder, "--max-new-tokens", 2)
    written, out = watched(tmp_path, *arguments, typed=RECORDS + b"\x04")
    assert "lalign: reading records from the terminal, a JSON object a line, up to Ctrl-D" in screen(written)
    assert len(out.splitlines()) == 3


def test_quiet_shows_nothing_not_even_that_a_model_is_converted(gguf: Path, tmp_path: Path) -> None:
    arguments = ("generate", tmp_path / "in.jsonl", "--principle-text", "Be kind.", "--model", gguf, "-q")
    written, out = watched(tmp_path, *arguments, "--max-new-tokens", 4)
    assert written == ""
    assert len(out.splitlines()) == 3
    assert [path.name for path in (tmp_path / "cache").iterdir() if path.is_dir()]


@pytest.mark.parametrize(("quiet", "command"), [((), "generate"), ((), "sweep"), (("-q",), "generate")])
def test_a_log_file_gets_lines(
    quiet: tuple[str, ...],
    command: str,
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One each half minute, which is here as often as there is something new."""
    monkeypatch.setattr(terminal, "LOG_SECONDS", 0.0)
    (tmp_path / "in.jsonl").write_bytes(b"no JSON\n" + RECORDS)
    arguments = ["--principle-text", "Be kind.", "--model", str(tiny_folder), "--max-new-tokens", "2"]
    assert run([command, str(tmp_path / "in.jsonl"), *arguments, *quiet]) == 1
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lalign: ") and " rec" in line]
    assert bool(told) is not bool(quiet)
    for line in told:
        assert re.fullmatch(r"lalign: \d+ s: \d+ of \d+ rec(, [\d.]+ tok/s, [\d.]+ KL)?", line), line
    if told:
        assert (" 4 of 4 rec, " if command == "generate" else " 24 of 24 rec, ") in told[-1]

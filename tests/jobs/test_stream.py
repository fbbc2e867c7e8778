"""Records to a stream: each leaves whole and at once, and a reader that goes away is told from a fault."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lalign.errors import OptionError, OutputError
from lalign.jobs.output import open_output
from lalign.jobs.stream import ClosedPipe, Stream


@pytest.mark.parametrize("path", [None, "-"])
def test_stdout_gets_each_record_at_once(path: str | None, capfd: pytest.CaptureFixture[str]) -> None:
    with open_output(path) as output:
        assert not output.start({"ratio": 3.0}).stands(1)
        output.mark(1, 0xAB)
        output.write(b'{"line":1}\n', line=1)
        assert capfd.readouterr().out == '{"line":1}\n'
        output.sync()
    sys.stdout.write("still open\n")
    assert capfd.readouterr().out == "still open\n"


def test_stdout_in_memory_is_written_to(capsys: pytest.CaptureFixture[str]) -> None:
    with open_output() as output:
        output.write(b'{"line":1}\n', line=1)
    assert capsys.readouterr().out == '{"line":1}\n'


def test_closed_stdout_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(OutputError, match="stdout: is closed"):
        open_output()


def test_a_reader_that_goes_away_is_a_closed_pipe(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    with open_output(fifo) as output:
        output.write(b"1\n", line=1)
        assert os.read(reader, 100) == b"1\n"
        os.close(reader)
        with pytest.raises(ClosedPipe, match="closed by its reader"):
            output.write(b"2\n", line=2)
    assert [path.name for path in tmp_path.iterdir()] == ["fifo"]


def test_after_a_closed_pipe_python_ends_quietly() -> None:
    code = """
from lalign.jobs.output import open_output
from lalign.jobs.stream import ClosedPipe
with open_output() as output:
    input()
    try:
        output.write(b"1", line=1)
    except ClosedPipe:
        raise SystemExit(3)
"""
    command = [sys.executable, "-c", code]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(command, env=buffered, stdin=-1, stdout=-1, stderr=-1) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        child.stdin.write(b"go\n")
        child.stdin.close()
        assert (child.stderr.read(), child.wait()) == (b"", 3)


def test_the_reader_of_a_fifo_sees_its_end(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    with open_output(fifo) as output:
        output.write(b"1\n", line=1)
    assert [os.read(reader, 100), os.read(reader, 100)] == [b"1\n", b""]
    os.close(reader)


def test_a_full_device_is_told() -> None:
    with (
        open_output("/dev/full") as output,
        pytest.raises(OutputError, match=r"^/dev/full: No space left on device$") as failure,
    ):
        output.write(b"1\n", line=1)
    assert not isinstance(failure.value, ClosedPipe)


def test_the_null_device_needs_no_overwrite() -> None:
    with open_output("/dev/null") as output:
        output.write(b"1\n", line=1)
    assert not Path("/dev/null.lock").exists()


@pytest.mark.parametrize("path", [None, "/dev/null"])
def test_a_stream_cannot_be_resumed(path: str | None) -> None:
    with pytest.raises(OptionError, match="resume: needs an output file, not a stream"):
        open_output(path, resume=True)


def test_a_pipe_made_non_blocking_gets_whole_records() -> None:
    source, sink = os.pipe()
    os.set_blocking(sink, False)
    received = bytearray()
    record = b"x" * 500_000 + b"\n"  # more than a pipe holds

    def read() -> None:
        while part := os.read(source, 1 << 16):
            received.extend(part)

    reader = threading.Thread(target=read)
    reader.start()
    with Stream(io.FileIO(sink, "w"), "pipe", owned=True) as output:
        output.write(record, line=1)
        output.write(record, line=2)
    reader.join()
    os.close(source)
    assert received == record * 2

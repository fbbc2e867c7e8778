"""A job is killed, interrupted, run out of room and out of its files: nothing finished is lost or done twice.

`LALIGN_KILLS` sets how often a job is killed (8 times by default).
"""

from __future__ import annotations

import fcntl
import gzip
import os
import pty
import random
import re
import resource
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import orjson
import pytest
from conftest import Lalign, Pipe

from lalign.records.source import zstd

KILLS = int(os.environ.get("LALIGN_KILLS", "8"))
LINES = 25 * KILLS
PROGRAM = [sys.executable, "-m", "lalign"]
# Outputs are compared without statistics, whose last digits depend on which records share a batch.
OPTIONS = ("--batch-size", 4, "--stats", "none")
FILES = ("in.jsonl", "-o", "out.jsonl")


def prompt(number: int) -> bytes:
    """A line of input; of every eleventh the prompt is blank."""
    text = "" if number % 11 == 0 else f"{'word ' * (number % 5)}{number}?"
    return orjson.dumps({"id": f"n{number}", "prompt": text}) + b"\n"


def prompts(count: int) -> bytes:
    return b"".join(map(prompt, range(1, count + 1)))


def last_line(errors: str) -> str:
    return errors.splitlines()[-1]


@pytest.fixture
def output(lalign: Lalign) -> Path:
    """Where a job writes; what it reads is beside it."""
    (lalign.folder / "in.jsonl").write_bytes(prompts(LINES))
    return lalign.folder / "out.jsonl"


@pytest.fixture(scope="session")
def uninterrupted(forks: socket.socket, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What the job writes when it is let be."""
    alone = Lalign(forks, tmp_path_factory.mktemp("uninterrupted"), tiny_folder)
    (alone.folder / "in.jsonl").write_bytes(prompts(LINES))
    return alone.generate(*OPTIONS, "in.jsonl").out


class Running:
    """A command that runs while a test goes on."""

    def __init__(
        self,
        lalign: Lalign,
        *arguments: object,
        stdin: IO[bytes] | None = None,
        stdout: IO[bytes] | None = None,
        errors: str = "errors.txt",
    ) -> None:
        self.lalign = lalign
        self.errors = lalign.folder / errors
        with open(os.devnull, "r+b") as nothing, self.errors.open("wb") as stderr:
            self.process = lalign.start(*arguments, stdin=stdin or nothing, stdout=stdout or nothing, stderr=stderr)

    def until(self, reached: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 120
        while not reached():
            assert time.monotonic() < deadline, self.errors.read_text()
            time.sleep(0.001)

    def send(self, number: int) -> None:
        os.kill(self.process, number)

    def has_ended(self) -> bool:
        """Whether it is over, though not yet waited for."""
        return b") Z " in Path(f"/proc/{self.process}/stat").read_bytes()

    def end(self) -> tuple[int, str]:
        """Its exit status and what it said, once it has ended."""
        return self.lalign.wait(self.process), self.errors.read_text()


def lines(path: Path) -> int:
    try:
        return path.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


class TestKills:
    def moments(self, seed: int) -> list[tuple[int, float]]:
        """Moments over the time in which records are written: after how many lines, and how many seconds more."""
        chance = random.Random(seed)
        return [(chance.randrange(LINES), chance.choice([0, chance.uniform(0, 0.05)])) for _ in range(KILLS)]

    def kill(self, lalign: Lalign, arguments: list[Any], output: Path, number: int, moment: tuple[int, float]) -> Any:
        job = Running(lalign, *arguments)
        job.until(lambda: lines(output) >= moment[0])
        time.sleep(moment[1])
        job.send(number)
        return job.end()

    def test_killed_dead_and_resumed_until_it_is_done(
        self, lalign: Lalign, uninterrupted: bytes, output: Path, record_property: Callable[[str, object], None]
    ) -> None:
        arguments = ["generate", *lalign.tiny, *OPTIONS, *FILES, "--resume"]
        killed = 0
        for moment in sorted(self.moments(seed=1)):
            status, errors = self.kill(lalign, arguments, output, signal.SIGKILL, moment)
            assert status in (-signal.SIGKILL, 1), errors
            killed += status != 1
            # A line may be torn, and is then the last; the others are those wanted, none missing and none twice.
            assert uninterrupted.startswith(output.read_bytes() if output.exists() else b"")
        assert lalign(*arguments).status == 1  # blank prompts are among the lines
        assert output.read_bytes() == uninterrupted
        assert {path.name for path in output.parent.glob("out*")} == {"out.jsonl", "out.jsonl.run.json"}
        record_property("killed", killed)
        assert killed >= KILLS // 4  # or it would have shown little

    def test_terminated_and_resumed_with_the_command_it_names_until_it_is_done(
        self, lalign: Lalign, uninterrupted: bytes, output: Path, record_property: Callable[[str, object], None]
    ) -> None:
        arguments: list[Any] = ["generate", *lalign.tiny, *OPTIONS, *FILES]
        terminated = 0
        for moment in sorted(self.moments(seed=2)):
            status, errors = self.kill(lalign, arguments, output, signal.SIGTERM, moment)
            assert status in (143, -signal.SIGTERM, 1), errors  # before the job runs, the signal does as ever
            assert "Traceback" not in errors
            if output.exists():
                assert uninterrupted.startswith(output.read_bytes())
                assert output.read_bytes().endswith(b"\n")
            if status == 143:
                terminated += 1
                named = re.fullmatch(r"lalign: interrupted; resume with: lalign (.*)", last_line(errors))
                assert named is not None, errors
                arguments = shlex.split(named[1])
        assert lalign(*arguments).status == 1
        assert output.read_bytes() == uninterrupted
        record_property("terminated", terminated)
        assert terminated >= KILLS // 4

    @pytest.mark.skipif(sys.platform != "linux", reason="looks whether a process has ended")
    def test_killed_dead_while_lines_are_redone_and_resumed_until_it_is_done(
        self, lalign: Lalign, uninterrupted: bytes, output: Path, record_property: Callable[[str, object], None]
    ) -> None:
        """Two thirds of the lines could not be used; they are corrected, and others come after them."""
        whole = prompts(LINES).splitlines(keepends=True)
        spoilt = [raw if number % 3 == 0 else b"{}\n" for number, raw in enumerate(whole[: LINES // 2], 1)]
        output.with_name("in.jsonl").write_bytes(b"".join(spoilt))
        assert lalign.generate(*OPTIONS, *FILES, "--quiet").status == 1
        old = output.read_bytes().splitlines()
        output.with_name("in.jsonl").write_bytes(b"".join(whole))
        new = uninterrupted.splitlines()

        def redone() -> int:
            try:
                kept = output.read_bytes().splitlines()
            except FileNotFoundError:
                return 0
            return sum(raw == wanted for raw, wanted in zip(kept, new, strict=False))

        waiting = output.with_name("out.jsonl.retry")
        arguments = ["generate", *lalign.tiny, *OPTIONS, *FILES, "--resume", "--retry-errors", "--quiet"]
        killed, merged, best = 0, 0, redone()
        for count, pause in sorted(self.moments(seed=3)):
            job = Running(lalign, *arguments)
            job.until(lambda: job.has_ended() or redone() + lines(waiting) // 2 >= count)  # noqa: B023
            time.sleep(pause)
            job.send(signal.SIGKILL)
            status, errors = job.end()
            assert status in (-signal.SIGKILL, 1), errors
            killed += status != 1
            merged += waiting.exists()
            kept = output.read_bytes().splitlines()
            # Of each line there is what was there, or what was wanted; a line may be torn, and is then the last.
            assert all(raw in pair for raw, *pair in zip(kept[: len(old)], old, new, strict=False))
            later = zip(kept[len(old) :], new[len(old) :], strict=False)
            assert all(wanted.startswith(raw) for raw, wanted in later)
            assert redone() >= best
            best = redone()
        assert lalign(*arguments).status == 1
        assert output.read_bytes() == uninterrupted
        assert {path.name for path in output.parent.glob("out*")} == {"out.jsonl", "out.jsonl.run.json"}
        record_property("killed", killed)
        record_property("killed while redone lines waited", merged)
        assert killed >= KILLS // 4
        assert merged >= KILLS // 8  # killed while redone lines were waiting

    def test_an_interrupt_ends_it_in_good_order(self, lalign: Lalign, uninterrupted: bytes, output: Path) -> None:
        """`--overwrite`, which would begin anew, is not in the command that it names."""
        output.write_bytes(b"of another day\n")
        arguments = ["generate", *lalign.tiny, *OPTIONS, *FILES, "--overwrite"]
        status, errors = self.kill(lalign, arguments, output, signal.SIGINT, (2, 0))
        assert status == 130
        command = shlex.join([str(word) for word in arguments[:-1]])
        assert last_line(errors) == f"lalign: interrupted; resume with: lalign {command} --resume"
        assert uninterrupted.startswith(output.read_bytes())
        assert lalign(*arguments[:-1], "--resume").status == 1
        assert output.read_bytes() == uninterrupted

    def test_an_interrupted_sweep_resumes_with_its_plot(self, lalign: Lalign, output: Path) -> None:
        """Which is drawn at the end, over what was to be overwritten."""
        plot = output.with_name("plot.html")
        plot.write_text("of another day")
        options = ("--ratios", "0:1", "--plot", "plot.html", "--overwrite")
        status, errors = self.kill(lalign, ["sweep", *lalign.tiny, *FILES, *options], output, signal.SIGINT, (2, 0))
        assert (status, plot.read_text()) == (130, "of another day")
        command = shlex.split(last_line(errors).removeprefix("lalign: interrupted; resume with: lalign "))
        assert lalign(*command).status == 1
        assert "of another day" not in plot.read_text()
        assert {orjson.loads(raw)["line"] for raw in output.read_bytes().splitlines()} == set(range(1, LINES + 1))

    @pytest.mark.skipif(sys.platform != "linux", reason="needs a small pipe")
    def test_a_second_interrupt_ends_it_at_once(self, lalign: Lalign, output: Path) -> None:
        """Even in the middle of a record that cannot be written, since nobody reads."""
        with Pipe() as stdout:
            room = fcntl.fcntl(stdout.writer, fcntl.F_SETPIPE_SZ, 4096)
            job = Running(lalign, "generate", *lalign.tiny, "in.jsonl", "--max-new-tokens", 60, stdout=stdout.writer)
            stdout.writer.close()
            job.until(lambda: waiting(stdout.reader) == room)
            job.send(signal.SIGINT)

            def is_left_or_interrupted_again() -> bool:
                if not (left := is_left(stdout.reader)):
                    job.send(signal.SIGINT)
                return left

            job.until(is_left_or_interrupted_again)
            assert job.end() == (130, "")

    @pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
    def test_a_signal_ends_the_wait_for_input(self, lalign: Lalign, number: int, status: int) -> None:
        """In full, as a thread that waits for stdin is in Python's way when it ends."""
        command = [*PROGRAM, "generate", *map(str, lalign.tiny), "--quiet"]
        with subprocess.Popen(command, cwd=lalign.folder, stdin=-1, stdout=-1, stderr=-1) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdin.write(prompt(1))
            process.stdin.flush()
            assert orjson.loads(process.stdout.readline())["id"] == "n1"
            process.send_signal(number)
            assert process.stderr.read() == b"lalign: interrupted\n"
            assert process.wait() == status


def waiting(pipe: IO[bytes]) -> int:
    """How many bytes are in a pipe."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def is_left(pipe: IO[bytes]) -> bool:
    """Whether nobody has a pipe open for writing any more."""
    poll = select.poll()
    poll.register(pipe, 0)
    return any(event & select.POLLHUP for _, event in poll.poll(0))


class TestOutput:
    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
    def test_a_full_device(self, lalign: Lalign, output: Path) -> None:
        with open("/dev/full", "wb") as full:
            redirected = lalign.generate("in.jsonl", "--quiet", stdout=full)
        assert (redirected.status, redirected.err) == (1, "lalign: stdout: No space left on device\n")
        named = lalign.generate("in.jsonl", "--quiet", "-o", "/dev/full")
        assert (named.status, named.err) == (1, "lalign: /dev/full: No space left on device\n")

    @pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs to limit another process")
    def test_a_disk_that_fills_up(self, lalign: Lalign, uninterrupted: bytes, output: Path) -> None:
        """Whole lines stay, and once there is room again the job goes on. Here no file grows beyond half the output."""
        room = len(uninterrupted) // 2
        arguments = ("generate", *lalign.tiny, *OPTIONS, *FILES)
        job = Running(lalign, *arguments, "--quiet")
        resource.prlimit(job.process, resource.RLIMIT_FSIZE, (room, room))
        status, errors = job.end()
        written = uninterrupted[: uninterrupted.rindex(b"\n", 0, room) + 1]
        assert output.read_bytes() == written
        assert status == 1
        safe = written.count(b"\n")
        assert last_line(errors) == f"lalign: out.jsonl: File too large ({safe} records are safe)"
        assert errors.count("out.jsonl") == 1
        assert lalign(*arguments, "--resume").status == 1
        assert output.read_bytes() == uninterrupted

    @pytest.mark.skipif(not Path("/sys").is_dir(), reason="needs a folder where root cannot write either")
    def test_a_folder_where_nothing_can_be_written(self, lalign: Lalign, output: Path) -> None:
        finished = lalign.generate("in.jsonl", "-o", "/sys/out.jsonl", "--model", "/nonexistent")
        assert finished.status == 2
        assert re.fullmatch(r"lalign: /sys/out\.jsonl: (Permission denied|Read-only file system)\n", finished.err)

    def test_a_folder_that_vanishes(self, lalign: Lalign) -> None:
        """The job would write into a file that has no name any more; it says so, once."""
        folder = lalign.folder / "folder"
        folder.mkdir()
        with Pipe() as stdin:
            job = Running(lalign, "generate", *lalign.tiny, "-o", "folder/out.jsonl", "--quiet", stdin=stdin.reader)
            stdin.writer.write(prompts(3))
            job.until(lambda: lines(folder / "out.jsonl") == 3)
            shutil.rmtree(folder)
            stdin.writer.close()
            status, errors = job.end()
        assert status == 1
        assert errors == "lalign: folder/out.jsonl: was moved or deleted while the job wrote it\n"

    def test_a_fifo_that_is_closed_early(self, lalign: Lalign, output: Path) -> None:
        """As `| head -1`, into a FIFO: the job ends with its reader, and has nothing to say."""
        fifo = lalign.folder / "fifo"
        os.mkfifo(fifo)
        job = Running(lalign, "generate", *lalign.tiny, "in.jsonl", "-o", "fifo")
        with fifo.open("rb") as reader:
            assert orjson.loads(reader.readline())["id"] == "n1"
        assert job.end() == (0, "")

    def test_a_pipe_that_is_closed_early(self, lalign: Lalign, output: Path) -> None:
        """In full, as Python has its own say when it ends with a closed stdout."""
        output.with_name("in.jsonl").write_bytes(prompt(1) * LINES)  # none of which has anything to be said of
        words = map(shlex.quote, [*PROGRAM, "generate", *map(str, lalign.tiny), "in.jsonl"])
        shell = f"({' '.join(words)}; echo $? >&2) | head -1"
        finished = subprocess.run(["sh", "-c", shell], cwd=lalign.folder, capture_output=True)
        assert orjson.loads(finished.stdout)["id"] == "n1"
        assert finished.stderr == b"0\n"

    def test_a_second_job_on_one_output_is_refused(self, lalign: Lalign, output: Path) -> None:
        with Pipe() as stdin:
            first = Running(lalign, "generate", *lalign.tiny, "-o", "out.jsonl", "--quiet", stdin=stdin.reader)
            stdin.writer.write(prompts(2))
            first.until(lambda: lines(output) == 2)
            for option in ("--resume", "--overwrite"):
                second = lalign.generate(*FILES, option, "--model", "/nonexistent")
                assert second.status == 2
                assert second.err == "lalign: out.jsonl: is being written by another lalign job\n"
            stdin.writer.close()
            assert first.end() == (0, "")
        assert lines(output) == 2

    def test_one_that_is_emptied_by_another_process_is_told(self, lalign: Lalign, output: Path) -> None:
        with Pipe() as stdin:
            job = Running(lalign, "generate", *lalign.tiny, "-o", "out.jsonl", stdin=stdin.reader)
            stdin.writer.write(prompts(3))
            job.until(lambda: lines(output) == 3)
            os.truncate(output, 0)
            stdin.writer.close()
            status, errors = job.end()
        assert status == 1
        assert "lalign: out.jsonl: was changed by another process while the job wrote it\n" in errors

    def test_a_job_begun_anew_while_the_first_still_ends(self, lalign: Lalign, output: Path) -> None:
        """Whoever removed its output and its lock finds the whole of the second, and the first says what it lost."""
        with Pipe() as stdin, Pipe() as other:
            arguments = ("generate", *lalign.tiny, *OPTIONS, "-o", "out.jsonl", "--quiet")
            first = Running(lalign, *arguments, stdin=stdin.reader)
            stdin.writer.write(prompts(4))
            first.until(lambda: lines(output) == 4)
            for path in output.parent.glob("out.jsonl*"):
                path.unlink()
            second = Running(lalign, *arguments, stdin=other.reader, errors="second.txt")
            other.writer.write(prompts(4))
            second.until(lambda: lines(output) == 4)
            stdin.writer.close()
            assert first.end() == (1, "lalign: out.jsonl: was moved or deleted while the job wrote it\n")
            third = lalign.generate("in.jsonl", "-o", "out.jsonl", "--overwrite")
            assert third.err == "lalign: out.jsonl: is being written by another lalign job\n"
            other.writer.write(b"".join(prompts(9).splitlines(keepends=True)[4:]))
            other.writer.close()
            assert second.end() == (0, "")
        assert [orjson.loads(raw)["id"] for raw in output.read_bytes().splitlines()] == [f"n{n}" for n in range(1, 10)]
        assert {path.name for path in output.parent.glob("out*")} == {"out.jsonl", "out.jsonl.run.json"}


class TestStderr:
    """What cannot be said ends no job, and changes no status."""

    @pytest.mark.parametrize("kind", ["full", "gone", "hung up"])
    def test_one_that_breaks(self, lalign: Lalign, uninterrupted: bytes, output: Path, kind: str) -> None:
        with open(os.devnull, "r+b") as nothing, broken(kind) as stderr:

            def run(*arguments: object) -> int:
                given = ("generate", *lalign.tiny, *OPTIONS, *arguments)
                return lalign.wait(lalign.start(*given, stdin=nothing, stdout=nothing, stderr=stderr))

            assert run(*FILES) == 1  # as blank prompts are among the lines
            assert output.read_bytes() == uninterrupted
            assert run("in.jsonl", "--limit", 3) == 0
            assert run("in.jsonl", "--ratio", -1) == 2

    @pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-"])
    def test_in_full_as_python_has_its_own_say_when_it_ends(self, lalign: Lalign, redirection: str) -> None:
        words = [*PROGRAM, "generate", *map(str, lalign.tiny), "-o", "out.jsonl"]
        command = f"printf '%s' '{prompts(2).decode()}' | {shlex.join(words)} {redirection}"
        finished = subprocess.run(["sh", "-c", command], cwd=lalign.folder, capture_output=True)
        assert (finished.returncode, finished.stdout, finished.stderr) == (0, b"", b"")
        assert lines(lalign.folder / "out.jsonl") == 2


@contextmanager
def broken(kind: str) -> Iterator[IO[bytes]]:
    """A stderr that cannot be written to: a full device, a pipe or a terminal whose other end is gone."""
    if kind == "full":
        end = os.open("/dev/full", os.O_WRONLY)
    else:
        other, end = os.pipe() if kind == "gone" else pty.openpty()
        os.close(other)
    with open(end, "wb", buffering=0) as stderr:
        yield stderr


class TestInput:
    @pytest.mark.parametrize("suffix", [".gz", ".zst"])
    def test_one_that_was_cut_short(self, lalign: Lalign, uninterrupted: bytes, output: Path, suffix: str) -> None:
        """All before the cut is answered; once the rest is there the job goes on."""
        whole = gzip.compress(prompts(LINES)) if suffix == ".gz" else zstd.compress(prompts(LINES))
        source = output.with_name(f"in.jsonl{suffix}")
        source.write_bytes(whole[: len(whole) // 2])
        arguments = (*OPTIONS, source.name, "-o", "out.jsonl", "--quiet")
        finished = lalign.generate(*arguments)
        assert finished.status == 1
        told = re.fullmatch(rf"lalign: in\.jsonl\{suffix}:(\d+): .*(ended|cut short).*", last_line(finished.err))
        assert told is not None, finished.err
        assert lines(output) == int(told[1]) - 1
        assert uninterrupted.startswith(output.read_bytes())
        source.write_bytes(whole)
        assert lalign.generate(*arguments, "--resume").status == 1
        assert output.read_bytes() == uninterrupted

    def test_one_that_grows_at_its_end(self, lalign: Lalign, uninterrupted: bytes, output: Path) -> None:
        source = output.with_name("in.jsonl")
        source.write_bytes(prompts(5))
        assert lalign.generate(*OPTIONS, *FILES).status == 0
        source.write_bytes(prompts(LINES))
        assert lalign.generate(*OPTIONS, *FILES, "--resume").status == 1
        assert output.read_bytes() == uninterrupted

    def test_one_that_changed_above_is_refused(self, lalign: Lalign, output: Path) -> None:
        source = output.with_name("in.jsonl")
        source.write_bytes(prompts(5))
        assert lalign.generate(*OPTIONS, *FILES).status == 0
        before = output.read_bytes()
        source.write_bytes(prompt(77) + prompts(9))
        finished = lalign.generate(*OPTIONS, *FILES, "--resume", "--quiet")
        assert finished.status == 1
        assert finished.err == "lalign: the first 5 lines of the input are not those the output answers\n"
        assert output.read_bytes() == before

    def test_other_settings_are_refused(self, lalign: Lalign, output: Path) -> None:
        output.with_name("in.jsonl").write_bytes(prompts(5))
        lalign.generate(*OPTIONS, *FILES)
        finished = lalign.generate(*OPTIONS, *FILES, "--resume", "--ratio", 2, "--seed", 7)
        assert finished.status == 2
        assert finished.err == (
            "lalign: out.jsonl: was made with other settings (seed: 0 in the output, 7 now; "
            "ratio: 1.5 in the output, 2.0 now); --force resumes it all the same\n"
        )
        assert lalign.generate(*OPTIONS, *FILES, "--resume", "--ratio", 2, "--seed", 7, "--force").status == 0

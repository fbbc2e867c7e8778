"""What people see on stderr: nothing that commands the terminal, and progress only where there is one."""

from __future__ import annotations

import fcntl
import io
import os
import re
import struct
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table

from lalign.__main__ import _quiet_bars
from lalign.cli.terminal import NAMED_FAILURES, Progress, protect_stderr, say, show, summary
from lalign.jobs.tally import Tally
from lalign.method.linear_alignment import Alignment
from lalign.results import Failure, Result, Usage
from lalign.text import printable

HOSTILE = "\x1b[2J[red]\u202e\x07\r\n"
HARMLESS = r"\x1b[2J[red]\u202e\x07\r\n"


def result(line: int, tokens: int = 10) -> Result:
    statistics = {"kl_aligned_base_sum": 2.5 * tokens, "flipped_share": 0.5}
    return Result(line, line, "Hi", "length", Usage(5, 3, tokens), Alignment(), summary=statistics)


def failure(line: int, message: str = "prompt: must not be blank") -> Failure:
    return Failure(line, line, "empty_prompt", message)


def tally(*outcomes: Result | Failure) -> Tally:
    counted = Tally()
    for outcome in outcomes:
        counted.count(outcome)
    return counted


class TestPrintable:
    @given(st.text())
    def test_what_comes_out_prints_as_itself(self, text: str) -> None:
        assert printable(text).isprintable()

    @given(st.text(st.characters(categories=["L", "N", "P", "S"])))
    def test_what_prints_stays_as_it_is(self, text: str) -> None:
        assert printable(text) == text

    @given(st.text(st.characters(categories=["Cc", "Cf", "Cs", "Zl", "Zp"]), min_size=1))
    def test_what_a_terminal_would_act_on_is_escaped(self, text: str) -> None:
        assert re.fullmatch(r"(\\(x..|u....|U.{8}|[tnr]))+", printable(text))

    def test_an_example(self) -> None:
        assert printable(HOSTILE) == HARMLESS

    def test_a_message_is_one_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        say(f"out{HOSTILE}.jsonl")
        captured = capsys.readouterr()
        assert (captured.out, captured.err) == ("", f"lalign: out{HARMLESS}.jsonl\n")


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Makes stderr a terminal of 80 columns; what it has shown stands in the list once it is left."""
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    shown: list[str] = []
    with open(slave, "w") as stderr, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stderr)
        yield shown
    with suppress(OSError):  # which is how a terminal ends
        while part := os.read(master, 1 << 16):
            shown.append(part.decode())
    os.close(master)


class Broken(io.StringIO):
    """Takes `room` characters, then raises."""

    def __init__(self, room: int, error: Exception) -> None:
        super().__init__()
        self.room = room
        self.error = error

    def write(self, text: str) -> int:
        if self.tell() + len(text) > self.room:
            raise self.error
        return super().write(text)


class TestUnfailing:
    @pytest.mark.parametrize("error", [OSError(28, "No space left"), BrokenPipeError(), ValueError("closed file")])
    def test_what_cannot_be_written_is_dropped(self, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
        broken = Broken(20, error)
        monkeypatch.setattr(sys, "stderr", broken)
        protect_stderr()
        say("first")
        with Progress(None, quiet=False, source="in.jsonl") as bar:
            bar.update([failure(1)], Tally())
        show(summary(Tally(), 1.0, "stdout"))
        print("by a library", file=sys.stderr, flush=True)  # noqa: T201
        assert broken.getvalue() == "lalign: first\n"

    def test_a_stderr_that_cannot_be_flushed_is_dropped(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with open("/dev/full", "w") as full:
            monkeypatch.setattr(sys, "stderr", full)
            protect_stderr()
            say("first")
            say("second")
            with suppress(OSError):
                full.close()

    def test_without_a_stderr_all_is_dropped(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stderr", None)
        protect_stderr()
        say("first")
        assert not sys.stderr.isatty()

    def test_a_terminal_stays_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with terminal(monkeypatch) as shown:
            protect_stderr()
            assert sys.stderr.isatty()
            say("é")
        assert "é" in "".join(shown)


class TestProgress:
    def test_where_stderr_is_no_terminal_it_is_silent(self, capsys: pytest.CaptureFixture[str]) -> None:
        with Progress(2, quiet=False, source="in.jsonl") as bar:
            bar.note("model")
            bar.update([result(1)], tally(result(1)))
            bar.update([result(2)], tally(result(1), result(2)))
        captured = capsys.readouterr()
        assert (captured.out, captured.err) == ("", "")

    def test_where_stderr_is_no_terminal_a_line_comes_every_half_minute(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        now = 0.0
        with Progress(4, quiet=False, source="in.jsonl", clock=lambda: now) as bar:
            for outcome, seconds in enumerate((29.0, 31.0, 60.0, 62.0), 1):
                now = seconds
                bar.update([result(outcome)], tally(*map(result, range(1, outcome + 1))))
        assert capsys.readouterr().err.splitlines() == [
            "lalign: 31 s: 2 of 4 rec, 0.6 tok/s, 2.500 KL",
            "lalign: 62 s: 4 of 4 rec, 0.6 tok/s, 2.500 KL",
        ]

    def test_where_stderr_is_no_terminal_what_is_being_done_comes_as_often(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        now = 0.0
        with Progress(None, quiet=False, source="bench", clock=lambda: now) as bar:
            now = 40.0
            bar.note(HOSTILE)
            bar.reach(3, 8)
        assert capsys.readouterr().err == f"lalign: 40 s: 0 rec, {HARMLESS}\n"

    def test_where_stderr_is_no_terminal_what_is_counted_comes_as_often(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        now = 0.0
        with Progress(None, quiet=False, source="score", clock=lambda: now) as bar:
            for seconds in (1.0, 31.0, 32.0):
                now = seconds
                bar.count(1)
        assert capsys.readouterr().err == "lalign: 31 s: 2 rec\n"

    def test_quiet_is_quiet_in_a_log_too(self, capsys: pytest.CaptureFixture[str]) -> None:
        now = 0.0
        with Progress(4, quiet=True, source="in.jsonl", clock=lambda: now) as bar:
            now = 99.0
            bar.update([result(1)], tally(result(1)))
        assert capsys.readouterr().err == ""

    @pytest.mark.parametrize(
        ("words", "disabled"),
        [(["generate", "--quiet"], True), (["generate", "-q"], True), (["generate", "q.jsonl", "--seed", "1"], False)],
    )
    def test_bars_of_libraries_are_kept_from_who_wants_quiet(
        self, monkeypatch: pytest.MonkeyPatch, words: list[str], disabled: bool
    ) -> None:
        monkeypatch.setenv("TQDM_DISABLE", "")  # so that it is as it was afterwards
        monkeypatch.delenv("TQDM_DISABLE")
        with terminal(monkeypatch):
            _quiet_bars(words)
        assert ("TQDM_DISABLE" in os.environ) == disabled

    def test_a_terminal_shows_records_of_the_total_and_mean_divergence(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with terminal(monkeypatch) as shown, Progress(4, quiet=False, source="in.jsonl") as bar:
            bar.update([result(1)], tally(result(1)))
        text = "".join(shown)
        assert "1/4" in text
        assert "KL=2.500" in text
        assert "tok/s=" in text

    @pytest.mark.parametrize("quiet", [False, True])
    def test_lines_that_failed_are_named_in_any_case(self, capsys: pytest.CaptureFixture[str], quiet: bool) -> None:
        with Progress(None, quiet=quiet, source=f"in{HOSTILE}.jsonl") as bar:
            bar.update([result(1), failure(2, f"role: not {HOSTILE}")], Tally())
        captured = capsys.readouterr()
        assert (captured.out, captured.err) == ("", f"lalign: in{HARMLESS}.jsonl:2: role: not {HARMLESS}\n")

    def test_of_very_many_failures_the_first_are_named(self, capsys: pytest.CaptureFixture[str]) -> None:
        with Progress(None, quiet=False, source="in.jsonl") as bar:
            for line in range(1, 100):
                bar.update([failure(line)], Tally())
        *named, last = capsys.readouterr().err.splitlines()
        assert len(named) == NAMED_FAILURES
        assert named[-1] == f"lalign: in.jsonl:{NAMED_FAILURES}: prompt: must not be blank"
        assert last == "lalign: more lines failed; each has an error record in the output"

    def test_a_batch_that_was_halved_is_told_once(self, capsys: pytest.CaptureFixture[str]) -> None:
        with Progress(None, quiet=True, source="in.jsonl") as bar:
            for halvings in (0, 1, 2):
                bar.update([], Tally(batch_halvings=halvings))
        told = "lalign: out of memory: the batch is halved, and what was in flight begun again\n"
        assert capsys.readouterr().err == told

    def test_what_is_being_done_cannot_command_the_terminal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with terminal(monkeypatch) as shown, Progress(None, quiet=False, source="bench") as bar:
            bar.note(HOSTILE)
            bar.write(HOSTILE)
        text = "".join(shown)
        assert text.count(HARMLESS) >= 2
        assert "\x1b[2J" not in text


class TestSummary:
    def shown(self, table: Table) -> list[str]:
        console = Console(width=80, file=io.StringIO())
        console.print(table)
        assert isinstance(console.file, io.StringIO)
        return [line.rstrip() for line in console.file.getvalue().splitlines()]

    def test_in_eighty_columns(self) -> None:
        counted = tally(result(1, 100), result(2, 20), failure(3))
        counted.skipped = 7
        assert self.shown(summary(counted, 8.0, "out.jsonl")) == [
            "         answered  2 records to out.jsonl",
            "    stood already  7 lines",
            "           failed  1 (error records in their place)",
            "             time  8.0 s, 120 tokens, 15.0 tokens/s",
            "KL(aligned||base)  2.500 nats per token",
            "          flipped  50.0 % of tokens",
        ]

    @pytest.mark.parametrize(("halvings", "times"), [(1, "once"), (2, "2 times")])
    def test_it_tells_of_a_batch_that_was_halved(self, halvings: int, times: str) -> None:
        shown = self.shown(summary(Tally(batch_halvings=halvings), 1.0, "stdout"))
        assert shown[1] == f"batch halved  {times}, for want of memory"

    def test_it_tells_of_pairs_that_came_apart(self) -> None:
        shown = self.shown(summary(Tally(pairs_parted=3), 1.0, "stdout"))
        assert shown[1] == "begun anew  3, since the engine did not run their twins together"

    def test_of_nothing_there_is_little_to_say(self) -> None:
        answered, time = self.shown(summary(Tally(), 0.0, "stdout"))
        assert answered.split() == ["answered", "0", "records", "to", "stdout"]
        assert time.split()[:3] == ["time", "0.0", "s,"]

    def test_one_record_is_one_record(self) -> None:
        assert "1 record to stdout" in self.shown(summary(tally(result(1)), 1.0, "stdout"))[0]

    def test_the_name_of_a_file_is_shown_as_it_is(self) -> None:
        assert f"to {HARMLESS}.jsonl" in self.shown(summary(Tally(), 1.0, f"{HOSTILE}.jsonl"))[0]

    def test_a_long_name_of_a_file_is_folded(self) -> None:
        lines = self.shown(summary(Tally(), 1.0, "folder/" * 30 + "out.jsonl"))
        assert all(len(line) <= 80 for line in lines)
        assert "".join("".join(lines).split()).count("folder/") == 30

    def test_it_goes_to_stderr(self, capsys: pytest.CaptureFixture[str]) -> None:
        show(summary(Tally(), 1.0, "stdout"))
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "0 records to stdout" in captured.err

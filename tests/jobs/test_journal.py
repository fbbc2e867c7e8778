"""Records to a file: nothing finished is lost or doubled, whatever moment a job is killed at."""

from __future__ import annotations

import io
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from array import array
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lalign.errors import OptionError, OutputError
from lalign.jobs.header import InputMark, read_header
from lalign.jobs.output import Output, open_output
from lalign.jobs.resume import merge_redone, seal

SETTINGS = {"ratio": 3.0, "seed": 0}
EXAMPLES = max(20, int(os.environ.get("LALIGN_FUZZ_EXAMPLES", "2000")) // 40)

Lines = dict[int, list[bytes]]


class Killed(Exception):
    """Stands in for whatever ends a job early."""


def record(line: int, item: int = 0, *, failed: bool = False) -> bytes:
    content: dict[str, Any] = {"id": line, "line": line, "item": item, "alignment": {}}
    content["error" if failed else "response"] = {} if failed else "é" * line
    return orjson.dumps(content) + b"\n"


def lines(*numbers: int, items: int = 1, failed: tuple[int, ...] = ()) -> Lines:
    """Each line's records, the last of those in `failed` an error."""
    return {n: [record(n, item, failed=n in failed and item == items - 1) for item in range(items)] for n in numbers}


def whole(work: Lines) -> bytes:
    return b"".join(raw for group in work.values() for raw in group)


def answer(journal: Output, work: Lines, stop: int = -1, **started: Any) -> int:
    """What a job does: reads every line, skips what stands and writes the rest, `stop` records at most."""
    resumed = journal.start(SETTINGS | started, max((len(group) for group in work.values()), default=1))
    written = 0
    for line, group in work.items():
        journal.mark(line, 1000 + line)
        for item, raw in enumerate(group):
            if resumed.stands(line, item):
                continue
            if written == stop:
                raise Killed
            journal.write(raw, line=line, last=item == len(group) - 1, failed=b'"error"' in raw)
            written += 1
    return written


def run(output: Path, work: Lines, stop: int = -1, started: dict[str, Any] | None = None, **options: Any) -> int:
    with open_output(output, **options) as journal:
        return answer(journal, work, stop, **(started or {}))


def killed(output: Path, work: Lines, stop: int, **options: Any) -> None:
    """Leaves the folder as it is in the middle of a job: what kill -9 leaves."""
    with tempfile.TemporaryDirectory() as alive:
        shutil.copytree(output.parent, alive, dirs_exist_ok=True)
        with suppress(Killed), open_output(Path(alive, output.name), **options) as journal:
            try:
                answer(journal, work, stop)
            finally:
                shutil.rmtree(output.parent)
                shutil.copytree(alive, output.parent)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def output(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder / "out.jsonl"


class TestOpening:
    def test_a_job_leaves_its_records_and_a_header(self, output: Path) -> None:
        assert run(output, lines(1, 2, 3)) == 3
        assert output.read_bytes() == whole(lines(1, 2, 3))
        header = read_header(output)
        assert header is not None
        assert (header.fingerprint, header.input) == (SETTINGS, InputMark(3, 1001 + 1002 + 1003, []))
        assert names(output.parent) == ["out.jsonl", "out.jsonl.run.json"]

    def test_a_job_without_records_leaves_an_empty_output(self, output: Path) -> None:
        run(output, {})
        assert output.read_bytes() == b""

    def test_an_output_that_exists_is_refused(self, output: Path) -> None:
        output.write_bytes(b"mine\n")
        with pytest.raises(OutputError, match=r"out\.jsonl: exists; --overwrite replaces it, --resume continues it$"):
            open_output(output, resume=False)
        with pytest.raises(OutputError, match=r"out\.jsonl: exists; --overwrite replaces it$"):
            open_output(output)  # of a command that cannot go on with one
        assert output.read_bytes() == b"mine\n"
        assert names(output.parent) == ["out.jsonl"]

    def test_overwrite_starts_anew(self, output: Path) -> None:
        run(output, lines(1, 2, 3))
        run(output, lines(5), overwrite=True, started={"seed": 1})
        assert output.read_bytes() == whole(lines(5))
        header = read_header(output)
        assert header is not None
        assert (header.fingerprint["seed"], header.input.lines) == (1, 5)

    def test_overwrite_destroys_nothing_before_the_first_record(self, output: Path) -> None:
        run(output, lines(1))
        before = {path.name: path.read_bytes() for path in output.parent.iterdir()}
        with pytest.raises(Killed):
            run(output, lines(2), stop=0, overwrite=True)
        with open_output(output, overwrite=True):
            pass  # left before the settings were known
        assert {path.name: path.read_bytes() for path in output.parent.iterdir()} == before

    def test_overwrite_by_a_job_without_records_empties_the_output(self, output: Path) -> None:
        run(output, lines(1))
        run(output, {}, overwrite=True)
        assert output.read_bytes() == b""

    @pytest.mark.parametrize(
        ("path", "problem"),
        [
            ("missing/out.jsonl", "its folder does not exist"),
            ("file/out.jsonl", "its folder does not exist"),
            ("folder", "is not a file"),
            ("", "is not a file"),
            ("x" * 300, "File name too long"),
        ],
    )
    def test_a_path_that_cannot_be_is_told_at_once(
        self, tmp_path: Path, path: str, problem: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "file").touch()
        (tmp_path / "folder").mkdir()
        options: tuple[dict[str, Any], ...] = {}, {"overwrite": True}, {"resume": True}
        for option in options:
            with pytest.raises(OutputError, match=problem):
                open_output(path, **option)
        assert names(tmp_path) == ["file", "folder"]

    @pytest.mark.skipif(not Path("/sys").is_dir(), reason="needs a folder where root cannot write either")
    def test_a_folder_where_nothing_can_be_written_is_told_at_once(self) -> None:
        with pytest.raises(OutputError, match=r"^/sys/out\.jsonl: (Permission denied|Read-only file system)"):
            open_output("/sys/out.jsonl")

    @pytest.mark.skipif(sys.platform != "linux", reason="needs a file that root cannot write either")
    def test_a_file_that_cannot_be_written_is_told_at_once(self, output: Path) -> None:
        shutil.copy(shutil.which("sleep") or "", output)
        before = output.read_bytes()
        with subprocess.Popen(["sleep", "60"], executable=output) as program:
            try:
                with pytest.raises(OutputError, match=r"out\.jsonl: Text file busy$"):
                    open_output(output, overwrite=True)
            finally:
                program.kill()
        assert output.read_bytes() == before

    def test_a_link_is_followed(self, output: Path, tmp_path: Path) -> None:
        link = tmp_path / "link.jsonl"
        link.symlink_to(output)
        run(link, lines(1, 2, failed=(1,)))
        run(link, lines(1, 2), resume=True, retry_errors=True)
        assert link.is_symlink()
        assert output.read_bytes() == whole(lines(1, 2))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"overwrite": True, "resume": True}, "resume: does not go with overwrite"),
            ({"retry_errors": True}, "retry_errors: only goes with resume"),
            ({"force": True}, "force: only goes with resume"),
        ],
    )
    def test_options_that_do_not_go_together(self, output: Path, options: dict[str, Any], message: str) -> None:
        with pytest.raises(OptionError, match=message):
            open_output(output, **options)

    def test_settings_come_before_records(self, output: Path) -> None:
        with pytest.raises(RuntimeError), open_output(output) as journal:
            journal.write(record(1), line=1)


class TestOtherProcesses:
    """A job writes to the file that it opened, and to no other."""

    @pytest.mark.parametrize("change", [lambda file: file.truncate(len(record(1))), lambda file: file.write(b"x")])
    def test_an_output_that_is_changed_meanwhile_is_told(self, output: Path, change: Callable[[Any], None]) -> None:
        journal = open_output(output)
        answer(journal, lines(1, 2, 3))
        with output.open("ab") as file:
            change(file)
        changed = output.read_bytes()
        told = r"out\.jsonl: was changed by another process while the job wrote it$"
        with pytest.raises(OutputError, match=told), journal:
            journal.sync()
        assert output.read_bytes() == changed
        header = read_header(output)
        assert header is not None
        assert header.input.lines == 0

    def test_one_that_is_emptied_is_not_filled_up_with_zeros(
        self, output: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def no_room(stream: io.FileIO, data: bytes) -> None:
            raise OSError(28, "No space left on device")

        journal = open_output(output)
        answer(journal, lines(1, 2, 3))
        os.truncate(output, 0)
        monkeypatch.setattr("lalign.jobs.journal.write_all", no_room)
        with pytest.raises(OutputError, match="No space left on device"), journal:
            journal.write(record(4), line=4)
        assert output.read_bytes() == b""

    @pytest.mark.parametrize("retry", [False, True])
    def test_one_that_ends_leaves_alone_what_came_in_the_place_of_its_files(self, output: Path, retry: bool) -> None:
        run(output, lines(1, 2, failed=(1,)))
        first = open_output(output, resume=True, retry_errors=retry)
        answer(first, lines(1, 2, 3))
        for path in output.parent.iterdir():
            path.unlink()
        with open_output(output) as second:
            second.start(SETTINGS)
            for line in (1, 2, 3, 4):
                second.write(record(line), line=line)
            with pytest.raises(OutputError, match="was moved or deleted while the job wrote it"), first:
                pass
            with pytest.raises(OutputError, match="is being written by another lalign job"):
                open_output(output, overwrite=True)
            second.write(record(5), line=5)
        assert output.read_bytes() == whole(lines(1, 2, 3, 4, 5))
        assert names(output.parent) == ["out.jsonl", "out.jsonl.run.json"]

    @pytest.mark.parametrize("option", ["overwrite", "resume"])
    def test_without_the_lock_beside_it_an_output_is_still_held(self, output: Path, option: str) -> None:
        with open_output(output) as first:
            answer(first, lines(1))
            output.with_name("out.jsonl.lock").unlink()
            with pytest.raises(OutputError, match="is being written by another lalign job"):
                open_output(output, overwrite=option == "overwrite", resume=option == "resume")
            first.write(record(2), line=2)
        assert output.read_bytes() == whole(lines(1, 2))

    @pytest.mark.parametrize("exists", [False, True])
    def test_a_job_that_has_written_nothing_yet_leaves_the_output_of_another_alone(
        self, output: Path, exists: bool
    ) -> None:
        if exists:
            run(output, lines(9))
        first = open_output(output, overwrite=True)
        first.start(SETTINGS)
        for path in output.parent.iterdir():
            path.unlink()
        run(output, lines(1, 2))
        with pytest.raises(OutputError, match=r"was (written by another process|moved or deleted)"), first:
            first.write(record(7), line=7)
        assert output.read_bytes() == whole(lines(1, 2))


class TestLock:
    CHILD = "import sys; from lalign.jobs.output import open_output; journal = open_output(sys.argv[1], resume=True);"

    def child(self, output: Path, code: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", self.CHILD + code, str(output)]
        return subprocess.Popen(command, text=True, stdin=-1, stdout=-1, stderr=-1)

    @pytest.mark.parametrize("option", ["overwrite", "resume"])
    def test_a_second_job_on_one_output_is_refused(self, output: Path, option: str) -> None:
        with open_output(output) as journal:
            answer(journal, lines(1))
            with pytest.raises(OutputError, match=r"out\.jsonl: is being written by another lalign job$"):
                open_output(output, overwrite=option == "overwrite", resume=option == "resume")
            journal.write(record(2), line=2)
        assert output.read_bytes() == whole(lines(1, 2))

    def test_a_second_process_is_refused(self, output: Path) -> None:
        with open_output(output):
            _, errors = self.child(output, "").communicate()
        assert errors.endswith("out.jsonl: is being written by another lalign job\n")

    def test_the_lock_goes_with_the_job(self, output: Path) -> None:
        with pytest.raises(Killed):
            run(output, lines(1, 2), stop=1)
        assert "out.jsonl.lock" not in names(output.parent)

    def test_a_job_killed_dead_leaves_its_records_and_no_lock(self, output: Path) -> None:
        code = f"journal.start({SETTINGS}); journal.write({record(1)!r}, line=1); print(flush=True); input()"
        with self.child(output, code) as child:
            assert child.stdout is not None
            child.stdout.readline()
            child.send_signal(signal.SIGKILL)
        assert run(output, lines(1, 2), resume=True) == 1
        assert output.read_bytes() == whole(lines(1, 2))
        assert names(output.parent) == ["out.jsonl", "out.jsonl.run.json"]


class TestResume:
    def test_without_an_output_it_is_a_fresh_start(self, output: Path) -> None:
        assert run(output, lines(1, 2), resume=True) == 2
        assert output.read_bytes() == whole(lines(1, 2))

    def test_of_an_empty_output_it_is_a_fresh_start(self, output: Path) -> None:
        output.touch()
        assert run(output, lines(1, 2), resume=True) == 2

    def test_of_a_complete_output_it_changes_nothing(self, output: Path) -> None:
        run(output, lines(1, 2))
        before = {path.name: path.read_bytes() for path in output.parent.iterdir()}
        assert run(output, lines(1, 2), resume=True) == 0
        assert {path.name: path.read_bytes() for path in output.parent.iterdir()} == before

    def test_cut_at_any_byte_the_output_is_completed(self, output: Path) -> None:
        work = lines(1, 3, failed=(1,))
        run(output, work)
        for cut in range(len(whole(work)) + 1):
            with output.open("rb+") as file:
                file.truncate(cut)
            run(output, work, resume=True)
            assert output.read_bytes() == whole(work)

    def test_a_torn_line_goes_even_if_no_record_comes(self, output: Path) -> None:
        run(output, lines(1))
        with output.open("ab") as file:
            file.write(b'{"id":2,"li')
        with pytest.raises(Killed):
            run(output, lines(1, 2), stop=0, resume=True)
        assert output.read_bytes() == whole(lines(1))

    def test_errors_stand_and_are_counted(self, output: Path) -> None:
        run(output, lines(1, 2, 3, failed=(1, 3)))
        with open_output(output, resume=True) as journal:
            resumed = journal.start(SETTINGS)
            assert (resumed.records, resumed.failures) == (3, 2)
            journal.write(record(4), line=4)
        assert output.read_bytes() == whole(lines(1, 2, 3, 4, failed=(1, 3)))

    def test_other_settings_are_refused_by_name(self, output: Path) -> None:
        run(output, lines(1))
        with pytest.raises(OutputError) as failure:
            run(output, lines(1, 2), resume=True, started={"ratio": 2.0, "recipe": "paper"})
        assert str(failure.value) == (
            f"{output}: was made with other settings (ratio: 3.0 in the output, 2.0 now; "
            "recipe: not set in the output, 'paper' now); --force resumes it all the same"
        )
        assert output.read_bytes() == whole(lines(1))

    def test_force_takes_other_settings_and_keeps_them(self, output: Path) -> None:
        run(output, lines(1))
        assert run(output, lines(1, 2), resume=True, force=True, started={"ratio": 2.0}) == 1
        header = read_header(output)
        assert header is not None
        assert header.fingerprint["ratio"] == 2.0

    @pytest.mark.parametrize(
        ("header", "problem"),
        [(None, "out.jsonl: has no header beside it"), (b"{", "out.jsonl.run.json: is not a run header")],
    )
    def test_without_its_header_an_output_needs_force(self, output: Path, header: bytes | None, problem: str) -> None:
        output.write_bytes(record(1))
        if header is not None:
            output.with_name("out.jsonl.run.json").write_bytes(header)
        with pytest.raises(OutputError, match=f"{problem}.*; --force resumes it all the same$"):
            open_output(output, resume=True)
        assert run(output, lines(1, 2), resume=True, force=True) == 1
        assert run(output, lines(1, 2), resume=True) == 0

    def test_a_damaged_output_is_refused_and_left_alone(self, output: Path) -> None:
        run(output, lines(1, 2, 3))
        damaged = record(1) + b'{"torn\n' + record(3) + b"torn"
        output.write_bytes(damaged)
        with pytest.raises(OutputError, match="line 2 is not a record"):
            run(output, lines(1, 2, 3), resume=True)
        assert output.read_bytes() == damaged

    def test_an_input_that_grew_is_taken(self, output: Path) -> None:
        run(output, lines(1, 2))
        assert run(output, lines(1, 2, 3), resume=True) == 1

    def test_what_the_input_must_be_like_comes_from_the_header(self, output: Path) -> None:
        run(output, lines(1, 2, 4, failed=(2,)))
        with open_output(output, resume=True) as journal:
            assert journal.start(SETTINGS).input == InputMark(4, 1001 + 1004, array("q", [2]))

    def test_force_takes_another_input(self, output: Path) -> None:
        run(output, lines(1, 2, failed=(1,)))
        with open_output(output, resume=True, force=True) as journal:
            assert journal.start(SETTINGS).input is None
            for line in (1, 2, 3):
                journal.mark(line, 50 + line)
            journal.write(record(3), line=3)
        header = read_header(output)
        assert header is not None
        assert header.input == InputMark(3, 52 + 53, [1])

    def test_force_remembers_the_other_input_up_to_the_last_line_that_is_answered_in_full(self, output: Path) -> None:
        run(output, lines(1, 2))
        with open_output(output, resume=True, force=True) as journal:
            journal.start(SETTINGS)
            for line in (1, 2, 3):
                journal.mark(line, 50 + line)
        header = read_header(output)
        assert header is not None
        assert header.input == InputMark(2, 51 + 52, [])

    @pytest.mark.parametrize(
        ("damage", "problem"),
        [
            (lambda raw: raw[:2] + raw[1:], "has 2 records of line 2 where 1 belong"),
            (lambda raw: [*raw[:1], raw[2], raw[1], *raw[3:]], "line 3 is not a record that follows the one before"),
            (lambda raw: [record(3), *raw[1:]], "line 2 is not a record that follows the one before"),
        ],
        ids=["doubled", "swapped", "renumbered"],
    )
    @pytest.mark.parametrize("retry", [False, True])
    def test_lines_that_are_not_those_written_are_refused(
        self, output: Path, damage: Callable[[list[bytes]], list[bytes]], problem: str, retry: bool
    ) -> None:
        work = lines(1, 2, 3, 4, 5, failed=(5,))
        run(output, work)
        output.write_bytes(b"".join(damage(output.read_bytes().splitlines(keepends=True))))
        before = {path.name: path.read_bytes() for path in output.parent.iterdir()}
        with pytest.raises(OutputError, match=problem):
            run(output, work, resume=True, retry_errors=retry)
        assert {path.name: path.read_bytes() for path in output.parent.iterdir()} == before

    def test_a_point_that_is_missing_or_there_twice_is_refused(self, output: Path) -> None:
        work = lines(1, 2, 3, items=3)
        run(output, work)
        raw = output.read_bytes().splitlines(keepends=True)
        for damaged, problem in [
            (raw[:4] + raw[5:], "has 2 of the 3 records of line 2"),
            ([*raw[:4], raw[3], *raw[5:]], "has a record of line 2 twice"),
            (raw[:5] + raw[4:], "has 4 records of line 2 where 3 belong"),
        ]:
            output.write_bytes(b"".join(damaged))
            with pytest.raises(OutputError, match=problem):
                run(output, work, resume=True)


class TestRetry:
    def test_errors_are_redone_in_their_place(self, output: Path) -> None:
        run(output, lines(1, 2, 3, 4, items=2, failed=(2, 4)))
        with open_output(output, resume=True, retry_errors=True) as journal:
            assert answer(journal, lines(1, 2, 3, 4, 5, items=2)) == 6
        assert output.read_bytes() == whole(lines(1, 2, 3, 4, 5, items=2))
        assert names(output.parent) == ["out.jsonl", "out.jsonl.run.json"]

    def test_without_errors_it_is_a_plain_resume(self, output: Path) -> None:
        run(output, lines(1, 2))
        assert run(output, lines(1, 2, 3), resume=True, retry_errors=True) == 1

    def test_an_error_may_come_again(self, output: Path) -> None:
        work = lines(1, 2, 3, failed=(2,))
        run(output, work)
        assert run(output, work, resume=True, retry_errors=True) == 1
        assert output.read_bytes() == whole(work)

    def test_interrupted_it_keeps_old_and_redone_records(self, output: Path) -> None:
        run(output, lines(1, 2, 3, 4, failed=(1, 3)))
        with pytest.raises(Killed):
            run(output, lines(1, 2, 3, 4), stop=1, resume=True, retry_errors=True)
        assert output.read_bytes() == whole(lines(1, 2, 3, 4, failed=(3,)))
        assert names(output.parent) == ["out.jsonl", "out.jsonl.run.json"]

    def test_killed_dead_it_keeps_old_and_redone_records(self, output: Path) -> None:
        run(output, lines(1, 2, 3, 4, failed=(1, 3)))
        killed(output, lines(1, 2, 3, 4), stop=1, resume=True, retry_errors=True)
        assert output.read_bytes() == whole(lines(1, 2, 3, 4, failed=(1, 3)))
        assert run(output, lines(1, 2, 3, 4), resume=True) == 0
        assert output.read_bytes() == whole(lines(1, 2, 3, 4, failed=(3,)))

    @pytest.mark.parametrize("retry", [False, True])
    def test_killed_at_any_moment_of_a_merge_it_goes_on(
        self, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, retry: bool
    ) -> None:
        """What is on the disk at each of them is kept aside, and resumed from."""
        run(output, lines(1, 2, 3, 4, failed=(1, 3)))
        moments: list[Path] = []

        def watched(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                result = function(*arguments, **options)
                moments.append(shutil.copytree(output.parent, tmp_path / f"moment {len(moments)}"))
                return result

            return call

        with monkeypatch.context() as patch:
            for module, name in [("os", "fsync"), ("os", "replace"), ("os", "unlink"), ("pathlib.Path", "unlink")]:
                patch.setattr(f"{module}.{name}", watched(Path.unlink if module != "os" else getattr(os, name)))
            run(output, lines(1, 2, 3, 4, 5, failed=(3,)), resume=True, retry_errors=True)
        wanted = lines(1, 2, 3, 4, 5, failed=() if retry else (3,))
        merged = 0
        for folder in moments:
            merged += (folder / "out.jsonl.retry").exists() and record(1) in (folder / "out.jsonl").read_bytes()
            run(folder / "out.jsonl", lines(1, 2, 3, 4, 5), resume=True, retry_errors=retry)
            found = (folder / "out.jsonl").read_bytes().splitlines(keepends=True)
            assert b"".join(found[1:]) == whole(wanted)[len(record(1)) :]
            assert found[0] in (record(1), record(1, failed=True))
            header = read_header(folder / "out.jsonl")
            assert header is not None
            failed = [number for number, raw in enumerate(found, 1) if b"error" in raw]
            assert header.input == InputMark(5, sum(1000 + n for n in range(1, 6) if n not in failed), failed)
        assert merged > 0

    def test_redone_records_of_an_output_that_is_overwritten_go_with_it(self, output: Path) -> None:
        run(output, lines(1, failed=(1,)))
        killed(output, lines(1, 2), stop=1, resume=True, retry_errors=True)
        run(output, lines(1, failed=(1,)), overwrite=True)
        assert output.read_bytes() == whole(lines(1, failed=(1,)))
        assert names(output.parent) == ["out.jsonl", "out.jsonl.run.json"]


@st.composite
def jobs(draw: st.DrawFn) -> tuple[Lines, Lines, list[tuple[int, bool, bool]]]:
    """What a first job answers, what later ones do, and those: (records until they end, retry errors, killed dead)."""
    items = draw(st.integers(1, 3))
    numbers = sorted(draw(st.sets(st.integers(1, 9), min_size=1)))
    failed = tuple(draw(st.sets(st.sampled_from(numbers))))
    ends = st.tuples(st.integers(0, 9), st.booleans(), st.booleans())
    return lines(*numbers, items=items, failed=failed), lines(*numbers, items=items), draw(st.lists(ends, max_size=4))


@pytest.mark.fuzz
@settings(max_examples=EXAMPLES)
@given(jobs())
def test_however_often_it_is_killed_the_output_is_that_of_one_job(job: tuple[Lines, Lines, list[Any]]) -> None:
    first, later, ends = job
    pairs = list(zip(whole(first).splitlines(), whole(later).splitlines(), strict=True))
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "folder", "out.jsonl")
        output.parent.mkdir()
        work, count, good = first, 0, 0
        for stop, retry, dead in ends:
            if dead:
                killed(output, work, stop, resume=True, retry_errors=retry)
            else:
                with suppress(Killed):
                    run(output, work, stop, resume=True, retry_errors=retry)
            kept = output.read_bytes().splitlines() if output.exists() else []
            assert all(raw in pair for raw, pair in zip(kept, pairs, strict=False))
            assert len(kept) >= count
            assert sum(b"error" not in raw for raw in kept) >= good
            work, count, good = later, len(kept), sum(b"error" not in raw for raw in kept)
        run(output, later, resume=True, retry_errors=True)
        assert output.read_bytes() == whole(later)


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class TestDisk:
    def test_a_record_is_in_the_file_once_it_is_written(self, output: Path) -> None:
        with open_output(output) as journal:
            journal.start(SETTINGS)
            journal.write(record(1), line=1)
            assert output.read_bytes() == record(1)

    def test_the_header_follows_every_two_seconds(self, output: Path) -> None:
        clock = Clock()
        with open_output(output, clock=clock) as journal:
            journal.start(SETTINGS)
            reached = []
            for line in range(1, 7):
                clock.seconds += 0.75
                journal.mark(line, line)
                journal.write(record(line), line=line)
                header = read_header(output)
                reached.append(header and header.input.lines)
        assert reached == [0, 0, 3, 3, 3, 6]

    def test_sync_brings_the_header_up_at_once(self, output: Path) -> None:
        with open_output(output) as journal:
            journal.sync()
            journal.start(SETTINGS)
            journal.mark(1, 71)
            journal.mark(2, 72)
            journal.write(record(1), line=1)
            journal.sync()
            header = read_header(output)
            assert header is not None
            assert header.input == InputMark(1, 71, [])

    def test_records_and_header_are_synced(self, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        synced: list[int] = []
        monkeypatch.setattr("os.fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
        with open_output(output) as journal:
            answer(journal, lines(1))
            synced.clear()
        header = output.with_name("out.jsonl.run.json")
        assert synced == [output.stat().st_ino, header.stat().st_ino]

    def test_redone_records_are_synced(self, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        run(output, lines(1, failed=(1,)))
        with open_output(output, resume=True, retry_errors=True) as journal:
            answer(journal, lines(1))
            synced: list[int] = []
            monkeypatch.setattr("os.fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
            journal.sync()
            assert output.with_name("out.jsonl.retry").stat().st_ino in synced
            synced.clear()
        assert output.stat().st_ino in synced

    def test_the_header_counts_a_line_once_all_its_records_are_written(self, output: Path) -> None:
        with open_output(output) as journal:
            journal.start(SETTINGS, 2)
            journal.mark(1, 71)
            reached = []
            for item in range(2):
                journal.write(record(1, item), line=1, last=item == 1)
                journal.sync()
                header = read_header(output)
                reached.append(header and header.input.lines)
        assert reached == [0, 1]

    def test_a_full_disk_leaves_whole_records(self, output: Path) -> None:
        size = len(whole(lines(*range(1, 20))))
        with pytest.raises(OutputError) as failure:
            run_out_of_room(output, lines(*range(1, 21)), room=size + 10)
        assert str(failure.value) == f"{output}: File too large (19 records are safe)"
        assert output.read_bytes() == whole(lines(*range(1, 20)))
        assert names(output.parent) == ["out.jsonl", "out.jsonl.run.json"]

    def test_a_disk_that_fills_while_errors_are_redone_loses_nothing(self, output: Path) -> None:
        """There is no room to merge what was redone either, so it waits."""
        numbers, failed = range(1, 50), tuple(range(1, 20))
        run(output, lines(*numbers, failed=failed))
        size = len(whole(lines(*range(1, 19)))) + 18 * len(seal(0))
        with pytest.raises(OutputError, match=r"\(48 records are safe\)"):
            run_out_of_room(output, lines(*numbers), room=size + 10, resume=True, retry_errors=True)
        assert output.read_bytes() == whole(lines(*numbers, failed=failed))
        assert run(output, lines(*numbers), resume=True) == 0
        assert output.read_bytes() == whole(lines(*numbers, failed=(19,)))

    def test_a_disk_that_fills_after_errors_were_redone_leaves_whole_records(self, output: Path) -> None:
        run(output, lines(*range(1, 20), failed=(1, 7)))
        size = len(whole(lines(*range(1, 20))))
        with pytest.raises(OutputError, match=r"\(19 records are safe\)"):
            run_out_of_room(output, lines(*range(1, 21)), room=size + 10, resume=True, retry_errors=True)
        assert output.read_bytes() == whole(lines(*range(1, 20)))

    def test_an_interrupt_in_the_middle_of_a_record_leaves_whole_records(
        self, output: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run(output, lines(1))

        def interrupted(stream: io.FileIO, data: bytes) -> None:
            stream.write(data[:5])
            raise KeyboardInterrupt

        monkeypatch.setattr("lalign.jobs.journal.write_all", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(output, lines(1, 2), resume=True)
        assert output.read_bytes() == record(1)

    @pytest.mark.parametrize("lose", [lambda path: shutil.rmtree(path.parent), Path.unlink])
    def test_a_vanished_output_is_told_within_two_seconds(self, output: Path, lose: Callable[[Path], None]) -> None:
        clock = Clock()
        journal = open_output(output, clock=clock)
        journal.start(SETTINGS)
        journal.write(record(1), line=1)
        lose(output)
        clock.seconds += 1.9
        journal.write(record(2), line=2)
        clock.seconds += 0.2
        with pytest.raises(OutputError, match=r"out\.jsonl: was moved or deleted while the job wrote it$"), journal:
            journal.write(record(3), line=3)

    def test_a_vanished_output_is_told_at_the_end(self, output: Path) -> None:
        journal = open_output(output)
        answer(journal, lines(1))
        output.rename(output.with_name("elsewhere.jsonl"))
        with pytest.raises(OutputError, match="was moved or deleted"), journal:
            pass
        assert output.with_name("elsewhere.jsonl").read_bytes() == record(1)

    def test_a_header_that_cannot_be_written_is_told(self, output: Path) -> None:
        output.with_name("out.jsonl.run.json.tmp").mkdir()
        with pytest.raises(OutputError, match=r"out\.jsonl: Is a directory$"):
            run(output, lines(1))

    def test_a_merge_cut_short_by_an_interrupt_is_taken_up_when_the_journal_is_left(
        self, output: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run(output, lines(1, 2, failed=(1,)))

        def interrupted(*_: object) -> None:
            monkeypatch.setattr("lalign.jobs.journal.merge_redone", merge_redone)
            raise KeyboardInterrupt

        journal = open_output(output, resume=True, retry_errors=True)
        journal.start(SETTINGS)
        journal.write(record(1), line=1)
        monkeypatch.setattr("lalign.jobs.journal.merge_redone", interrupted)
        with pytest.raises(KeyboardInterrupt), journal:
            journal.write(record(3), line=3)
        assert output.read_bytes() == whole(lines(1, 2))


def run_out_of_room(output: Path, work: Lines, room: int, **options: Any) -> None:
    """A job over which no file grows beyond `room` bytes: as on a full disk, a write is cut short, then one fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        run(output, work, **options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

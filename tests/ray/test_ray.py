"""Jobs on a Ray cluster: what they write is what one process writes, whoever answers which line, and whoever dies."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

pytest.importorskip("ray.data", reason="needs Ray Data: pip install 'lalign[ray]'")

import pyarrow as pa
import pyarrow.parquet as pq
import ray

from lalign.aligner import Aligner
from lalign.cli import terminal
from lalign.cli.run import run as command
from lalign.errors import LalignError, OutputError
from lalign.jobs.job import Job
from lalign.jobs.merge import merge_outputs
from lalign.jobs.output import open_output
from lalign.jobs.reader import JobInput
from lalign.jobs.signals import Interruption
from lalign.models.loading import ModelOptions
from lalign.options import Execution, Sampling
from lalign.ray import Align, Cluster
from lalign.ray import run as run_on_ray
from lalign.ray.counts import Counts
from lalign.ray.progress import watched
from lalign.records.prompts import make_principles
from lalign.records.requests import Settings

SAMPLED = Settings(make_principles(["Be kind."]), sampling=Sampling(max_new_tokens=3, temperature=1.0))
TWO = Cluster("local", workers=2)
# Blocks of 8 lines.
EXECUTION = Execution(batch_size=1, statistics="none")
DEATH = "LALIGN_TEST_DEATH"


class Dying(Align):
    """A worker that is killed, once, when it comes to line 20: the file named by `DEATH` gets the ids of the processes
    that came there, and of those that left."""

    def __call__(self, block: pa.Table) -> pa.Table:
        if 20 not in block["line"].to_pylist():
            return super().__call__(block)
        is_first = not _deaths()
        _note(f"came {os.getpid()}")
        if is_first:
            os.kill(os.getpid(), signal.SIGKILL)
        answered = super().__call__(block)
        _note(f"left {os.getpid()}")
        return answered


def _deaths() -> list[str]:
    mark = Path(os.environ[DEATH])
    return mark.read_text().splitlines() if mark.exists() else []


def _note(text: str) -> None:
    with Path(os.environ[DEATH]).open("a") as file:
        file.write(f"{text}\n")


class Failing(Align):
    """A worker whose engine fails at line 20, as it does not for what is wrong with a record."""

    def __call__(self, block: pa.Table) -> pa.Table:
        if 20 in block["line"].to_pylist():
            raise RuntimeError("the engine is broken\nat length")
        return super().__call__(block)


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One Ray for all tests here: it takes 10 s to start."""
    death = tmp_path_factory.mktemp("death") / "mark"
    ray.cloudpickle.register_pickle_by_value(__import__(__name__))
    os.environ[DEATH] = str(death)
    environment = {DEATH: str(death), "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    ray.init(
        num_cpus=8,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"env_vars": environment},
    )
    yield
    ray.shutdown()
    del os.environ[DEATH]


def prompt(number: int) -> bytes:
    """Every tenth line is blank, the 7th cannot be read, the 13th asks for nothing."""
    if number % 10 == 0 and number != 20:
        return b""
    if number == 7:
        return b'{"prompt": '
    return orjson.dumps(
        {"id": f"n{number}" if number % 2 else number * 2, "prompt": "" if number == 13 else f"{number}?"}
    )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"".join(prompt(number) + b"\n" for number in range(1, 41)))
    return path


@pytest.fixture
def single(source: Path, tiny_folder: Path, tmp_path: Path) -> bytes:
    """What one process writes."""
    output = tmp_path / "single.jsonl"
    aligner = Aligner.from_pretrained(str(tiny_folder))
    with open_output(output) as opened:
        job = Job(JobInput(source), SAMPLED, opened, execution=Execution(batch_size=4, statistics="none"))
        job.start(aligner)
        job.run(aligner, Interruption())
    return output.read_bytes()


def run(source: Path, model: Path, output: Path, settings: Settings = SAMPLED, **options: Any) -> Counts:
    return run_on_ray(source, output, ModelOptions(str(model)), settings, TWO, execution=EXECUTION, **options)


def merged(output: Path) -> bytes:
    whole = output.with_name("merged.jsonl")
    whole.unlink(missing_ok=True)
    merge_outputs(sorted(output.glob("*.jsonl")), whole)
    return whole.read_bytes()


def test_two_workers_write_what_one_process_does(
    source: Path, tiny_folder: Path, single: bytes, tmp_path: Path
) -> None:
    counts = run(source, tiny_folder, tmp_path / "out")
    assert merged(tmp_path / "out") == single
    assert (counts.lines, counts.records, counts.failures, counts.stood) == (37, 37, 2, 0)
    assert counts.tokens == sum(len(record) for record in _tokens(single))
    assert len(list((tmp_path / "out").iterdir())) > 2  # else the job was not cut


def _tokens(data: bytes) -> list[range]:
    found = map(orjson.loads, data.splitlines())
    return [range(record["usage"]["completion_tokens"]) for record in found if "error" not in record]


def test_a_worker_that_is_killed_costs_no_record(
    source: Path, tiny_folder: Path, single: bytes, tmp_path: Path
) -> None:
    run(source, tiny_folder, tmp_path / "out", worker=Dying)
    assert merged(tmp_path / "out") == single
    (came, dead), (came_again, other), (left, alive) = map(str.split, _deaths())
    assert (came, came_again, left) == ("came", "came", "left")
    assert dead != other == alive


def test_a_job_goes_on_with_what_is_written(source: Path, tiny_folder: Path, single: bytes, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with pytest.raises(LalignError, match=r"^a worker failed: RuntimeError: the engine is broken$"):
        run(source, tiny_folder, output, worker=Failing)
    (output / ".part-torn.jsonl.tmp").write_bytes(b'{"id": 1, "li')
    stood = len(merged(output).splitlines()) if list(output.glob("*.jsonl")) else 0
    counts = run(source, tiny_folder, output, resume=True)
    assert merged(output) == single
    assert (counts.stood, counts.lines) == (stood, 37 - stood)
    # And once more, with nothing left to do.
    counts = run(source, tiny_folder, output, resume=True)
    assert (counts.lines, counts.stood, counts.stood_failures) == (0, 37, 2)
    assert merged(output) == single


def test_lines_taken_out_of_an_output_are_answered_again(
    source: Path, tiny_folder: Path, single: bytes, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    run(source, tiny_folder, output)
    sorted(output.glob("*.jsonl"))[0].unlink()
    assert run(source, tiny_folder, output, resume=True).lines > 0
    assert merged(output) == single


def test_what_a_folder_does_not_belong_to_is_refused(source: Path, tiny_folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    run(source, tiny_folder, output)
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    with pytest.raises(OutputError, match="out: is not empty; --resume goes on with it"):
        run(source, tiny_folder, output)
    other = Settings(make_principles(["Be brief."]), sampling=SAMPLED.sampling)
    with pytest.raises(OutputError, match=r"made with other settings .*principle: \['Be kind\.'\] in the output"):
        run(source, tiny_folder, output, other, resume=True)
    source.write_bytes(source.read_bytes() + prompt(41) + b"\n")
    with pytest.raises(OutputError, match=r"from other files \(files: "):
        run(source, tiny_folder, output, resume=True)
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before


def test_the_files_of_a_folder_are_numbered_on(source: Path, tiny_folder: Path, single: bytes, tmp_path: Path) -> None:
    """Sampled as one file of all lines would be."""
    folder = tmp_path / "in"
    folder.mkdir()
    lines = source.read_bytes().splitlines(keepends=True)
    (folder / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + b"".join(lines[:15]).rstrip(b"\n"))
    (folder / "b.jsonl").write_bytes(b"".join(lines[15:]).replace(b"\n", b"\r\n"))
    run(folder, tiny_folder, tmp_path / "out")
    assert merged(tmp_path / "out") == single


def test_parquet_in_is_parquet_out(tiny_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    rows = [{"id": f"n{number}", "prompt": f"{number}?" if number != 5 else None} for number in range(1, 31)]
    pq.write_table(pa.Table.from_pylist(rows[:20]), folder / "a.parquet", row_group_size=6)
    pq.write_table(pa.Table.from_pylist(rows[20:]), folder / "b.parquet")
    counts = run(folder, tiny_folder, tmp_path / "out")
    table = pq.read_table(tmp_path / "out").sort_by("line").to_pylist()
    answered = Aligner.from_pretrained(str(tiny_folder)).generate(
        rows, principle="Be kind.", sampling=SAMPLED.sampling, execution=EXECUTION
    )
    expected = [outcome.to_dict() for outcome in answered]
    assert [orjson.loads(row["record"]) for row in table] == [orjson.loads(orjson.dumps(record)) for record in expected]
    assert [row["id"] for row in table] == [row["id"] for row in rows]
    assert [row["line"] for row in table if row["error"]] == [5]
    assert [row["response"] for row in table] == [record.get("response") for record in expected]
    assert (counts.records, counts.failures) == (30, 1)
    assert run(folder, tiny_folder, tmp_path / "out", resume=True).lines == 0


def test_a_model_that_is_not_there_is_one_line(source: Path, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(LalignError) as raised:
        run(source, tmp_path / "nothing", tmp_path / "out")
    assert "\n" not in str(raised.value)
    assert "nothing" in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_who_waits_hears_how_far_it_is(source: Path, tiny_folder: Path, tmp_path: Path) -> None:
    """Of the lines that are to be answered: blank ones are none, nor are those that stand."""
    heard: list[tuple[int, int]] = []
    output = tmp_path / "out"
    run(source, tiny_folder, output, watch=lambda *told: heard.append(told))
    assert heard == sorted(heard)
    assert {total for _, total in heard} == {37}
    assert heard[-1] == (37, 37)
    part = min(output.glob("*.jsonl"))
    count = len({orjson.loads(line)["line"] for line in part.read_bytes().splitlines()})
    part.unlink()
    run(source, tiny_folder, output, resume=True, watch=lambda *told: heard.append(told))
    assert heard[-1] == (count, count)


def test_lines_that_are_written_are_told_as_they_are() -> None:
    """Also of a task that is run again, and that once."""
    heard: list[int] = []
    with watched(heard.append) as written:
        for task, lines in ((0, 8), (1, 8), (0, 8)):
            ray.get(written.tell.remote(task, lines))
        until = time.monotonic() + 60
        while 16 not in heard and time.monotonic() < until:
            time.sleep(0.1)
    assert heard == sorted(heard)
    assert heard[-1] == 16


def test_the_command_shows_how_far_it_is(
    source: Path, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And nothing of it where it is to be quiet; what failed is said in any case."""
    monkeypatch.setattr(terminal, "LOG_SECONDS", 0)
    words = ["generate", str(source), "--model", str(tiny_folder), "--principle-text", "Be kind.", "--ray", "local"]
    words += ["--max-new-tokens", "3", "-o", str(tmp_path / "out")]
    assert command([*words, "--workers", "2"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert re.search(r"^lalign: \d+ s: 37 of 37 lines$", err, re.MULTILINE)
    assert command([*words, "--resume", "--quiet"]) == 1
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("how", [{"concurrency": 2}, {"compute": ray.data.ActorPoolStrategy(size=2)}])
def test_the_class_serves_a_pipeline_of_ones_own(
    how: dict[str, Any], tiny_folder: Path, source: Path, single: bytes
) -> None:
    lines = source.read_bytes().decode().splitlines()
    rows = [{"line": number, "data": line} for number, line in enumerate(lines, 1) if line]
    answered = ray.data.from_items(rows).map_batches(
        Align,
        fn_constructor_args=(ModelOptions(str(tiny_folder)), SAMPLED),
        fn_constructor_kwargs={"execution": EXECUTION},
        batch_size=9,
        batch_format="pyarrow",
        **how,
    )
    found = sorted(answered.take_all(), key=lambda row: row["line"])
    assert b"".join(record for row in found for record in row["records"]) == single

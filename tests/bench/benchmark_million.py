"""By hand: a job of a million short records through all but a model, killed near its end and resumed (docs/scale.md).

python tests/bench/benchmark_million.py [RECORDS] [FOLDER]      1,000,000 records, in a temporary folder, by default

Prints resident memory at each tenth of the job, then CPU seconds and memory from the opening of the output to the first
new record of the resume, and checks that every line is there once.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import orjson
import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from scripted import GivenBackend, byte_tokenizer

from lalign.aligner import Aligner
from lalign.jobs.job import Job
from lalign.jobs.output import open_output
from lalign.jobs.reader import JobInput
from lalign.jobs.signals import Interruption
from lalign.options import Execution, Sampling
from lalign.records.prompts import make_principles
from lalign.records.requests import Settings

LEFT = 1000


def memory() -> float:
    """Resident, in MB."""
    return float(psutil.Process().memory_info().rss / 2**20)


def run(source: Path, output: Path, *, resume: bool, wrote: Callable[[int], None]) -> Job:
    """Run the job; `wrote` hears how many records were written, after each step that wrote some."""
    settings = Settings(make_principles(["Be kind."]), sampling=Sampling(max_new_tokens=2))
    aligner = Aligner(GivenBackend(byte_tokenizer()))
    with open_output(output, resume=resume) as opened:
        job = Job(JobInput(source), settings, opened, execution=Execution(statistics="none"))
        job.start(aligner)
        job.run(aligner, Interruption(), on_outcomes=lambda some: wrote(job.tally.records) if some else None)
    return job


def write(source: Path, output: Path, records: int) -> None:
    """The job up to where it is killed."""
    tenth, due = records // 10, 1

    def wrote(count: int) -> None:
        nonlocal due
        if count >= due:
            print(f"{count:>11,} records: {memory():.1f} MB, {time.process_time():.0f} s of CPU", flush=True)
            due = (count // tenth + 1) * tenth
        if count >= records - LEFT:
            os.kill(os.getpid(), signal.SIGKILL)

    run(source, output, resume=False, wrote=wrote)


def resume(source: Path, output: Path, records: int) -> None:
    """The rest of the job."""
    before = memory()
    began, clock, told = time.process_time(), time.monotonic(), False

    def wrote(_: int) -> None:
        nonlocal told
        if not told:
            told = True
            cpu, wall = time.process_time() - began, time.monotonic() - clock
            print(f"first new record after {cpu:.1f} s of CPU ({wall:.1f} s), {memory():.1f} MB", flush=True)

    print(f"resume begins at {before:.1f} MB", flush=True)
    job = run(source, output, resume=True, wrote=wrote)
    print(f"{job.tally.skipped:,} stood, {job.tally.records:,} written; {memory():.1f} MB", flush=True)


def main(records: int, folder: Path) -> None:
    source, output = folder / "in.jsonl", folder / "out.jsonl"
    with source.open("wb") as file:
        for number in range(records):
            file.write(b'{"id": "record-%d", "prompt": "Number %d?"}\n' % (number, number))
    for phase, status in (("write", -signal.SIGKILL), ("resume", 0)):
        command = [sys.executable, __file__, str(records), str(folder), phase]
        done = subprocess.run(command, check=False)
        if done.returncode != status:
            raise SystemExit(f"{phase} ended with {done.returncode}")
    with output.open("rb") as file:
        wrong = sum(orjson.loads(raw)["line"] != number for number, raw in enumerate(file, 1))
        file.seek(0)
        print(f"{sum(1 for _ in file):,} lines, {wrong} out of place; {output.stat().st_size / 2**20:.0f} MB")


if __name__ == "__main__":
    count = int(sys.argv[1].replace(",", "")) if len(sys.argv) > 1 else 1_000_000
    if len(sys.argv) > 3:
        {"write": write, "resume": resume}[sys.argv[3]](
            Path(sys.argv[2]) / "in.jsonl", Path(sys.argv[2]) / "out.jsonl", count
        )
    elif len(sys.argv) > 2:
        main(count, Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as made:
            main(count, Path(made))

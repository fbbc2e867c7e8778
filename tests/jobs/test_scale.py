"""A job of 20,000 short records, stopped and resumed: what `benchmark_million.py` shows of a million, in small."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import orjson
from scripted import GivenBackend, byte_tokenizer

from lalign.aligner import Aligner
from lalign.jobs.job import Job
from lalign.jobs.output import open_output
from lalign.jobs.reader import JobInput
from lalign.jobs.signals import Interruption
from lalign.options import Execution, Sampling
from lalign.records.prompts import make_principles
from lalign.records.requests import Settings
from lalign.results import Failure, Result

RECORDS = 20_000
STOP = 15_000
EARLY = 5_000
SETTINGS = Settings(make_principles(["Be kind."]), sampling=Sampling(max_new_tokens=2))


class Halt:
    """Counts what is written and the memory blocks that Python holds; sets an interruption at a number of records."""

    def __init__(self, at: int | None) -> None:
        self.interruption = Interruption()
        self.at = at
        self.written = 0
        self.blocks: dict[int, int] = {}

    def __call__(self, outcomes: Sequence[Result | Failure]) -> None:
        for _ in outcomes:
            self.written += 1
            if self.written % EARLY == 0:
                self.blocks[self.written] = sys.getallocatedblocks()
        if self.at is not None and self.written >= self.at:
            self.interruption.received = signal.SIGTERM


def run(source: Path, output: Path, halt: Halt, *, resume: bool = False) -> Job:
    aligner = Aligner(GivenBackend(byte_tokenizer()))
    with open_output(output, resume=resume) as opened:
        job = Job(JobInput(source), SETTINGS, opened, execution=Execution(statistics="none"))
        job.start(aligner)
        job.run(aligner, halt.interruption, on_outcomes=halt)
    return job


def test_memory_is_flat_and_what_was_stopped_late_is_resumed_without_a_line_lost_or_twice(tmp_path: Path) -> None:
    source, output, halt = tmp_path / "in.jsonl", tmp_path / "out.jsonl", Halt(STOP)
    source.write_bytes(b"".join(b'{"prompt": "Number %d?"}\n' % number for number in range(RECORDS)))
    stopped = run(source, output, halt)
    assert STOP <= stopped.tally.records < RECORDS
    # Fewer blocks than a twentieth of the records in between: nothing is kept of each.
    assert halt.blocks[STOP] - halt.blocks[EARLY] < (STOP - EARLY) / 20
    resumed = run(source, output, Halt(None), resume=True)
    assert resumed.tally.skipped == stopped.tally.records
    assert resumed.tally.records == RECORDS - stopped.tally.records
    with output.open("rb") as file:
        assert [orjson.loads(raw)["line"] for raw in file] == list(range(1, RECORDS + 1))

"""Records what docs/scale/simulate.py runs on: times of steps and prefills of the embedded model, lengths of responses.

OMP_NUM_THREADS=1 python docs/scale/record.py [OUT]      docs/scale/trace.json by default; a few minutes

Times are CPU seconds of the engine's own thread, which others who use the machine do not change as they do wall clocks.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lalign import Aligner
from lalign.engine import engine
from lalign.options import Execution, Sampling
from lalign.records.parsing import parse_fields
from lalign.records.prompts import make_principles
from lalign.records.requests import Settings
from lalign.results import Result

ROOT = Path(__file__).parents[2]
# Pairs in flight, prompts and most tokens of each job that is recorded.
JOBS = ((16, 64, 128), (4, 24, 24), (1, 4, 16))


def record(aligner: Aligner, batch_size: int, prompts: int, most: int) -> dict[str, Any]:
    """A job, step by step; a pair has two rows."""
    lines = (ROOT / "samples/prompts.jsonl").read_text().splitlines()[:prompts]
    records = [parse_fields(json.loads(line), number) for number, line in enumerate(lines, 1)]
    settings = Settings(
        make_principles([(ROOT / "samples/hh.txt").read_text()]), sampling=Sampling(max_new_tokens=most)
    )
    execution = Execution(batch_size=batch_size, statistics="none")
    steps: list[tuple[int, float]] = []
    prefills: list[tuple[int, float]] = []
    lengths: list[int] = []
    seen = (0, 0.0, 0, 0, 0.0)
    began = time.process_time()
    for outcomes in aligner.ticks(records, settings, system=None, execution=execution):
        lengths += [outcome.usage.completion_tokens for outcome in outcomes if isinstance(outcome, Result)]
        at = aligner.counters
        now = (at.prompts, at.prefill_seconds, at.steps, at.step_rows, at.decode_seconds)
        new = [mine - before for mine, before in zip(now, seen, strict=True)]
        if now[0] < seen[0]:  # counters of an earlier call
            new = list(now)
        seen = now
        if new[0] > 0:
            prefills.append((int(new[0]), round(new[1], 5)))
        if new[2] == 1:
            steps.append((int(new[3]) // 2, round(new[4], 5)))
    return {
        "batch_size": batch_size,
        "max_new_tokens": most,
        "cpu_seconds": round(time.process_time() - began, 3),
        "prefills": prefills,
        "steps": steps,
        "lengths": lengths,
    }


def main(output: Path) -> None:
    began = time.process_time()
    aligner = Aligner.from_pretrained()
    started = time.process_time()  # of the process: imports too
    engine.time = SimpleNamespace(perf_counter=time.thread_time)  # type: ignore[attr-defined]
    record(aligner, 1, 1, 2)
    jobs = [record(aligner, *job) for job in JOBS]
    trace = {"start_seconds": round(started, 2), "load_seconds": round(started - began, 2), "jobs": jobs}
    output.write_text(json.dumps(trace).replace('}, {"batch', '},\n{"batch') + "\n")
    for job in jobs:
        print(job["batch_size"], len(job["steps"]), sum(job["lengths"]), job["cpu_seconds"])


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("trace.json"))

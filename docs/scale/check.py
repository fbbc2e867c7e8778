"""Runs the job that docs/scale/simulate.py foretells on 1 and 2 workers: `--shard K/N`, and Ray where it is installed.

python docs/scale/check.py shards OUT.json
python docs/scale/check.py ray OUT.json [WORKERS ...]

Each worker has one thread. Written are the wall clock of the job and CPU seconds of each worker, those of its start
included.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
ROOT = Path(__file__).parents[2]
PROMPTS, PRINCIPLE = ROOT / "samples/prompts.jsonl", ROOT / "samples/hh.txt"
BATCH_SIZE, MOST = 4, 12


def shards(workers: int, folder: Path) -> dict[str, Any]:
    began, started = time.monotonic(), []
    for shard in range(1, workers + 1):
        command = [sys.executable, "-m", "lalign", "generate", str(PROMPTS), "--principle", str(PRINCIPLE)]
        command += ["--batch-size", str(BATCH_SIZE), "--max-new-tokens", str(MOST), "--stats", "none", "--quiet"]
        command += ["--shard", f"{shard}/{workers}", "-o", str(folder / f"out.{shard}.jsonl")]
        started.append(subprocess.Popen(command))
    cpu = []
    for process in started:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        cpu.append(round(usage.ru_utime + usage.ru_stime, 2))
    return {"workers": workers, "wall_seconds": round(time.monotonic() - began, 2), "cpu_seconds": cpu}


def on_ray(workers: int, folder: Path) -> dict[str, Any]:
    import ray

    from lalign.models.loading import ModelOptions
    from lalign.options import Execution, Sampling
    from lalign.ray import Align, Cluster, run
    from lalign.records.prompts import make_principles
    from lalign.records.requests import Settings

    log = folder / "log"
    log.mkdir()

    class Timed(Align):
        """Leaves a line with its CPU seconds after each block."""

        def __call__(self, block: Any) -> Any:
            answered = super().__call__(block)
            with (log / str(os.getpid())).open("a") as file:
                file.write(json.dumps([time.process_time(), len(block)]) + "\n")
            return answered

    settings = Settings(make_principles([PRINCIPLE.read_text()]), sampling=Sampling(max_new_tokens=MOST))
    execution = Execution(batch_size=BATCH_SIZE, statistics="none")
    began = time.monotonic()
    run(
        PROMPTS,
        folder / "out",
        ModelOptions(),
        settings,
        Cluster("local", workers),
        execution=execution,
        worker=Timed,
    )
    wall = time.monotonic() - began
    assert not ray.is_initialized()
    blocks = [[json.loads(line) for line in path.read_text().splitlines()] for path in sorted(log.iterdir())]
    return {
        "workers": workers,
        "wall_seconds": round(wall, 2),
        "cpu_seconds": [round(some[-1][0], 2) for some in blocks],
        "blocks": [[rows for _, rows in some] for some in blocks],
    }


def main(way: str, output: Path) -> None:
    found = []
    for workers in map(int, sys.argv[3:] or (1, 2)):
        with tempfile.TemporaryDirectory() as folder:
            load = os.getloadavg()[0]
            done = {"shards": shards, "ray": on_ray}[way](workers, Path(folder))
            found.append({"way": way, "load_before": round(load, 1), **done})
            print(found[-1], flush=True)
    output.write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

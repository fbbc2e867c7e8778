"""By hand: the tables of docs/cost.md in which all engines and stock transformers are side by side.

python tests/bench/benchmark_engines.py one|16|32 [OPTIONS OF BENCH]      the batch size

The environments are those that .ci/engines keeps. The report as JSON stays beside, in /tmp.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from pages import DOCS, fill_in

from lalign.bench.tables import markdown

ENVIRONMENTS = Path(os.environ.get("LALIGN_ENVIRONMENTS", Path.home() / ".cache" / "lalign-environments"))
# What is run: prompts and tokens that take a few minutes, and the ways that say something at that size.
RUNS = {
    "one": (
        *("--batch-sizes", "1", "--limit", "3", "--max-new-tokens", "24", "--repeats", "3", "--contenders"),
        "base,aligned,no-support,stock,guided,llamacpp-base,llamacpp-aligned,llamacpp-stock,vllm-aligned,vllm-stock",
    ),
    "16": (
        *("--batch-sizes", "16", "--limit", "32", "--max-new-tokens", "24", "--repeats", "2", "--contenders"),
        "base,principle,aligned,no-stats,no-support,stock,guided,llamacpp-base,llamacpp-aligned,vllm-aligned,vllm-stock",
    ),
    # All of them at once take more than 24 GB there.
    "32": (
        *("--batch-sizes", "32", "--limit", "32", "--max-new-tokens", "24", "--repeats", "2", "--contenders"),
        "base,aligned,stock,vllm-aligned,vllm-stock",
    ),
}


def main(name: str, *more: str) -> None:
    samples = DOCS.parent / "samples"
    asked = [str(samples / "prompts.jsonl"), "--principle", str(samples / "hh.txt"), "--ratio", "2", "--peers"]
    for engine in ("llamacpp", "vllm"):
        asked += ["--peer-python", f"{engine}={ENVIRONMENTS / engine / 'bin' / 'python'}"]
    command = [sys.executable, "-m", "lalign", "bench", *asked, *RUNS[name], *more]
    report = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    Path(f"/tmp/bench-{name}.json").write_bytes(report)
    found = json.loads(report)
    if more:
        print(markdown(found))
    else:
        fill_in("cost.md", f"batch size {name}", markdown(found))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""By hand: a sweep over six ratios against six plain runs, at the same batch size, interleaved.

python tests/benchmark_sweep.py [PROMPTS] [ROUNDS]      16 prompts and 3 rounds by default
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path

from lalign import Aligner, Alignment, Execution, Sampling
from lalign.records.parsing import parse_fields
from lalign.records.prompts import make_principles
from lalign.records.requests import Settings
from lalign.results import Failure, Result

SAMPLES = Path(__file__).parents[2] / "samples"
RATIOS = (0, 1, 2, 3, 4, 5)


def main(prompts: int, rounds: int) -> None:
    aligner = Aligner.from_pretrained()
    lines = (SAMPLES / "prompts.jsonl").read_text().splitlines()[:prompts]
    records = [parse_fields(json.loads(line), number) for number, line in enumerate(lines, 1)]
    principles = make_principles([(SAMPLES / "hh.txt").read_text()])
    points = tuple(Alignment(ratio=ratio) for ratio in RATIOS)

    def run(alignments: tuple[Alignment, ...]) -> tuple[float, list[Result | Failure]]:
        settings = Settings(principles, alignments, Sampling(max_new_tokens=64), sweep=len(alignments) > 1)
        began = time.perf_counter()
        ticks = aligner.ticks(records, settings, system=None, execution=Execution(batch_size=16))
        outcomes = [outcome for tick in ticks for outcome in tick]
        return time.perf_counter() - began, outcomes

    run(points[:1])
    ratios = []
    for _ in range(rounds):
        swept, together = run(points)
        runs = [run((point,)) for point in points]
        apart = sum(seconds for seconds, _ in runs)
        ratios.append(swept / apart)
        tokens = [outcome.token_ids for outcome in together if isinstance(outcome, Result)]
        alone = [outcome.token_ids for line in zip(*(found for _, found in runs), strict=True) for outcome in line]
        equal = sum(mine == theirs for mine, theirs in zip(tokens, alone, strict=True))
        print(f"sweep {swept:.1f} s, apart {apart:.1f} s: {ratios[-1]:.2f}; {equal} of {len(tokens)} equal", flush=True)
    print(f"median {statistics.median(ratios):.2f} [{min(ratios):.2f}-{max(ratios):.2f}]")


if __name__ == "__main__":
    main(*(int(number) for number in (sys.argv[1:] + ["16", "3"][len(sys.argv) - 1 :])))

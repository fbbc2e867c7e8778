"""lalign's own part of a benchmark: records answered by a backend, measured."""

from __future__ import annotations

import time
from dataclasses import replace

from lalign.aligner import Aligner
from lalign.bench.contenders import Contender
from lalign.bench.measuring import Measurement, MemoryWatch
from lalign.bench.side import Work
from lalign.method.linear_alignment import Alignment
from lalign.options import Execution
from lalign.results import Result


def run_lalign(
    aligner: Aligner, work: Work, contender: Contender, batch_size: int, limit: int | None = None
) -> Measurement:
    """Answer records, or the first `limit` of them, from parsed records to results."""
    settings = replace(work.settings, alignments=(contender.alignment or Alignment(),))
    execution = Execution(batch_size=batch_size, statistics=contender.statistics)
    streams: list[tuple[int, ...]] = []
    first = 0.0
    began = time.perf_counter()
    with MemoryWatch() as memory:
        for outcomes in aligner.ticks(work.records[:limit], settings, system=work.system, execution=execution):
            if not first and aligner.counters.tokens:
                first = time.perf_counter() - began
            streams += [outcome.token_ids for outcome in outcomes if isinstance(outcome, Result)]
    counters = aligner.counters
    return Measurement(
        seconds=time.perf_counter() - began,
        tokens=counters.tokens,
        first_token_seconds=first,
        prefill_seconds=counters.prefill_seconds,
        decode_seconds=counters.decode_seconds,
        steps=counters.steps,
        step_rows=counters.step_rows,
        mean_memory=memory.mean,
        peak_memory=memory.peak,
        device_memory=memory.device,
        streams=tuple(streams),
    )

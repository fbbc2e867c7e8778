"""The paper's Table 1 on this machine and model: what alignment costs, measured in one run (design section 8)."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

from lalign.bench.contenders import Contender, contenders
from lalign.bench.measuring import Measurement, MemoryWatch, measure_machine
from lalign.bench.report import report
from lalign.errors import LalignError
from lalign.method.linear_alignment import Alignment
from lalign.models.loading import LoadedModel, ModelOptions, load
from lalign.options import Execution
from lalign.records.parsing import Record
from lalign.records.requests import Settings

# What `lalign` sets for itself and stock transformers runs without.
LARGE_PAGES = "THP_MEM_ALLOC_ENABLE"


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """What is measured: batch sizes, interleaved repeats, and whether against stock transformers, singly too."""

    batch_sizes: tuple[int, ...]
    repeats: int
    peers: bool
    singly: bool = False


@dataclass(frozen=True, slots=True)
class Work:
    """What both sides are given: records, settings of the job, and the prompts of the warm-up."""

    records: tuple[Record, ...]
    settings: Settings
    system: str | None


class Side:
    """A process of its own with a model of its own, so that its memory is its own: lalign, or stock transformers."""

    def __init__(self, model: ModelOptions, work: Work, *, peer: bool) -> None:
        context = multiprocessing.get_context("spawn")
        large_pages = os.environ.pop(LARGE_PAGES, None) if peer else None
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, model, work, peer), daemon=True)
        self._process.start()
        if large_pages is not None:
            os.environ[LARGE_PAGES] = large_pages
        theirs.close()
        self.facts: dict[str, Any] = self._receive()

    def run(self, contender: Contender, batch_size: int, limit: int | None = None) -> Measurement:
        """Answer the prompts one way; the first `limit` of them."""
        self._connection.send((contender, batch_size, limit))
        measurement: Measurement = self._receive()
        return measurement

    def close(self) -> None:
        self._process.terminate()
        self._process.join()

    def _receive(self) -> Any:
        try:
            answer = self._connection.recv()
        except EOFError:
            raise LalignError("a benchmark process ended before its time (out of memory?)") from None
        if isinstance(answer, LalignError):
            raise answer
        return answer


def _serve(connection: Connection, model: ModelOptions, work: Work, peer: bool) -> None:
    from lalign.models.quiet import silence_libraries

    silence_libraries()
    try:
        # Peers run the model as transformers loads it, which is how one that is to be compiled is left.
        loaded = load(replace(model, compile=peer))
        connection.send(_facts(loaded))
        while True:
            contender, batch_size, limit = connection.recv()
            connection.send(_measure(loaded, work, contender, batch_size, limit))
    except LalignError as error:
        connection.send(error)


def _facts(loaded: LoadedModel) -> dict[str, Any]:
    machine = measure_machine(loaded.model.device, loaded.model.dtype)
    return {
        "model": loaded.name,
        "device": str(loaded.model.device),
        "dtype": str(loaded.model.dtype),
        "parameters": loaded.parameters,
        "itemsize": loaded.model.dtype.itemsize,
        "machine": machine,
    }


def _measure(loaded: LoadedModel, work: Work, contender: Contender, batch_size: int, limit: int | None) -> Measurement:
    records = work.records[:limit]
    if contender.peer:
        from lalign.bench.peers import run_stock

        size = 1 if contender.singly else batch_size
        most = work.settings.sampling.max_new_tokens
        return run_stock(loaded.model, _requests(loaded, work, records), size, contender.guidance, most)
    return run_lalign(loaded, work, records, contender, batch_size)


def run_lalign(
    loaded: LoadedModel, work: Work, records: Sequence[Record], contender: Contender, batch_size: int
) -> Measurement:
    """Answer records with lalign, from parsed records to results, and measure it."""
    from lalign.aligner import Aligner
    from lalign.engine.torch_backend import TorchBackend
    from lalign.results import Result

    aligner = Aligner(TorchBackend(loaded))
    alignment = contender.alignment or Alignment()
    settings = replace(work.settings, alignments=(alignment,))
    execution = Execution(batch_size=batch_size, statistics=contender.statistics)
    streams: list[tuple[int, ...]] = []
    first = 0.0
    began = time.perf_counter()
    with MemoryWatch(loaded.model.device) as memory:
        for outcomes in aligner.ticks(records, settings, system=work.system, execution=execution):
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


def _requests(loaded: LoadedModel, work: Work, records: Sequence[Record]) -> list[Any]:
    from lalign.engine.interface import Request
    from lalign.records.prompts import PromptTemplate
    from lalign.records.requests import RequestBuilder
    from lalign.records.responses import ResponseWriter

    writer = ResponseWriter(loaded.tokenizer, loaded.stop_ids, "none")
    template = PromptTemplate(loaded.tokenizer, work.system, work.settings.prompting)
    builder = RequestBuilder(template, work.settings, loaded.limits, writer.stops)
    built = [builder.build(record, record.line) for record in records]
    return [request for request in built if isinstance(request, Request)]


def measure(
    model: ModelOptions,
    work: Work,
    options: BenchOptions,
    watch: Callable[[str], None] = lambda done: None,
) -> dict[str, Any]:
    """Run everything, interleaved (A B C A B C), and give the report that `lalign bench` prints as JSON.

    `watch` hears the name of each run as it begins. Raises `ModelError` and `OptionError` of either side.
    """
    rows = contenders(work.settings.alignments[0], options.peers, options.singly)
    sides = {False: Side(model, work, peer=False)}
    try:
        if options.peers:
            sides[True] = Side(model, work, peer=True)
        runs: dict[tuple[int, str], list[Measurement]] = {}
        for contender in rows:
            watch(f"warm-up, {contender.name}")
            sides[contender.peer].run(contender, max(options.batch_sizes), limit=2)
        for batch_size, repeat, contender in _schedule(rows, options):
            watch(f"batch {batch_size}, run {repeat + 1} of {options.repeats}, {contender.name}")
            measurement = sides[contender.peer].run(contender, batch_size)
            runs.setdefault((batch_size, contender.name), []).append(measurement)
        return report(rows, runs, options.repeats, sides[False].facts)
    finally:
        for side in sides.values():
            side.close()


def _schedule(rows: Sequence[Contender], options: BenchOptions) -> Iterator[tuple[int, int, Contender]]:
    """Round after round; what goes one prompt at a time runs in the rounds of batch size 1, or else of the first."""
    single = 1 if 1 in options.batch_sizes else options.batch_sizes[0]
    for batch_size in options.batch_sizes:
        for repeat in range(options.repeats):
            for contender in rows:
                # At batch size 1 the batched and the single way are the same.
                if not contender.singly or (batch_size == single and single != 1):
                    yield batch_size, repeat, contender

"""One contender's process: `python -m lalign.bench.serving VERSION`, told by pickles on stdin, tells on stdout.

Started by `side.Side` alone. What libraries print goes to stderr.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import IO, Any

import lalign
from lalign.bench.contenders import Contender
from lalign.bench.measuring import Machine, Measurement, MemoryWatch, measure_machine
from lalign.bench.side import Facts, Prompts, Task, Work
from lalign.engine.interface import Backend, Request, Weights
from lalign.errors import LalignError

# Answers the first so many prompts, at a batch size.
Run = Callable[[int, "int | None"], Measurement]


def serve(heard: IO[bytes], told: IO[bytes]) -> None:
    """Load what the task says, then measure as often as asked."""

    def tell(value: Any) -> None:
        pickle.dump(value, told)
        told.flush()

    try:
        task: Task = pickle.load(heard)
        with MemoryWatch() as memory:
            run, facts = ready(task)
        tell(replace(facts, load_memory=memory.peak))
        while True:
            asked = pickle.load(heard)
            tell(_machine(facts.weights) if asked is None else run(*asked))
    except LalignError as error:
        tell(error)
    except EOFError:
        return


def ready(task: Task) -> tuple[Run, Facts]:
    """What runs the contender of a task, loaded, and what is known of it. Raises `LalignError`."""
    if task.contender.engine != "llamacpp":
        from lalign.models.quiet import silence_libraries

        silence_libraries()
    return _stock(task) if task.contender.peer else _lalign(task)


def _lalign(task: Task) -> tuple[Run, Facts]:
    from lalign.aligner import Aligner
    from lalign.backends import open_backend

    backend = open_backend(task.model, task.contender.engine, task.engine_options)
    aligner = Aligner(backend)

    def run(batch_size: int, limit: int | None) -> Measurement:
        from lalign.bench.running import run_lalign

        return run_lalign(aligner, task.work, task.contender, batch_size, limit)

    return run, Facts(backend.name, backend.weights, prompts=prompts(backend, task.work) if task.leads else None)


def _machine(weights: Weights) -> Machine | None:
    """What the device of these weights can do, in their type where torch has it."""
    import torch

    if weights.device is None:
        return None
    dtype = getattr(torch, (weights.dtype or "").removeprefix("torch."), None)
    try:
        return measure_machine(torch.device(weights.device), dtype if isinstance(dtype, torch.dtype) else torch.float32)
    except RuntimeError:  # out of memory, for one
        return None


def prompts(backend: Backend, work: Work) -> Prompts:
    """The prompts of records as token ids; records that cannot be answered are left out."""
    from lalign.records.prompts import PromptTemplate
    from lalign.records.requests import RequestBuilder
    from lalign.records.responses import ResponseWriter

    writer = ResponseWriter(backend.tokenizer, backend.stop_ids, "none")
    template = PromptTemplate(backend.tokenizer, work.system, work.settings.prompting)
    builder = RequestBuilder(template, work.settings, backend.limits, writer.stops)
    built = [builder.build(record, record.line) for record in work.records]
    requests = [request for request in built if isinstance(request, Request)]
    return Prompts(
        tuple(request.base for request in requests),
        tuple(request.principled[0] for request in requests),
        backend.stop_ids,
        work.settings.sampling.max_new_tokens,
    )


def _stock(task: Task) -> tuple[Run, Facts]:
    contender: Contender = task.contender
    assert task.prompts is not None
    answer: Callable[[Prompts, int], Measurement]
    if contender.engine == "vllm":
        from lalign.bench.stock_vllm import StockVllm

        vllm = StockVllm(task.model)
        facts, answer = Facts(vllm.name, Weights()), vllm.run
    elif contender.engine == "llamacpp":
        from lalign.bench.stock_llamacpp import StockLlama

        llama = StockLlama(task.model, task.prompts)
        facts, answer = Facts(llama.name, Weights()), llama.run
    else:
        from lalign.bench.stock_transformers import run_stock
        from lalign.engine.torch_backend import torch_weights
        from lalign.models.loading import load

        # As transformers loads it, which is how one that is to be compiled is left.
        loaded = load(replace(task.model, compile=True))
        facts = Facts(loaded.name, torch_weights(loaded))

        def answer(prompts: Prompts, batch_size: int) -> Measurement:
            return run_stock(loaded.model, prompts, 1 if contender.singly else batch_size, contender.guidance)

    given = task.prompts
    return (lambda batch_size, limit: answer(given[limit], batch_size)), facts


def main() -> None:
    """The protocol keeps the real stdout for itself. Ends with a line on stderr where versions differ."""
    if sys.argv[1:] != [lalign.__version__]:
        sys.exit(f"it has lalign {lalign.__version__}, and {sys.argv[1]} is needed")
    told = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, told)


if __name__ == "__main__":
    main()

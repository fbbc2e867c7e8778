"""The engine of `--engine vllm`: method, sampling and statistics are lalign's, forward passes and memory vLLM's."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from lalign.engine.interface import Counters, Ended, Limits, Request, Source, Weights
from lalign.engine.vllm.driver import Driver, Idle
from lalign.engine.vllm.engine_args import changing
from lalign.engine.vllm.pairing import Lookout
from lalign.engine.vllm.process import VllmProcess
from lalign.errors import LalignError, OptionError
from lalign.options import Execution

# Prompts whose first logits are held at a time.
WINDOW = 64


class Described(Protocol):
    """What a backend needs to know of a model beside its weights: `models.description.Description` has it."""

    @property
    def name(self) -> str: ...
    @property
    def tokenizer(self) -> Any: ...
    @property
    def stop_ids(self) -> frozenset[int]: ...
    @property
    def limits(self) -> Limits: ...
    def parameters(self) -> int | None: ...
    def fingerprint(self) -> str: ...


def _weights(parameters: int | None, device: str, dtype: str, quantization: str | None) -> Weights:
    """What vLLM multiplies with: of a quantised model it is not known what of it is stored as what."""
    if quantization is not None:
        return Weights(device, f"{dtype} {quantization}", parameters)
    width = getattr(torch, dtype.removeprefix("torch.")).itemsize
    return Weights(device, dtype, parameters, None if parameters is None else parameters * width)


class VllmBackend:
    """Runs a model in vLLM; see `interface.Backend`.

    Args:
        described: the model.
        process: vLLM, with that model.
        options: what the user has set of vLLM, which its process was started with.

    Attributes:
        process: vLLM.
        counters: what the latest run has done so far.

    Raises `OptionError` for a `max_model_len` with which the model would compute otherwise than on other engines.
    """

    def __init__(self, described: Described, process: VllmProcess, options: Mapping[str, Any]) -> None:
        _refuse_long_context(described.limits, process.context_length)
        self.process = process
        self._options = options
        self.capacity = process.capacity
        self.counters = Counters()
        self._described = described
        self._numbers = itertools.count(1)

    @property
    def name(self) -> str:
        return self._described.name

    @property
    def tokenizer(self) -> Any:
        return self._described.tokenizer

    @property
    def stop_ids(self) -> frozenset[int]:
        return self._described.stop_ids

    @property
    def limits(self) -> Limits:
        stated, own = self._described.limits, self.process.context_length
        if stated.context_length is not None and stated.context_length <= own:
            return stated
        return replace(stated, context_length=own, context_reason="as vLLM was started")

    @property
    def weights(self) -> Weights:
        return _weights(
            self._described.parameters(), self.process.device, self.process.dtype, self.process.quantization
        )

    def fingerprint(self) -> str:
        process = self.process
        marks = [self._described.fingerprint(), process.dtype, "vllm", process.version, process.quantization]
        return " ".join(mark for mark in (*marks, changing(self._options)) if mark)

    def run(self, source: Source, execution: Execution) -> Iterator[list[Ended]]:
        """As `Backend.run`. Raises `OptionError` where vLLM's options hold no prompt with its twins."""
        batch_size = None if execution.batch_size == "auto" else execution.batch_size
        driver = Driver(self.process, self.capacity, self.stop_ids, batch_size, execution.statistics, self._numbers)
        self.counters = driver.counters
        yield from driver.run(source)

    def first_logits(self, requests: Iterable[Request]) -> Iterator[tuple[Request, NDArray[np.float32]]]:
        """As `Backend.first_logits`."""
        waiting = iter(requests)
        while window := list(islice(waiting, WINDOW)):
            owners: dict[int, int] = {}
            for place, request in enumerate(window):
                for token_ids in (request.base, *request.principled):
                    number = next(self._numbers)
                    owners[number] = place
                    self.process.add(str(number), token_ids, 1, Lookout(number))
            yield from self._first_logits(window, owners)

    def _first_logits(
        self, window: list[Request], owners: dict[int, int]
    ) -> Iterator[tuple[Request, NDArray[np.float32]]]:
        """Step until all rows, each with the place of its request, have had their logits; a request goes when whole."""
        rows: dict[int, NDArray[np.float32]] = {}
        running = {str(number) for number in owners}
        idle = Idle()
        try:
            while running:
                taken, finished = self.process.step()
                running -= finished
                logits = self.process.report([]).logits
                idle.count(bool(taken or logits))
                rows |= logits
        finally:
            self.process.abort(sorted(running))
        if missing := owners.keys() - rows.keys():
            raise LalignError(f"vLLM has given no logits for {len(missing)} prompts")
        for place, request in enumerate(window):
            yield request, np.stack([rows[number] for number, owner in owners.items() if owner == place])


def _refuse_long_context(limits: Limits, given: int) -> None:
    most = limits.context_length
    if limits.context_reason and most is not None and given > most:
        problem = f"max_model_len={given} is above the model's context of {most} ({limits.context_reason})"
        raise OptionError("engine_option", problem)

"""The engine of `--engine torch`: a transformers model in this process (design section 9)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lalign.engine.cache import KVStore, Prefix
from lalign.engine.compiled import CompiledForward
from lalign.engine.engine import Engine, twins_needed
from lalign.engine.forced import Forced
from lalign.engine.forward import Forward, passes
from lalign.engine.interface import Counters, Ended, Limits, Request, Source, Weights
from lalign.engine.memory import is_out_of_memory, largest_batch
from lalign.engine.rows import rest_length
from lalign.engine.shared_prefixes import SharedPrefixes
from lalign.errors import LalignError
from lalign.options import Execution

# Of the requests that wait so many are looked at for what they begin with alike.
COMING = 64
# Prompts sorted by length at a time for their first logits.
WINDOW = 256


class Loaded(Protocol):
    """What a backend needs to know of a model: `models.loading.LoadedModel` has it."""

    @property
    def model(self) -> Any: ...
    @property
    def tokenizer(self) -> Any: ...
    @property
    def name(self) -> str: ...
    @property
    def stop_ids(self) -> frozenset[int]: ...
    @property
    def limits(self) -> Limits: ...
    @property
    def compiled(self) -> bool: ...
    @property
    def parameters(self) -> int: ...
    def fingerprint(self) -> str: ...


def torch_weights(loaded: Loaded) -> Weights:
    """Those of a model of transformers."""
    model, count = loaded.model, loaded.parameters
    return Weights(str(model.device), str(model.dtype), count or None, count * model.dtype.itemsize or None)


class TorchBackend:
    """Runs a loaded model; see `interface.Backend`.

    Attributes:
        loaded: the model, its tokenizer and where they came from.
        counters: what the latest run has done so far.

    Raises `OptionError` where the model was loaded to be compiled and cannot be.
    """

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self.counters = Counters()
        self._forward = (CompiledForward if loaded.compiled else Forward)(loaded.model)
        self._prefixes = SharedPrefixes(self._forward)

    @property
    def name(self) -> str:
        return self.loaded.name

    @property
    def tokenizer(self) -> Any:
        return self.loaded.tokenizer

    @property
    def stop_ids(self) -> frozenset[int]:
        return self.loaded.stop_ids

    @property
    def limits(self) -> Limits:
        return self.loaded.limits

    @property
    def weights(self) -> Weights:
        return torch_weights(self.loaded)

    def fingerprint(self) -> str:
        return f"{self.loaded.fingerprint()} {self.loaded.model.dtype}"

    def run(self, source: Source, execution: Execution) -> Iterator[list[Ended]]:
        """As `Backend.run`."""
        forward = self._forward
        batch_size = execution.batch_size
        if batch_size == "auto":
            batch_size = self._largest_batch(source, execution)
        forward.alone = batch_size == 1
        engine = Engine(forward, self.stop_ids, batch_size, execution.statistics, source.points)
        self.counters = engine.counters

        def from_prefixes(room: int, wait: bool) -> list[Request] | None:
            requests = source(room, wait)
            if requests:
                rows, coming = (
                    [row for request in some for row in twins_needed(request, execution.statistics)[0]]
                    for some in (requests, source.at_hand()[:COMING])
                )
                engine.prefixes = [*self._prefixes.serving(rows, coming)]
            return requests

        try:
            yield from engine.run(from_prefixes)
        finally:
            forward.alone = False

    def first_logits(self, requests: Iterable[Request]) -> Iterator[tuple[Request, NDArray[np.float32]]]:
        """As `Backend.first_logits`: prompts of about a length together."""
        forward = self._forward
        waiting = iter(requests)
        while window := list(islice(waiting, WINDOW)):
            prefixes = self._prefixes.serving([row for request in window for row in _rows(request)])
            rows = [_rows(request) for request in window]
            rests = [
                (len(some), max(rest_length(row, prefixes, whole=forward.shares) for row in some)) for some in rows
            ]
            for chosen in passes(rests, forward.device):
                yield from self._first_logits(forward, [window[index] for index in chosen], prefixes)

    @torch.inference_mode()
    def _first_logits(
        self, forward: Forward, requests: list[Request], prefixes: list[Prefix]
    ) -> list[tuple[Request, NDArray[np.float32]]]:
        rows = [row for request in requests for row in _rows(request)]
        try:
            logits = forward.prompts(rows, prefixes, KVStore(forward.num_layers))[0].float().cpu().numpy()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if len(requests) == 1:
                raise LalignError("out of memory even with one prompt alone") from error
            half = len(requests) // 2
            return [
                found
                for part in (requests[:half], requests[half:])
                for found in self._first_logits(forward, part, prefixes)
            ]
        ends = np.cumsum([1 + len(request.principled) for request in requests])
        return list(zip(requests, np.split(logits, ends[:-1]), strict=True))

    def forced_logits(self, forced: Iterable[Forced]) -> Iterator[tuple[Forced, Tensor]]:
        """As `GivesLogits.forced_logits`: texts of about a length together."""
        waiting = iter(forced)
        while window := list(islice(waiting, WINDOW)):
            rests = [(len(rows), max(map(len, rows))) for rows in (each.rows for each in window)]
            for chosen in passes(rests, self._forward.device):
                yield from self._forced_logits([window[index] for index in chosen])

    @torch.inference_mode()
    def _forced_logits(self, forced: list[Forced]) -> list[tuple[Forced, Tensor]]:
        rows = [(row, len(each.tokens)) for each in forced for row in each.rows]
        width = max(len(row) for row, _ in rows)
        first = min(len(row) - tokens for row, tokens in rows)
        padded = [row + [0] * (width - len(row)) for row, _ in rows]
        try:
            logits = self._forward.whole(torch.tensor(padded, device=self._forward.device), width - first)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if len(forced) == 1:
                raise LalignError("out of memory even with one text alone") from error
            half = len(forced) // 2
            return [found for part in (forced[:half], forced[half:]) for found in self._forced_logits(part)]
        ends = [len(row) - first for row, _ in rows]
        taken = iter(its[end - tokens : end] for its, end, (_, tokens) in zip(logits, ends, rows, strict=True))
        return [(each, torch.stack(list(islice(taken, len(each.rows))))) for each in forced]

    def _largest_batch(self, source: Source, execution: Execution) -> int:
        requests = source.at_hand()
        tokens = max((request.most_tokens for request in requests), default=1)
        rows = max((1 + len(request.principled) for request in requests), default=1)
        return largest_batch(self.loaded.model, rows, tokens, execution.memory_share)


def _rows(request: Request) -> list[list[int]]:
    return [request.base, *request.principled]

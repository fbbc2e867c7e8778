"""The engine of `--engine llamacpp`: a GGUF model as it is, through llama.cpp (design section 9)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lalign.engine.engine import Engine, twins_needed
from lalign.engine.interface import Counters, Ended, Limits, Request, Source, Weights
from lalign.engine.llamacpp.forward import LlamaForward
from lalign.engine.llamacpp.library import library
from lalign.engine.llamacpp.model import GgufModel
from lalign.engine.llamacpp.parameters import parse
from lalign.engine.llamacpp.tokenizer import GgufTokenizer
from lalign.engine.memory import LARGEST_AUTO_BATCH, LOGITS_COPIES, free_bytes
from lalign.engine.rows import rest_length
from lalign.errors import LalignError
from lalign.options import Execution, Statistics
from lalign.prefixes import common_prefix

# A shared prefix shorter than this is not worth a sequence of its own.
SHORTEST_PREFIX = 8
# Prompts at a time for their first logits.
WINDOW = 64
# Of the free memory, what contexts may take where no batch size says how much there is to be.
MEMORY_SHARE = 0.7


class LlamaBackend:
    """Runs a GGUF file; see `interface.Backend`.

    Args:
        path: the file, or the first of several.
        name: what it goes by.
        options: fields of llama.cpp's parameters by name.
        verbose: whether llama.cpp's log is shown.

    Raises `ModelError` where llama-cpp-python is not installed or the file cannot be run, `OptionError` for options.
    """

    def __init__(self, path: Path, name: str, options: Mapping[str, str], *, verbose: bool = False) -> None:
        functions = library()
        functions.log.is_shown = verbose
        self._model = GgufModel(functions, path, name, parse(options, functions))
        self._forward = LlamaForward(self._model)
        self.name = name
        self.tokenizer = GgufTokenizer(self._model)
        self.stop_ids = self._model.stop_ids
        self.limits = Limits(context_length=self._model.context_length, vocabulary=self._model.vocab_size)
        self.counters = Counters()

    @property
    def weights(self) -> Weights:
        return Weights(self._model.device, self._model.quantization, self._model.parameter_count)

    def fingerprint(self) -> str:
        return self._model.fingerprint()

    def run(self, source: Source, execution: Execution) -> Iterator[list[Ended]]:
        """As `Backend.run`."""
        forward = self._forward
        forward.store()
        requests = source.at_hand()
        prefixes = forward.share(_worthwhile(source.prefixes) if requests else [])
        self._limit(execution.memory_share)
        batch_size = execution.batch_size
        rows, tokens = _largest(requests, execution.statistics, [prefix.token_ids for prefix in prefixes])
        if batch_size == "auto":
            batch_size = self._largest_batch(rows, tokens, execution.memory_share)
        pairs = batch_size * (2 if source.points > 1 else 1)
        # Room for all at once where there is as much; `Engine` asks for what must be.
        while pairs and not forward.holds(pairs * rows, pairs * tokens, may_grow=True):
            pairs //= 2
        engine = Engine(forward, self.stop_ids, batch_size, execution.statistics, source.points, prefixes)
        self.counters = engine.counters
        yield from engine.run(source)

    def first_logits(self, requests: Iterable[Request]) -> Iterator[tuple[Request, NDArray[np.float32]]]:
        """As `Backend.first_logits`."""
        self._limit(MEMORY_SHARE)
        waiting = iter(requests)
        while window := list(islice(waiting, WINDOW)):
            twins = ([request.base for request in window], [row for request in window for row in request.principled])
            self._forward.store()
            self._forward.share(_worthwhile([common_prefix(rows) for rows in twins if len(rows) > 1]))
            yield from self._first_logits(window)

    def _first_logits(self, requests: list[Request]) -> list[tuple[Request, NDArray[np.float32]]]:
        rows = [row for request in requests for row in (request.base, *request.principled)]
        prefixes = self._forward.prefixes
        store = self._forward.store()
        try:
            if not store.fits(len(rows), sum(rest_length(row, prefixes) for row in rows)):
                raise MemoryError
            logits = self._forward.prompts(rows, prefixes, store)[0].numpy()
        except MemoryError as error:
            if len(requests) == 1:
                raise LalignError("out of memory even with one prompt alone") from error
            half = len(requests) // 2
            return self._first_logits(requests[:half]) + self._first_logits(requests[half:])
        ends = np.cumsum([1 + len(request.principled) for request in requests])
        return list(zip(requests, np.split(logits, ends[:-1]), strict=True))

    def _limit(self, share: float) -> None:
        """Let contexts grow to a share of the memory that is free, unless a size was given."""
        if self._forward.fixed_cells is None:
            cell = self._model.cell_bytes()
            free = free_bytes(torch.device("cpu")) + cell * self._forward.cells
            self._forward.most_cells = int(share * free / cell)

    def _largest_batch(self, rows: int, tokens: int, share: float) -> int:
        """How many pairs of so many rows and tokens fit: from 1 to 256."""
        logits = rows * LOGITS_COPIES * self._model.vocab_size * 4
        by_memory = share * free_bytes(torch.device("cpu")) / (tokens * self._model.cell_bytes() + logits)
        by_cells = self._forward.most_cells // tokens
        by_sequences = (self._forward.most_sequences - len(self._forward.prefixes)) // rows
        return max(1, min(LARGEST_AUTO_BATCH, int(by_memory), by_cells, by_sequences))


def _largest(requests: Iterable[Request], statistics: Statistics, prefixes: list[list[int]]) -> tuple[int, int]:
    """The most rows that a point of any request takes, and the most tokens of them besides the prefixes."""
    rows = tokens = 1
    for request in requests:
        twins, _ = twins_needed(request, statistics)
        shared = min((len(prefix) for prefix in prefixes), default=0)
        longest = max((point.sampling.max_new_tokens for point in request.points), default=0)
        rows = max(rows, len(twins))
        tokens = max(tokens, sum(len(twin) - min(shared, len(twin) - 1) + longest for twin in twins))
    return rows, tokens


def _worthwhile(prefixes: Iterable[list[int]]) -> list[list[int]]:
    return [ids for ids in prefixes if len(ids) >= SHORTEST_PREFIX]

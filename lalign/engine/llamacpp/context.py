"""A context of llama.cpp: cells that hold keys and values of tokens, each of one or more sequences."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lalign.engine.llamacpp.model import GgufModel
from lalign.engine.llamacpp.parameters import filled
from lalign.errors import LalignError

# llama.cpp makes contexts in steps of this many cells.
STEP = 256
NO_ROOM, ALLOCATION_FAILED = 1, -2


class Token(NamedTuple):
    """A token to run: its id, its position in its sequence, the sequence, and whether its logits are wanted."""

    token: int
    position: int
    sequence: int
    wanted: bool


class Context:
    """Room for `sequences` sequences and `cells` tokens; freed with this object, or by `free()`.

    What sequences share is held once. Raises `MemoryError` where there is not so much memory.
    """

    def __init__(self, model: GgufModel, sequences: int, cells: int) -> None:
        api = model.library.api
        threads = torch.get_num_threads()
        ours = {"n_seq_max": sequences, "kv_unified": True, "n_threads": threads, "n_threads_batch": threads}
        cells = -(-cells // STEP) * STEP
        given = filled(api.llama_context_default_params(), ours, model.parameters.context, {"n_ctx": cells})
        self.model = model
        self.sequences = sequences
        self.cells = cells
        self._api = api
        self._pointer = api.llama_init_from_model(model.pointer, given)
        if not self._pointer:
            raise MemoryError(model.library.problem("llama.cpp cannot make a context"))
        self.free = weakref.finalize(self, api.llama_free, self._pointer)
        self._memory = api.llama_get_memory(self._pointer)
        if not self._memory:
            raise LalignError(f"{model.name}: keeps no keys and values, so it cannot generate")
        self._most_tokens: int = api.llama_n_batch(self._pointer)
        self._batch = api.llama_batch_init(self._most_tokens, 0, 1)
        weakref.finalize(self, api.llama_batch_free, self._batch)

    def run(self, tokens: Sequence[Token]) -> Tensor:
        """Run tokens, in as many calls as it takes: the logits wanted, in order `[wanted, vocab]` float32.

        Raises `MemoryError` where there are too few cells, and `LalignError` where llama.cpp fails otherwise.
        """
        chunks = [tokens[start : start + self._most_tokens] for start in range(0, len(tokens), self._most_tokens)]
        found = [self._decode(chunk) for chunk in chunks]
        return torch.from_numpy(found[0] if len(found) == 1 else np.concatenate(found))

    def copy(self, source: int, target: int, length: int | None = None) -> None:
        """Let `target` share the first `length` tokens of `source`, all by default."""
        end = -1 if length is None else length
        self._api.llama_memory_seq_cp(self._memory, source, target, -1, end)

    def remove(self, sequence: int) -> None:
        """Forget a sequence; cells that no other shares are free."""
        self._api.llama_memory_seq_rm(self._memory, sequence, -1, -1)

    def clear(self) -> None:
        """Forget all sequences."""
        self._api.llama_memory_clear(self._memory, False)

    def _decode(self, tokens: Sequence[Token]) -> Any:
        batch = self._batch
        batch.n_tokens = len(tokens)
        for index, (token, position, sequence, wanted) in enumerate(tokens):
            batch.token[index] = token
            batch.pos[index] = position
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = sequence
            batch.logits[index] = wanted
        status = self._api.llama_decode(self._pointer, batch)
        if status in (NO_ROOM, ALLOCATION_FAILED):
            raise MemoryError(self.model.library.problem("no cells are left"))
        if status:
            problem = self.model.library.problem(f"llama_decode gives {status}")
            raise LalignError(f"{self.model.name}: llama.cpp cannot run it: {problem}")
        rows = sum(token.wanted for token in tokens)
        if not rows:
            return np.empty((0, self.model.vocab_size), np.float32)
        logits = self._api.llama_get_logits(self._pointer)
        return np.ctypeslib.as_array(logits, (rows, self.model.vocab_size)).copy()

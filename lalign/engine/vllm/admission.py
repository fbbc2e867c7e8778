"""The arithmetic of what vLLM can step at once, so that the twins of a pair start together and none is put out.

vLLM's scheduler splits prompts that do not fit into a step, and puts requests out when it has no block left: either
parts a pair. Where a pair is let in only with room for the whole of it to its longest end, the scheduler has no cause
to. Counted on the safe side: blocks that rows share count for each, and what the prefix cache holds counts only where
it was put there for this pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a vLLM engine has.

    rows: requests at once. tokens: of a step. blocks: of the cache of keys and values. block_size: tokens of the
    smallest block. kinds: groups of layers that hold blocks of their own. caches: whether it keeps the blocks of
    prompts for those that begin alike. rows_by, tokens_by: the options of vLLM that limit these.
    """

    rows: int
    tokens: int
    blocks: int
    block_size: int
    kinds: int = 1
    caches: bool = True
    rows_by: str = "max_num_seqs"
    tokens_by: str = "max_num_batched_tokens"

    def uncached(self, length: int) -> int:
        """Tokens of a prompt that has been run before which must be run again: whole blocks are kept, never all."""
        return length - (length - 1) // self.block_size * self.block_size if self.caches else length


@dataclass(frozen=True, slots=True)
class Load:
    """What rows take: of the requests at once, of the blocks to their longest end, of the tokens of a step."""

    rows: int = 0
    blocks: int = 0
    tokens: int = 0

    def __add__(self, other: Load) -> Load:
        return Load(self.rows + other.rows, self.blocks + other.blocks, self.tokens + other.tokens)

    def within(self, capacity: Capacity) -> bool:
        """Whether there is room for it."""
        return self.rows <= capacity.rows and self.blocks <= capacity.blocks and self.tokens <= capacity.tokens


def joining(lengths: Sequence[int], new_tokens: int, capacity: Capacity, *, warm: bool) -> Load:
    """A pair in the step that it joins in: prompts of `lengths`, `warm` where each has been run before."""
    blocks = sum(-(-(length + new_tokens) // capacity.block_size) for length in lengths) * capacity.kinds
    tokens = sum(capacity.uncached(length) if warm else length for length in lengths)
    return Load(len(lengths), blocks, tokens)


def staying(load: Load) -> Load:
    """A pair in the steps after the one that it joined in."""
    return Load(load.rows, load.blocks, load.rows)

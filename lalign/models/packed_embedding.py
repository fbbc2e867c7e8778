"""Tied embeddings looked up in the packed output layer, so that they are in memory once (design section 7)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lalign.models.packed_weight import BLOCK_OUTPUTS, PackedWeight

# Rows all over the embeddings that are looked up to see whether they are found: more than a block has.
LOOKED_UP = 256


class PackedEmbedding(nn.Module):
    """The rows of a packed weight `[tokens, hidden size]`, read where they are packed."""

    def __init__(self, packed: PackedWeight, blocks: Tensor) -> None:
        super().__init__()
        self.packed = packed
        self.num_embeddings, self.embedding_dim = packed.shape
        self._blocks = blocks

    @property
    def weight(self) -> Tensor:
        """The weight in plain layout, made anew at each call: for code that looks at it."""
        return self.packed.plain()

    def forward(self, input_ids: Tensor) -> Tensor:
        """`[...]` to `[..., hidden size]`. Raises `IndexError` for ids of no token, as plain embeddings do."""
        lowest, highest = map(int, input_ids.aminmax())
        if lowest < 0 or highest >= self.num_embeddings:
            raise IndexError(f"token ids from {lowest} to {highest}, of {self.num_embeddings} tokens")
        found = self._blocks[input_ids // BLOCK_OUTPUTS, :, :, input_ids % BLOCK_OUTPUTS]
        return found.flatten(-2)[..., : self.embedding_dim]

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}"


def packed_embedding(embedding: Any, packed: PackedWeight) -> PackedEmbedding | None:
    """What looks plain embeddings up in their packed copy; None for others, and where it is ordered otherwise."""
    blocks = packed.blocks()
    if blocks is None or type(embedding) is not nn.Embedding or embedding.max_norm is not None:
        return None
    found = PackedEmbedding(packed, blocks)
    numbers = torch.arange(LOOKED_UP) * (embedding.num_embeddings - 1) // (LOOKED_UP - 1)
    return found if torch.equal(found(numbers), embedding.weight[numbers]) else None

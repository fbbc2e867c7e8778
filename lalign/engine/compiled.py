"""A decoding step of static shape, for `torch.compile` (`--compile`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lalign.engine.cache import STATIC_BLOCK, KVStore
from lalign.engine.forward import Forward
from lalign.errors import OptionError


class CompiledForward(Forward):
    """Runs decoding steps through a compiled model, over all rows and columns that the store has room for.

    Shapes change only when the store grows, so there are few compilations. Prompts run as they do without it.

    The model's weights must be as torch lays them out. Raises `OptionError` for a model with other than full
    attention, whose masks are not of one shape.
    """

    block = STATIC_BLOCK

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        kinds = set(getattr(model.config.get_text_config(decoder=True), "layer_types", None) or [])
        if kinds - {"full_attention"} or not self.takes_position_ids:
            raise OptionError("compile", f"does not go with {model.config.model_type}: it takes full attention")
        self.compiled: Any = torch.compile(model, dynamic=False)

    def share_if_it_can(self) -> None:
        """Rows begin with a copy of their prefix: a compiled step is of one shape for all rows."""

    def step(self, input_ids: Tensor, store: KVStore) -> Tensor:
        store.reserve(1)
        rows, live = store.row_capacity, store.rows
        padded = input_ids.new_zeros(rows, 1)
        padded[:live] = input_ids
        position_ids = torch.zeros_like(padded)
        position_ids[:live] = store.position_ids(1, self.device)
        columns = torch.arange(store.column_capacity, device=self.device)
        # A row that stands for none sees the new column alone, since a softmax over nothing is nan.
        mask = (columns == store.end).repeat(rows, 1)
        mask[:live] = (columns >= store.first_columns(self.device)) & (columns <= store.end)
        store.position = torch.tensor([store.end], device=self.device)
        try:
            output = self.compiled(
                input_ids=padded,
                attention_mask=mask[:, None, None],
                position_ids=position_ids,
                past_key_values=store,
                use_cache=True,
                **self.keep_last,
            )
        finally:
            store.position = None
        store.advance(1)
        logits: Tensor = output.logits[:live, -1]
        return logits

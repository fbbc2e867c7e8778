"""Running prompts: the shared prefix once, then what is left of each prompt (design section 6)."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from lalign.engine.cache import BLOCK, KVStore, Prefix
from lalign.engine.rows import longest_shared
from lalign.engine.shared_attention import NAME

# Rows of unequal length are run together while no more than this share of the tokens is padding.
PADDING_SHARE = 0.15
# Tokens of one forward pass over prompts: enough to fill the device, few enough to bound its working memory.
TOKENS_PER_PASS = {"cpu": 512}
TOKENS_PER_PASS_ACCELERATOR = 8192
# How far logits may lie apart between the two ways of sharing a prefix, as a share of their spread: rounding alone.
SHARED_TOLERANCE = 1e-3


class Forward:
    """Calls a stock decoder-only model on the columns to come of a store.

    Gives logits of the last position alone, `[rows, vocab]`.
    """

    block = BLOCK

    def __init__(self, model: Any) -> None:
        self.model = model
        # Whether the model's attention is such that rows may stand behind a prefix that is kept once; and whether no
        # two rows in flight do so: then each begins with a copy, over which attention is one operation.
        self.can_share = False
        self.alone = False
        self.device: torch.device = model.device
        self.num_layers: int = model.config.get_text_config(decoder=True).num_hidden_layers
        accepted = inspect.signature(model.forward).parameters
        self.takes_position_ids = "position_ids" in accepted
        self.keep_last = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}

    @property
    def shares(self) -> bool:
        """Whether rows stand behind a prefix that is kept once, or begin with a copy of it."""
        return self.can_share and not self.alone

    def __call__(self, input_ids: Tensor, store: KVStore) -> Tensor:
        """Run `input_ids` `[rows, new]` on top of the store and count them as live."""
        new = input_ids.shape[1]
        store.reserve(new)
        extra: dict[str, Any] = dict(self.keep_last)
        if self.takes_position_ids:
            extra["position_ids"] = store.position_ids(new, self.device)
        output = self.model(
            input_ids=input_ids,
            attention_mask=store.attention_mask(new, self.device),
            past_key_values=store,
            use_cache=True,
            **extra,
        )
        store.advance(new)
        logits: Tensor = output.logits[:, -1]
        return logits

    def whole(self, input_ids: Tensor, count: int) -> Tensor:
        """The logits of the last `count` positions of whole texts, padded on the right: `[rows, count, vocab]`.

        Nothing is kept of them; what follows a position does not change its logits.
        """
        output = self.model(input_ids=input_ids, use_cache=False, **dict.fromkeys(self.keep_last, count))
        logits: Tensor = output.logits[:, -count:]
        return logits

    def store(self) -> KVStore:
        """Room for rows to come."""
        return KVStore(self.num_layers, block=self.block)

    def passes(self, rests: Sequence[tuple[int, int]]) -> Iterator[list[int]]:
        """As the function `passes`, on this device."""
        return passes(rests, self.device)

    def step(self, input_ids: Tensor, store: KVStore) -> Tensor:
        """One decoding step, `input_ids` `[rows, 1]`."""
        return self(input_ids, store)

    @torch.inference_mode()
    def share_if_it_can(self) -> None:
        """Let rows stand behind prefixes from now on, where that gives the logits of rows that begin with a copy.

        It takes an attention of transformers' registry, on a CPU and in float32; whether a model's is of that kind is
        looked at on a few tokens, once.
        """
        attention = self.model.config._attn_implementation
        if attention == NAME:  # looked at before
            self.can_share = True
        if attention != "sdpa" or self.device.type != "cpu" or self.model.dtype != torch.float32:
            return
        probe = Forward(self.model)
        copied = probe._probed()
        try:
            self.model.set_attn_implementation(NAME)
            probe.can_share = True
            behind = probe._probed()
            equal = bool((behind - copied).abs().max() <= SHARED_TOLERANCE * copied.std())
        except Exception:  # attention of another kind fails in its own way
            equal = False
        self.can_share = equal
        if not equal:
            self.model.set_attn_implementation("sdpa")

    def _probed(self) -> Tensor:
        """Logits of two rows with one prefix and of a step after them: `[4, vocab]`."""
        vocabulary = self.model.get_input_embeddings().num_embeddings
        ids = [number * (vocabulary - 1) // 16 for number in range(1, 15)]
        store = KVStore(self.num_layers)
        logits, opened = self.prompts([ids[:9], [*ids[:6], ids[10]]], [self.prefix(ids[:6])], store)
        store.admit(opened)
        return torch.cat([logits, self.step(torch.tensor([[ids[11]], [ids[12]]]), store)])

    @torch.inference_mode()
    def prefix(self, token_ids: list[int], kept: Sequence[Prefix] = ()) -> Prefix:
        """Run tokens that many prompts begin with, from the longest of the prefixes kept that they begin with."""
        store = KVStore(self.num_layers, rows=1, columns=len(token_ids))
        length, begun = longest_shared(token_ids, kept, whole=True)
        if begun is not None:
            _copy_prefix(begun, store, 0, length)
            store.advance(length)
        self(torch.tensor([token_ids[length:]], device=self.device), store)
        return Prefix(token_ids, store)

    def prompts(self, rows: Sequence[list[int]], prefixes: Sequence[Prefix], store: KVStore) -> tuple[Tensor, KVStore]:
        """Run prompts, starting each from the prefix it shares most of: logits `[rows, vocab]`, and their rows.

        All rows run as many of their last tokens as the row with the longest rest; what that runs anew of a prefix
        comes out the same. The rows are opened in `store`, for it to admit.
        """
        shared = [longest_shared(row, prefixes, whole=self.shares) for row in rows]
        rest = max(len(row) - length for row, (length, _) in zip(rows, shared, strict=True))
        # Behind a prefix a row holds its own tokens alone; else it begins with a copy.
        behind = [prefix if self.shares else None for _, prefix in shared]
        own = [row[length if self.shares else 0 :] for row, (length, _) in zip(rows, shared, strict=True)]
        opened = store.open_rows([len(row) for row in own])
        opened.prefixes = behind
        opened.end = opened.column_capacity - rest
        for number, (row, (_, prefix)) in enumerate(zip(own, shared, strict=True)):
            if prefix is not None and behind[number] is None and len(row) > rest:
                _copy_prefix(prefix, opened, number, len(row) - rest)
        padded = [[row[0]] * (rest - len(row)) + row[-rest:] for row in own]
        return self(torch.tensor(padded, device=self.device), opened), opened


def passes(rests: Sequence[tuple[int, int]], device: torch.device) -> Iterator[list[int]]:
    """Split prompts into forward passes with little padding.

    Args:
        rests: for each prompt its number of rows and of tokens left to run.
        device: where they run.

    Yields the indices into `rests` of each pass, shortest prompts first.
    """
    budget = TOKENS_PER_PASS.get(device.type, TOKENS_PER_PASS_ACCELERATOR)
    chunk: list[int] = []
    rows = used = 0
    for index in sorted(range(len(rests)), key=lambda index: rests[index][1]):
        more, length = rests[index]
        total = (rows + more) * length
        if chunk and (total > budget or total - used - more * length > PADDING_SHARE * total):
            yield chunk
            chunk, rows, used = [], 0, 0
        chunk.append(index)
        rows, used = rows + more, used + more * length
    if chunk:
        yield chunk


def _copy_prefix(prefix: Prefix, store: KVStore, row: int, length: int) -> None:
    for mine, theirs in zip(store.layers, prefix.store.layers, strict=True):
        if not theirs.is_initialized:
            continue
        if not mine.is_initialized:
            mine.lazy_initialization(theirs.keys, theirs.values)
        columns = slice(store.first[row], store.first[row] + length)
        mine.keys[row, :, columns] = theirs.keys[0, :, :length]
        mine.values[row, :, columns] = theirs.values[0, :, :length]

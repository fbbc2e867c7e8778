"""The key/value store: right-aligned rows, written in place, grown in blocks (design section 6)."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from lalign.engine.shared_attention import SharedPart
from lalign.engine.transfer import to_device

BLOCK = 64
# Every new width costs a compilation, so a store of static shape grows in larger blocks.
STATIC_BLOCK = 512


class StoreLayer(CacheLayerMixin):
    """Keys and values of one layer, `[row capacity, heads, column capacity, head size]` each.

    What the model sees is the live part: the store's live rows, its columns from `start` to `end`.
    """

    # Says that an attention mask must always be made, so that stock transformers need not look at it on the host.
    is_compileable = True
    is_sliding = False

    def __init__(
        self,
        store: KVStore,
        number: int,
        part_of: StoreLayer | None = None,
        part: tuple[slice, slice] | None = None,
    ) -> None:
        super().__init__()
        self.number = number
        # Not to own it: a cycle would keep the storage until some later garbage collection.
        self.store = cast("KVStore", weakref.proxy(store))
        self.part_of = part_of
        self.part = part
        self.keys: Tensor
        self.values: Tensor
        self.is_initialized: bool = False
        if part_of is not None and part_of.is_initialized:
            self.lazy_initialization(part_of.keys, part_of.values)

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        if self.part_of is not None and self.part is not None:
            if not self.part_of.is_initialized:
                self.part_of.lazy_initialization(key_states, value_states)
            rows, columns = self.part
            self.keys, self.values = self.part_of.keys[rows, :, columns], self.part_of.values[rows, :, columns]
        else:
            room = self.store.row_capacity, self.store.column_capacity
            self.keys = key_states.new_zeros(room[0], key_states.shape[1], room[1], key_states.shape[3])
            self.values = value_states.new_zeros(room[0], value_states.shape[1], room[1], value_states.shape[3])
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write the new columns at `end`; return all live columns and the new ones.

        In a static step: the column at `position`; all of the storage.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if self.store.position is not None:
            self.keys.index_copy_(2, self.store.position, key_states)
            self.values.index_copy_(2, self.store.position, value_states)
            return self.keys, self.values
        store, stop = self.store, self.store.end + key_states.shape[2]
        self.keys[: store.rows, :, store.end : stop] = key_states
        self.values[: store.rows, :, store.end : stop] = value_states
        keys = self.keys[: store.rows, :, store.start : stop]
        keys.shared = store.shared_parts(self.number)  # type: ignore[attr-defined]
        return keys, self.values[: store.rows, :, store.start : stop]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.store.width + query_length, 0

    def get_seq_length(self) -> int:
        return self.store.width

    def get_max_length(self) -> int:
        return -1


@dataclass(frozen=True, slots=True, eq=False)
class Prefix:
    """Tokens that many prompts begin with, and their keys and values: a store of one row."""

    token_ids: list[int]
    store: KVStore

    @property
    def nbytes(self) -> int:
        """What its keys and values take."""
        layers = [cast(StoreLayer, layer) for layer in self.store.layers if layer.is_initialized]
        return sum(tensor.nbytes for layer in layers for tensor in (layer.keys, layer.values))

    def of_layer(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values of one layer, `[heads, tokens, head size]` each."""
        stored = cast(StoreLayer, self.store.layers[layer])
        columns = slice(self.store.start, self.store.end)
        return stored.keys[0, :, columns], stored.values[0, :, columns]


class KVStore(Cache):
    """Rows of keys and values whose last columns line up, in the shape stock transformers models take as a cache.

    A row's tokens fill the columns `first[row]` to `end`; those of a prefix that it stands behind are not here. Rows
    are numbered 0 to `rows` - 1 with no gaps. Since differences of columns are differences of positions, stock causal
    and sliding-window masks hold as they are.
    """

    def __init__(self, num_layers: int, rows: int = 0, columns: int = 0, block: int = BLOCK) -> None:
        super().__init__(layers=[StoreLayer(self, number) for number in range(num_layers)])
        self.block = block
        # Where a static step writes, `[1]` on the device; None outside of one.
        self.position: Tensor | None = None
        self.rows = rows
        self.row_capacity = rows
        self.expected_rows = rows
        self.expected_width = 0
        self.column_capacity = columns
        self.start = 0
        self.end = 0
        self.first: list[int] = [0] * rows
        # The prefix that each row stands behind, whose keys and values are not in this store; None for none.
        self.prefixes: list[Prefix | None] = [None] * rows
        self._grouped: list[Prefix | None] = []
        self._groups: list[tuple[Prefix, Tensor | slice]] = []
        self._copied_first: list[int] | None = None
        self._first_columns: Tensor

    @property
    def width(self) -> int:
        """Live columns."""
        return self.end - self.start

    def attention_mask(self, query_length: int, device: torch.device) -> Tensor:
        """Which live and coming columns hold a token of their row: bool `[rows, width + query_length]`."""
        columns = torch.arange(self.start, self.end + query_length, device=device)
        return columns >= self.first_columns(device)

    def position_ids(self, query_length: int, device: torch.device) -> Tensor:
        """Positions of the coming columns within their rows: `[rows, query_length]`; 0 left of a row's first token."""
        columns = torch.arange(self.end, self.end + query_length, device=device)
        positions = (columns - self.first_columns(device)).clamp_min_(0)
        for prefix, rows in self._behind():
            positions[rows] += len(prefix.token_ids)
        return positions

    def first_columns(self, device: torch.device) -> Tensor:
        """`first` on the device, `[rows, 1]`; made anew only when rows have come, gone or moved."""
        if self._copied_first != self.first:
            self._copied_first = list(self.first)
            self._first_columns = to_device(self.first, device).unsqueeze(-1)
        return self._first_columns

    def shared_parts(self, layer: int) -> list[SharedPart]:
        """What rows stand behind in one layer: one part for each prefix."""
        return [SharedPart(rows, *prefix.of_layer(layer)) for prefix, rows in self._behind()]

    def _behind(self) -> list[tuple[Prefix, Tensor | slice]]:
        """Each prefix with the rows behind it; made anew only when rows have come, gone or moved."""
        if self._grouped != self.prefixes:
            self._grouped = list(self.prefixes)
            behind: dict[Prefix, list[int]] = {}
            for row, prefix in enumerate(self.prefixes):
                if prefix is not None:
                    behind.setdefault(prefix, []).append(row)
            self._groups = [(prefix, _selection(rows)) for prefix, rows in behind.items()]
        return self._groups

    def reserve(self, query_length: int) -> None:
        """Make room for columns to come, dropping the columns that no live row uses any more."""
        self.start = min(self.first, default=self.end)
        if self.end + query_length > self.column_capacity:
            self._lay_out(self.rows, self.width, query_length)

    def advance(self, query_length: int) -> None:
        """Count the columns a forward pass has written as live."""
        self.end += query_length

    def expect(self, rows: int, width: int) -> None:
        """Say how many rows there are to be, and of how many tokens, so that storage is made for all at once."""
        self.expected_rows, self.expected_width = rows, width

    def fits(self, rows: int, tokens: int) -> bool:
        """True: a store grows until there is no memory left, which only trying tells."""
        return True

    def open_rows(self, lengths: list[int]) -> KVStore:
        """Rows to come, of so many tokens each, as a store of their own within this one's storage.

        Its columns line up with this store's last; what is written there is here without a copy. `admit` makes the
        rows live; until then nothing else may change this store.
        """
        width = max(lengths)
        if not self.rows:
            self.end = min(max(width, self.expected_width), self.column_capacity)
        self.start = min(self.first, default=self.end)
        if self.rows + len(lengths) > self.row_capacity or width > self.end:
            self._lay_out(self.rows + len(lengths), max(self.width, width, self.expected_width), 1)
        part = slice(self.rows, self.rows + len(lengths)), slice(self.end - width, self.end)
        opened = KVStore(0, len(lengths), width)
        opened.first = [width - length for length in lengths]
        opened.layers = [StoreLayer(opened, number, layer, part) for number, layer in enumerate(self.layers)]
        for layer in self.layers:
            for tensor in (layer.keys, layer.values) if layer.is_initialized else ():
                for row, length in enumerate(lengths, self.rows):
                    # A masked column still takes part as 0 * value, so what an earlier row left must be finite.
                    tensor[row, :, : self.end - length] = 0
        return opened

    def admit(self, opened: KVStore) -> list[int]:
        """Make the rows of a store that `open_rows` gave live; returns their numbers here."""
        rows = list(range(self.rows, self.rows + opened.rows))
        self.first += [first + self.end - opened.end for first in opened.first]
        self.prefixes += opened.prefixes
        self.rows += opened.rows
        self.start = min(self.first)
        return rows

    def fork(self, sources: list[int]) -> list[int]:
        """Copy rows; returns the numbers of the copies."""
        if self.rows + len(sources) > self.row_capacity:
            self._lay_out(self.rows + len(sources), self.width, 1)
        copies = list(range(self.rows, self.rows + len(sources)))
        self._copy(sources, copies)
        self.first += [self.first[row] for row in sources]
        self.prefixes += [self.prefixes[row] for row in sources]
        self.rows += len(sources)
        return copies

    def remove(self, rows: list[int]) -> dict[int, int]:
        """Drop rows; the last rows move into the gaps. Returns where each moved row went, old number to new."""
        gone, kept = set(rows), self.rows - len(rows)
        gaps = sorted(row for row in gone if row < kept)
        movers = [row for row in range(kept, self.rows) if row not in gone]
        self._copy(movers, gaps)
        for source, target in zip(movers, gaps, strict=True):
            self.first[target] = self.first[source]
            self.prefixes[target] = self.prefixes[source]
        del self.first[kept:], self.prefixes[kept:]
        self.rows = kept
        return dict(zip(movers, gaps, strict=True))

    def _copy(self, sources: list[int], targets: list[int]) -> None:
        if not sources:
            return
        for layer in self.layers:
            if not layer.is_initialized:
                continue
            for tensor in (layer.keys, layer.values):
                live = tensor[:, :, : self.end]
                for source, target in zip(sources, targets, strict=True):
                    live[target] = live[source]

    def _lay_out(self, rows: int, width: int, query_length: int) -> None:
        """Move to new storage: live columns end at `width`, with room for at least `query_length` more."""
        if rows > self.row_capacity:
            # Beyond what was expected, rows come a few at a time, as sequences part.
            self.row_capacity = max(rows + rows // 2 if rows > self.expected_rows else 0, self.expected_rows)
        self.column_capacity = -(-(width + query_length) // self.block) * self.block
        into = slice(width - self.width, width)
        for layer in self.layers:
            if not layer.is_initialized:
                continue
            for name in ("keys", "values"):
                old = getattr(layer, name)
                room = self.row_capacity, old.shape[1], self.column_capacity, old.shape[3]
                # What is right of the live columns is written before it is looked at, but in a static step.
                new = old.new_zeros(room) if self.block == STATIC_BLOCK else old.new_empty(room)
                new[: self.rows, :, : into.start] = 0
                new[: self.rows, :, into] = old[: self.rows, :, self.start : self.end]
                setattr(layer, name, new)
        self.first = [first + width - self.end for first in self.first]
        self.start, self.end = into.start, width


def _selection(rows: list[int]) -> Tensor | slice:
    """Rows in rising order as what selects them: a slice where they are evenly spaced, which copies nothing."""
    step = rows[1] - rows[0] if len(rows) > 1 else 1
    if rows == list(range(rows[0], rows[-1] + 1, step)):
        return slice(rows[0], rows[-1] + 1, step)
    return torch.tensor(rows)

"""The key/value store against the plainest one there is: a list of the values each row was given."""

from __future__ import annotations

import math

import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from torch import Tensor

from lalign.engine.cache import BLOCK, KVStore

LAYERS, HEADS, HEAD_SIZE = 2, 2, 3
CPU = torch.device("cpu")


def states(columns: list[list[float]], layer: int) -> tuple[Tensor, Tensor]:
    """Keys and values `[rows, heads, new, size]` that tell their row, column and layer, and each other, apart."""
    written = torch.tensor(columns, dtype=torch.float32)[:, None, :, None] + layer / 4
    keys = written.expand(-1, HEADS, -1, HEAD_SIZE)
    return keys, -keys


def write(store: KVStore, columns: list[list[float]]) -> list[tuple[Tensor, Tensor]]:
    """What a forward pass does to a store; gives what each layer's attention would be given."""
    new = len(columns[0])
    store.reserve(new)
    seen = [layer.update(*states(columns, number)) for number, layer in enumerate(store.layers)]
    store.advance(new)
    return seen


def join(store: KVStore, rows: list[list[float]]) -> list[int]:
    """What running prompts of unequal length together does to a store: the shorter ones are padded on the left."""
    opened = store.open_rows([len(row) for row in rows])
    longest = max(map(len, rows))
    write(opened, [[-1.0] * (longest - len(row)) + row for row in rows])
    return store.admit(opened)


def prefilled(rows: list[list[float]]) -> KVStore:
    store = KVStore(LAYERS)
    join(store, rows)
    return store


def assert_attends_to(store: KVStore, rows: list[list[float]], fresh: list[list[float]]) -> None:
    """One step: each row is to see its own past and what it is given now, at the right positions, and no more."""
    new = len(fresh[0])
    store.reserve(new)
    mask, positions = store.attention_mask(new, CPU), store.position_ids(new, CPU)
    seen = write(store, fresh)
    for number, (row, given) in enumerate(zip(rows, fresh, strict=True)):
        wanted = torch.tensor(row + given)
        assert mask[number].sum() == len(wanted)
        assert positions[number].tolist() == list(range(len(row), len(wanted)))
        for layer, (keys, values) in enumerate(seen):
            expected = (wanted + layer / 4)[None, :, None].expand(HEADS, -1, HEAD_SIZE)
            assert keys.shape == values.shape == (len(rows), HEADS, mask.shape[1], HEAD_SIZE)
            torch.testing.assert_close(keys[number][:, mask[number]], expected)
            torch.testing.assert_close(values[number][:, mask[number]], -expected)
            # A masked column takes part in attention as 0 * value, so it must be a number.
            assert keys[number].isfinite().all()
            assert values[number].isfinite().all()


class StoreMachine(RuleBasedStateMachine):
    """Rows come, grow, are copied and go in any order; after each, every row sees its own past and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.store = KVStore(LAYERS)
        self.rows: list[list[float]] = []
        self.written = 0

    def values(self, count: int) -> list[float]:
        self.written += count
        return [float(value) for value in range(self.written - count, self.written)]

    @rule(lengths=st.lists(st.integers(1, 2 * BLOCK + 2), min_size=1, max_size=4))
    def join(self, lengths: list[int]) -> None:
        if len(self.rows) > 12:
            return
        joining = [self.values(length) for length in lengths]
        assert join(self.store, joining) == list(range(len(self.rows), len(self.rows) + len(joining)))
        self.rows += joining

    @precondition(lambda self: self.rows)
    @rule(new=st.sampled_from([1, 1, 1, 7, BLOCK]))
    def step(self, new: int) -> None:
        fresh = [self.values(new) for _ in self.rows]
        assert_attends_to(self.store, self.rows, fresh)
        self.rows = [row + given for row, given in zip(self.rows, fresh, strict=True)]

    @precondition(lambda self: 0 < len(self.rows) <= 12)
    @rule(data=st.data())
    def fork(self, data: st.DataObject) -> None:
        sources = data.draw(st.lists(st.sampled_from(range(len(self.rows))), max_size=3))
        copies = self.store.fork(sources)
        assert copies == list(range(len(self.rows), len(self.rows) + len(sources)))
        self.rows += [self.rows[source] for source in sources]

    @precondition(lambda self: self.rows)
    @rule(data=st.data(), damaged=st.booleans())
    def remove(self, data: st.DataObject, damaged: bool) -> None:
        gone = data.draw(st.lists(st.sampled_from(range(len(self.rows))), unique=True))
        if damaged:  # rows leave because their numbers are no numbers; whoever takes their place must not see that
            fresh = [[math.nan] if number in gone else self.values(1) for number in range(len(self.rows))]
            write(self.store, fresh)
            self.rows = [row + given for row, given in zip(self.rows, fresh, strict=True)]
        moved = self.store.remove(gone)
        left = {moved.get(number, number): row for number, row in enumerate(self.rows) if number not in gone}
        assert sorted(left) == list(range(len(self.rows) - len(gone)))
        self.rows = [left[number] for number in sorted(left)]
        assert self.store.rows == len(self.rows)

    def teardown(self) -> None:
        if self.rows:
            self.step(1)


TestAnySequenceOfOperations = StoreMachine.TestCase
TestAnySequenceOfOperations.settings = settings(max_examples=40, stateful_step_count=20)


def test_masks_and_positions_of_rows_that_line_up_at_their_ends() -> None:
    store = prefilled([[1.0, 2.0, 3.0], [4.0]])
    assert store.attention_mask(2, CPU).tolist() == [[True] * 5, [False, False, True, True, True]]
    assert store.position_ids(2, CPU).tolist() == [[3, 4], [1, 2]]


def test_positions_left_of_a_row_are_zero_not_negative() -> None:
    store = KVStore(LAYERS, rows=2, columns=4)
    store.first = [0, 3]
    assert store.position_ids(4, CPU).tolist() == [[0, 1, 2, 3], [0, 0, 0, 0]]


def test_a_growing_store_moves_once_a_block() -> None:
    store = prefilled([[1.0]])
    places = {store.layers[0].keys.data_ptr()}
    moves = 0
    for step in range(4 * BLOCK):
        kept = store.layers[0].keys
        write(store, [[float(step)]])
        moves += store.layers[0].keys is not kept
        places.add(store.layers[0].keys.data_ptr())
    assert moves <= 5
    assert store.layers[0].keys.shape[2] % BLOCK == 0


def test_columns_that_no_live_row_uses_are_dropped() -> None:
    lifetime = BLOCK // 2
    store = KVStore(LAYERS)
    for step in range(10 * BLOCK):
        join(store, [[float(step)]])
        if store.rows > lifetime:  # the oldest leaves, as rows of a long job do
            oldest = min(range(store.rows), key=store.first.__getitem__)
            store.remove([oldest])
        write(store, [[float(step)]] * store.rows)
        assert store.width <= lifetime + 2
        assert store.layers[0].keys.shape[2] <= 2 * BLOCK


def test_columns_are_dropped_when_the_row_that_used_them_leaves() -> None:
    store = prefilled([[1.0] * 50, [2.0] * 3])
    store.remove([0])
    write(store, [[3.0]])
    assert store.width == 4


def test_a_row_does_not_inherit_what_a_damaged_one_left_in_its_place() -> None:
    store = prefilled([[1.0], [2.0]])
    write(store, [[3.0], [math.nan]])
    store.remove([1])
    for step in range(4):
        write(store, [[4.0 + step]])
    join(store, [[9.0]])
    assert_attends_to(store, [[1.0, 3.0, 4.0, 5.0, 6.0, 7.0], [9.0]], [[8.0], [10.0]])


def test_an_emptied_store_starts_anew() -> None:
    store = prefilled([[1.0] * 50, [2.0] * 20])
    store.remove([0, 1])
    assert store.rows == 0
    join(store, [[5.0, 6.0]])
    assert_attends_to(store, [[5.0, 6.0]], [[7.0]])
    assert store.width == 3


def test_layers_that_store_nothing_of_their_own_are_passed_over() -> None:
    """As in models whose upper layers share the keys of a lower one."""
    store = KVStore(2)
    for _ in range(2):
        opened = store.open_rows([2])
        opened.layers[0].update(*states([[1.0, 2.0]], layer=0))
        opened.advance(2)
        store.admit(opened)
    store.fork([0])
    store.remove([1])
    store.reserve(BLOCK)
    assert store.layers[0].keys[1, 0, store.start : store.end, 0].tolist() == [1.0, 2.0]
    assert not store.layers[1].is_initialized


def test_what_stock_masks_ask_of_a_cache() -> None:
    store = prefilled([[1.0, 2.0], [3.0]])
    assert store.get_seq_length() == 2
    assert store.get_mask_sizes(3, 0) == (5, 0)
    assert not any(store.is_sliding)

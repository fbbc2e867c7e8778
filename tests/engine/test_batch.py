"""Which rows serve which sequences, and which sequences can be served in one call."""

from __future__ import annotations

import pytest
import torch

from lalign.engine.batch import Batch, Group
from lalign.engine.interface import Point, Request, Sequence
from lalign.method.linear_alignment import Alignment
from lalign.options import Sampling

CPU = torch.device("cpu")


def sequence(
    ratio: float = 2.0, tokens: tuple[int, ...] = (5,), weights: tuple[float, ...] = (1.0,), **settings: object
) -> Sequence:
    aligned = {name: value for name, value in settings.items() if name in Alignment.__dataclass_fields__}
    drawn = {name: value for name, value in settings.items() if name in Sampling.__dataclass_fields__}
    point = Point(Alignment(ratio=ratio, **aligned), Sampling(**drawn))  # type: ignore[arg-type]
    return Sequence(Request(0, [1], ([2],) * len(weights), weights, (point,)), point, list(tokens))


def test_every_row_takes_the_last_token_of_its_group() -> None:
    first, second, third = (sequence(tokens=(1, token)) for token in (7, 8, 9))
    batch = Batch([Group([3, 0], [first]), Group([1, 2], [second]), Group([4, 4], [third])], CPU)
    assert batch.input_ids.tolist() == [[7], [8], [8], [7], [9]]


def test_sequences_of_a_group_share_its_rows() -> None:
    batch = Batch([Group([0, 1], [sequence(1.0), sequence(2.0)]), Group([2, 3], [sequence(3.0)])], CPU)
    (partition,) = batch.partitions
    assert partition.rows.tolist() == [[0, 0, 2], [1, 1, 3]]
    assert partition.ratio.tolist() == [1.0, 2.0, 3.0]
    assert partition.members.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        (sequence(2.0), sequence(5.0), True),
        (sequence(2.0, seed=1, max_new_tokens=9, stop=("a",)), sequence(2.0), True),
        (sequence(2.0, recipe="paper"), sequence(2.0), True),
        (sequence(0.0), sequence(2.0), False),
        (sequence(0.0, anchor="principle"), sequence(2.0, anchor="principle"), True),
        (sequence(p=3), sequence(p=2), False),
        (sequence(support="none"), sequence(), False),
        (sequence(max_kl=1.0), sequence(), False),
        (sequence(temperature=0.5), sequence(), False),
        (sequence(top_k=3, temperature=1), sequence(top_k=4, temperature=1), False),
        (sequence(weights=(1.0, 1.0)), sequence(weights=(1.0, 0.5)), False),
    ],
)
def test_what_differs_in_more_than_the_ratio_is_served_apart(one: Sequence, other: Sequence, together: bool) -> None:
    batch = Batch([Group([0, 1], [one]), Group([2, 3], [other])], CPU)
    assert [len(partition.sequences) for partition in batch.partitions] == ([2] if together else [1, 1])
    members = torch.cat([partition.members for partition in batch.partitions])
    assert members.sort().values.tolist() == [0, 1]


def test_the_base_row_and_one_for_each_principle() -> None:
    weights = (1.0, 0.5, -1.0)
    batch = Batch(
        [Group([0, 1, 2, 3], [sequence(weights=weights)]), Group([7, 4, 6, 5], [sequence(weights=weights)])], CPU
    )
    (partition,) = batch.partitions
    assert partition.rows.T.tolist() == [[0, 1, 2, 3], [7, 4, 6, 5]]
    assert partition.weights == weights


def test_a_change_of_groups_counts_after_a_refresh() -> None:
    batch = Batch([Group([0, 1], [sequence(tokens=(7,))]), Group([2, 3], [sequence(tokens=(8,))])], CPU)
    del batch.groups[0]
    batch.groups[0].rows = [0, 1]
    batch.refresh()
    assert batch.input_ids.tolist() == [[8], [8]]
    assert len(batch.sequences) == 1


def test_an_empty_batch_has_nothing() -> None:
    batch = Batch([], CPU)
    assert (batch.sequences, batch.partitions, batch.input_ids.shape) == ([], [], (0, 1))


def test_numbers_are_drawn_for_sequences_that_sample_alone() -> None:
    assert sequence().uniforms == []
    numbers = sequence(temperature=0.7, max_new_tokens=12).uniforms
    assert len(numbers) == 12
    assert all(0 <= number < 1 for number in numbers)
    assert sequence(temperature=1.5, max_new_tokens=5).uniforms == numbers[:5]


def test_the_length_of_a_request_is_that_of_its_longest_twin() -> None:
    point = Point(Alignment(), Sampling())
    assert Request(0, [1] * 9, ([2] * 4, [3] * 12), (1.0, 1.0), (point,)).length == 12
    assert Request(0, [1] * 9, (), (), (point,)).length == 9

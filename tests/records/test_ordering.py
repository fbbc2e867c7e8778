"""Outcomes leave in the order of the input, whatever the order they are ready in."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from lalign.records.ordering import InOrder
from lalign.results import Failure


def outcome(position: int, place: int = 0) -> Failure:
    return Failure(f"{position}.{place}", position + 1, "not_finite", "a point of a record that failed")


def names(outcomes: Sequence[object]) -> list[object]:
    return [outcome.id for outcome in outcomes if isinstance(outcome, Failure)]


def test_an_outcome_leaves_when_it_is_ready_and_its_predecessors_have_left() -> None:
    order = InOrder()
    order.put(1, 0, outcome(1))
    assert order.ready() == []
    order.put(0, 0, outcome(0))
    assert names(order.ready()) == ["0.0", "1.0"]
    assert order.ready() == []


def test_a_position_leaves_whole_with_its_points_in_their_order() -> None:
    order = InOrder(points=3)
    for place in (2, 0):
        order.put(0, place, outcome(0, place))
        assert order.ready() == []
    order.put(0, 1, outcome(0, 1))
    assert names(order.ready()) == ["0.0", "0.1", "0.2"]


def test_a_position_that_fails_as_a_whole_needs_no_points() -> None:
    order = InOrder(points=3)
    order.fail(0, outcome(0))
    assert names(order.ready()) == ["0.0"]


def test_points_may_fail_one_by_one() -> None:
    order = InOrder(points=2)
    order.put(0, 0, outcome(0, 0))
    assert order.ready() == []
    order.put(0, 1, outcome(0, 1))
    assert names(order.ready()) == ["0.0", "0.1"]


@given(data=st.data(), count=st.integers(0, 12), points=st.integers(1, 3))
def test_every_outcome_leaves_once_and_in_order(data: st.DataObject, count: int, points: int) -> None:
    failed = data.draw(st.sets(st.integers(0, max(count - 1, 0))))
    whole: list[tuple[int, int | None]] = [(position, None) for position in range(count) if position in failed]
    parts = [(position, place) for position in range(count) if position not in failed for place in range(points)]
    order = InOrder(points)
    left: list[object] = []
    for position, place in data.draw(st.permutations([*whole, *parts])):
        if place is None:
            order.fail(position, outcome(position))
        else:
            order.put(position, place, outcome(position, place))
        left += names(order.ready())
    assert left == [
        f"{position}.{place}" for position in range(count) for place in ([0] if position in failed else range(points))
    ]

"""Reading ahead in a thread: in which order requests are given out, how far is read, and what is waited for."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lalign.engine.interface import Request
from lalign.records import lookahead
from lalign.records.lookahead import Lookahead
from lalign.results import Failure

Item = tuple[int, Request | Failure]


def request(key: int, length: int = 5) -> Request:
    return Request(key, [0], ([0] * length,), (1.0,), ())


def items(lengths: Iterable[int | None]) -> Iterator[Item]:
    """Requests by length, and a failure for each None."""
    for position, length in enumerate(lengths):
        failure = Failure(position, position + 1, "invalid_json", "not valid JSON")
        yield position, failure if length is None else request(position, length)


def until_something(source: Lookahead, room: int) -> list[Request] | None:
    """Asks as an engine with nothing in flight does."""
    while (given := source(room, True)) == []:
        pass
    return given


def keys_of(requests: list[Request] | None) -> list[int] | None:
    return None if requests is None else [request.key for request in requests]


def all_read(lengths: list[int | None]) -> Lookahead:
    """A source that has all of a short input at hand."""
    finished = threading.Event()

    def reading() -> Iterator[Item]:
        yield from items(lengths)
        finished.set()

    source = Lookahead(reading(), window=len(lengths) + 1)
    assert finished.wait(30)
    return source


def test_requests_alike_come_in_their_order() -> None:
    source = all_read([5] * 5)
    assert [keys_of(until_something(source, 2)) for _ in range(4)] == [[0, 1], [2, 3], [4], None]


def test_the_longest_come_first_so_that_those_together_are_of_a_length() -> None:
    source = all_read([10, 90, 11, 50, 9, 12, 91])
    assert [keys_of(until_something(source, 3)) for _ in range(4)] == [[6, 1, 3], [5, 2, 0], [4], None]


def test_no_more_than_a_window_goes_before_the_oldest() -> None:
    ahead = threading.Event()

    def reading() -> Iterator[Item]:
        yield from items([1, *[9] * 3])
        ahead.set()
        yield from ((position, request(position, 9)) for position in range(4, 31))

    source = Lookahead(reading(), window=4)
    assert ahead.wait(30)
    keys = [key for _ in range(31) for key in keys_of(until_something(source, 1)) or []]
    assert keys.index(0) == 3
    assert sorted(keys) == list(range(31))


@settings(max_examples=30)
@given(st.lists(st.one_of(st.none(), st.integers(1, 500)), max_size=30), st.integers(1, 8), st.integers(1, 9))
def test_every_item_comes_once_and_none_waits_for_ever(lengths: list[int | None], room: int, window: int) -> None:
    source = Lookahead(items(lengths), window)
    left = [position for position, length in enumerate(lengths) if length is not None]
    passed = 0
    while (given := until_something(source, room)) is not None:
        keys = [request.key for request in given]
        assert 0 < len(keys) <= room
        assert set(keys) <= set(left)
        passed = 0 if left[0] in keys else passed + len(keys)
        assert passed < window
        left = [key for key in left if key not in keys]
    assert not left
    assert [position for position, _ in source.take_failed()] == [
        position for position, length in enumerate(lengths) if length is None
    ]
    assert source.error is None


@pytest.mark.parametrize("window", [1, 4, 32])
def test_no_more_is_read_than_two_windows_ahead(window: int) -> None:
    read = 0
    reached = threading.Event()

    def endless() -> Iterator[Item]:
        nonlocal read
        while True:
            read += 1
            if read > window:
                reached.set()
            yield read, request(read)

    source = Lookahead(endless(), window)
    assert reached.wait(30)
    assert read == window + 1  # a queue of one window, and the item that finds it full
    for taken in range(1, 100):
        assert source(1, True) is not None
        assert read <= taken + 2 * window + 1
    source.close()


def test_the_end_of_a_closed_source_is_not_read() -> None:
    closed, ended = threading.Event(), threading.Event()

    def reading() -> Iterator[Item]:
        try:
            yield from items([5])
            closed.wait(30)
            yield from items([5] * 1000)
        finally:
            ended.set()

    source = Lookahead(reading(), window=2)
    assert keys_of(until_something(source, 1)) == [0]
    source.close()
    del source  # the iterator is let go of when nobody reads it any more
    closed.set()
    assert ended.wait(30)


def test_nothing_is_waited_for_while_something_is_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookahead, "PATIENCE", 20)
    typed = threading.Event()

    def slow() -> Iterator[Item]:
        yield from items([5])
        typed.wait(60)
        yield 1, request(1)

    source = Lookahead(slow(), window=4)
    assert keys_of(source(4, True)) == [0]
    began = time.monotonic()
    assert source(4, False) == []
    assert time.monotonic() - began < 10
    typed.set()
    assert keys_of(source(4, True)) == [1]
    assert until_something(source, 4) is None


def test_a_wait_for_input_is_short_so_that_the_caller_can_look_around() -> None:
    typed = threading.Event()

    def silent() -> Iterator[Item]:
        typed.wait(60)
        yield from items([5])

    source = Lookahead(silent(), window=4)
    assert source(1, True) == []
    typed.set()
    assert keys_of(until_something(source, 1)) == [0]


def test_a_failure_is_heard_of_at_once_even_if_nothing_follows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookahead, "PATIENCE", 20)
    typed = threading.Event()

    def slow() -> Iterator[Item]:
        yield from items([None])
        typed.wait(60)
        yield 1, request(1)

    source = Lookahead(slow(), window=4)
    began = time.monotonic()
    assert source(4, True) == []
    assert time.monotonic() - began < 10
    assert [position for position, _ in source.take_failed()] == [0]
    typed.set()
    assert keys_of(until_something(source, 4)) == [1]


def test_an_error_waits_until_all_that_came_before_it_is_given_out() -> None:
    def breaking() -> Iterator[Item]:
        yield from items([5, None, 6])
        raise OSError("the disk is gone")

    source = Lookahead(breaking(), window=8)
    given: list[int] = []
    while (requests := until_something(source, 1)) is not None:
        given += keys_of(requests) or []
    assert sorted(given) == [0, 2]
    assert len(source.take_failed()) == 1
    assert isinstance(source.error, OSError)


def when_ready(source: Lookahead) -> Lookahead:
    while not source.ready():
        pass
    return source


def test_the_requests_at_hand() -> None:
    def lengths(source: Lookahead) -> list[int]:
        return [request.length for request in when_ready(source).at_hand()]

    assert lengths(all_read([3, 70, None, 8])) == [3, 70, 8]
    assert lengths(Lookahead(items([]), window=4)) == []
    assert lengths(Lookahead(items([None, 9]), window=4)) == [9]

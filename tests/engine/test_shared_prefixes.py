"""Which beginnings are run once and kept, and that rows from them say what rows that run their own tokens say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import VOCABULARY, TinyModel
from hypothesis import given, settings
from hypothesis import strategies as st

from lalign.engine import shared_prefixes
from lalign.engine.engine import Engine
from lalign.engine.forward import Forward
from lalign.engine.interface import Point, Request
from lalign.engine.shared_prefixes import TOKENS_SAVED, SharedPrefixes
from lalign.method.linear_alignment import Alignment
from lalign.options import Sampling

SYSTEM = [(7 * place + 3) % VOCABULARY for place in range(20)]
PRINCIPLES = [[(11 * place + 30 + number) % VOCABULARY for place in range(40)] for number in range(3)]


def tail(number: int) -> list[int]:
    """The tokens of a prompt of its own."""
    return [(number * 37 + place * place * 13 + 5) % VOCABULARY for place in range(4 + number % 5)]


@pytest.fixture
def prefixes(tiny_model: TinyModel) -> SharedPrefixes:
    return SharedPrefixes(Forward(tiny_model("llama")))


def lengths(prefixes: SharedPrefixes) -> list[int]:
    return sorted(map(len, prefixes.kept))


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        pytest.param([[*SYSTEM, *PRINCIPLES[0], *tail(0)]], [], id="one row"),
        pytest.param([tail(number) for number in range(9)], [], id="none that share"),
        pytest.param([[*SYSTEM, *tail(number)] for number in range(9)], [20], id="one for all"),
        pytest.param([[*SYSTEM, *tail(number)] for number in range(3)], [], id="too few to be worth it"),
        pytest.param([[*PRINCIPLES[0]] * 5] * 2, [199], id="rows that are the same but for nothing"),
        pytest.param(
            [[*SYSTEM, *PRINCIPLES[number % 3], *tail(number)] for number in range(30)],
            [20, 60, 60, 60],
            id="several, which go on from one",
        ),
        pytest.param(
            [[*SYSTEM, *tail(number)] for number in range(9)] + [tail(number) for number in range(9)],
            [20],
            id="one for some",
        ),
    ],
)
def test_which_beginnings_are_kept(prefixes: SharedPrefixes, rows: list[list[int]], wanted: list[int]) -> None:
    prefixes.serving(rows)
    assert lengths(prefixes) == wanted
    kept = dict(prefixes.kept)
    prefixes.serving(rows[::-1])  # nothing is run twice
    assert prefixes.kept == kept


def test_rows_to_come_and_rows_of_the_past_count(prefixes: SharedPrefixes) -> None:
    rows = [[*SYSTEM, *tail(number)] for number in range(9)]
    prefixes.serving(rows[:1], rows[1:])
    assert lengths(prefixes) == [20]
    others = [[*PRINCIPLES[0], *tail(number)] for number in range(9)]
    for number, row in enumerate(others):
        prefixes.serving([row])
        enough = number * len(PRINCIPLES[0]) >= TOKENS_SAVED
        assert lengths(prefixes) == ([20, 40] if enough else [20])


def test_the_oldest_go_where_room_is_short(prefixes: SharedPrefixes, monkeypatch: pytest.MonkeyPatch) -> None:
    forty = prefixes.forward.prefix(PRINCIPLES[0]).nbytes
    monkeypatch.setattr(shared_prefixes, "free_bytes", lambda device: 25 * forty)  # a tenth is two and a half
    for principle in (0, 1, 0, 2):
        prefixes.serving([[*PRINCIPLES[principle], *tail(number)] for number in range(9)])
    assert list(prefixes.kept) == [tuple(PRINCIPLES[0]), tuple(PRINCIPLES[2])]


def test_without_memory_for_a_prefix_rows_run_their_own(
    prefixes: SharedPrefixes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError("no memory for this pass")

    monkeypatch.setattr(prefixes.forward, "prefix", fail)
    assert prefixes.serving([[*SYSTEM, *tail(number)] for number in range(9)]) == []


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma3"])
def test_a_prefix_from_another_is_that_of_its_tokens(tiny_model: TinyModel, kind: str) -> None:
    """gemma3 looks back over a window, shorter than either."""
    forward = Forward(tiny_model(kind))
    ids = [*SYSTEM, *PRINCIPLES[0]]
    alone, joined = forward.prefix(ids), forward.prefix(ids, [forward.prefix(SYSTEM), forward.prefix(SYSTEM[:5])])
    for layer in range(forward.num_layers):
        for mine, theirs in zip(joined.of_layer(layer), alone.of_layer(layer), strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


# Jobs.


def job(kinds: list[int]) -> list[Request]:
    """Pairs; the principled twin of each behind none of the principles, one, or one behind the system text."""
    heads = [[], PRINCIPLES[0], *([*SYSTEM, *principle] for principle in PRINCIPLES)]
    return [
        Request(
            number,
            [*(SYSTEM if kind > 1 else []), *tail(number)],
            ([*heads[kind], *tail(number)],),
            (1.0,),
            tuple(
                Point(Alignment(ratio=ratio), Sampling(max_new_tokens=3 + number % 4), place=place)
                for place, ratio in enumerate((1.5, 4.0)[: 1 + number % 2])
            ),
        )
        for number, kind in enumerate(kinds)
    ]


def answers(model: Any, requests: list[Request], batch_size: int, keep: Callable[[Forward], Any]) -> dict[Any, Any]:
    forward = Forward(model)
    engine = Engine(forward, frozenset({1}), batch_size, "none", 2)
    kept, waiting = keep(forward), list(requests)

    def source(room: int, wait: bool) -> list[Request] | None:
        if not waiting:
            return None
        given, waiting[:] = waiting[:room], waiting[room:]
        if kept is not None:
            engine.prefixes = kept.serving([row for request in given for row in (request.base, *request.principled)])
        return given

    return {
        (end.sequence.request.key, end.sequence.point.place): (end.sequence.tokens, end.reason)
        for ended in engine.run(source)
        for end in ended
    }


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2", "gemma3"])
@settings(max_examples=8)
@given(
    kinds=st.lists(st.integers(0, 4), min_size=8, max_size=24),
    batch_size=st.sampled_from([1, 4, 7]),
    share=st.sampled_from([1.0, 1e-9]),
    short=st.booleans(),
)
def test_tokens_are_those_of_rows_that_run_all_their_own(
    tiny_model: TinyModel, kind: str, kinds: list[int], batch_size: int, share: float, short: bool
) -> None:
    """Rows join and leave, points part, and prefixes go while rows stand behind them where there is room for one."""
    requests = job(kinds)
    wanted = answers(tiny_model(kind), requests, batch_size, lambda forward: None)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(shared_prefixes, "MEMORY_SHARE", share)
        if short:
            patched.setattr(shared_prefixes, "TOKENS_SAVED", 16)
        assert answers(tiny_model(kind), requests, batch_size, SharedPrefixes) == wanted

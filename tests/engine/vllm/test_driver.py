"""Pairs through a scheduler like vLLM's: none parts where capacity are true; where they are not, none goes wrong."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from simulated import SimulatedVllm
from torch import Tensor

from lalign.engine.batch import Batch, Group
from lalign.engine.decoding import choose
from lalign.engine.engine import twins_needed
from lalign.engine.interface import Ended, Point, Request
from lalign.engine.interface import Sequence as Response
from lalign.engine.vllm.admission import Capacity
from lalign.engine.vllm.driver import Driver
from lalign.errors import LalignError, OptionError
from lalign.method.linear_alignment import Alignment
from lalign.method.recipe import Recipe
from lalign.options import Sampling, Statistics

VOCABULARY = 40
EOS = 3
TABLE = torch.randn(11, VOCABULARY, VOCABULARY, generator=torch.Generator().manual_seed(0)) * 3
ROOMY = Capacity(rows=64, tokens=4096, blocks=4096, block_size=4)


def model(token_ids: list[int]) -> Tensor:
    """Logits behind token ids, which depend on the last, on their number and on their sum."""
    return TABLE[(len(token_ids) + sum(token_ids)) % 11, token_ids[-1]]


class Given:
    """A source that has all requests at hand."""

    prefixes: Sequence[list[int]] = ()

    def __init__(self, requests: list[Request]) -> None:
        self.requests = list(requests)
        self.points = max((len(request.points) for request in requests), default=1)

    def __call__(self, room: int, wait: bool) -> list[Request] | None:
        taken, self.requests = self.requests[:room], self.requests[room:]
        return taken or None

    def at_hand(self) -> list[Request]:
        return self.requests


def plainly(request: Request, point: Point, statistics: Statistics = "steps") -> Response:
    """One response, its twins stepped alone: the plain twin of the driver."""
    prompts, places = twins_needed(replace(request, points=(point,)), statistics)
    response = Response(request, point)
    while not response.tokens or response.end_reason(frozenset({EOS})) is None:
        logits = torch.stack([model(prompt + response.tokens) for prompt in prompts])
        step = choose(logits, Batch([Group(places, [response])], torch.device("cpu")), statistics != "none")
        response.tokens.append(int(step.tokens))
        if step.statistics is not None:
            response.steps.append(step.statistics[0].numpy())
    return response


def answers(driver: Driver, requests: list[Request]) -> dict[tuple[Any, int], Ended]:
    ended = [end for step in driver.run(Given(requests)) for end in step]
    found = {(end.sequence.request.key, end.sequence.point.place): end for end in ended}
    assert len(found) == len(ended) == sum(len(request.points) for request in requests)
    return found


def compare(driver: Driver, requests: list[Request]) -> None:
    """Every response is what the twins alone say, to the token, and its statistics to rounding."""
    found = answers(driver, requests)
    for request in requests:
        for point in request.points:
            end, wanted = found[request.key, point.place], plainly(request, point, driver.statistics)
            assert end.sequence.tokens == wanted.tokens
            assert end.reason == wanted.end_reason(frozenset({EOS}))
            assert len(end.sequence.steps) == len(wanted.tokens)
            if driver.statistics != "none":
                for mine, theirs in zip(end.sequence.steps, wanted.steps, strict=True):
                    assert mine == pytest.approx(theirs, abs=1e-4, nan_ok=True)


def driver_on(capacity: Capacity, interface: str = "v1", **given: Any) -> Driver:
    simulated = SimulatedVllm(given.pop("truly", capacity), model, interface)
    given = {"batch_size": 8, "statistics": "steps", **given}
    return Driver(simulated, capacity, frozenset({EOS}), **given)


def request_of(key: int, prompts: list[list[int]], *points: Point) -> Request:
    base, *principled = prompts
    return Request(key, base, tuple(principled), (1.0,) * len(principled), points)


def many(number: int, length: int = 6, new_tokens: int = 7, **sampling: Any) -> list[Request]:
    """Pairs of unlike prompts, the principled the longer."""
    drawn = Sampling(max_new_tokens=new_tokens, **sampling)
    return [
        request_of(
            key,
            [
                [4 + (key * 7 + place) % 30 for place in range(length)],
                [5 + (key + place) % 30 for place in range(length + 3)],
            ],
            Point(Alignment(ratio=2), drawn, (0, key)),
        )
        for key in range(number)
    ]


@st.composite
def works(draw: st.DrawFn) -> list[Request]:
    ids = st.integers(4, VOCABULARY - 1)
    principles = draw(st.integers(1, 2))
    recipes: st.SearchStrategy[Recipe] = st.builds(
        Alignment, ratio=st.sampled_from([0, 1, 2.5]), support=st.sampled_from(["principle", "none"])
    )
    requests = []
    for key in range(draw(st.integers(1, 7))):
        prompts = [draw(st.lists(ids, min_size=1, max_size=17)) for _ in range(1 + principles)]
        points = tuple(
            Point(
                draw(recipes),
                Sampling(
                    temperature=draw(st.sampled_from([0.0, 1.0])),
                    repetition_penalty=draw(st.sampled_from([1.0, 1.3])),
                    max_new_tokens=draw(st.integers(1, 9)),
                ),
                (key, place),
                place=place,
                logprobs=draw(st.sampled_from([0, 3])),
            )
            for place in range(draw(st.integers(1, 2)))
        )
        requests.append(request_of(key, prompts, *points))
    return requests


tight = st.builds(
    Capacity,
    rows=st.integers(3, 12),
    tokens=st.integers(12, 60),
    blocks=st.integers(24, 60),
    block_size=st.sampled_from([1, 3, 4]),
)


@settings(deadline=None, max_examples=60)
@given(works(), tight, st.sampled_from(["v1", "v2"]), st.sampled_from(["steps", "none"]))
def test_no_pair_parts_within_true_capacity(
    requests: list[Request], capacity: Capacity, interface: str, statistics: Statistics
) -> None:
    assume(all(3 * -(-26 // capacity.block_size) <= capacity.blocks for _ in requests))
    driver = driver_on(capacity, interface, statistics=statistics)
    compare(driver, requests)
    assert driver.counters.pairs_parted == 0
    assert driver.process.put_out == 0  # type: ignore[attr-defined]


@settings(deadline=None, max_examples=60)
@given(works(), tight, st.sampled_from(["v1", "v2"]))
def test_no_answer_is_wrong_where_limits_are_not_true(
    requests: list[Request], capacity: Capacity, interface: str
) -> None:
    driver = driver_on(ROOMY, interface, truly=capacity)
    with contextlib.suppress(LalignError):  # where it cannot be right it refuses
        compare(driver, requests)


@pytest.mark.parametrize("interface", ["v1", "v2"])
@pytest.mark.parametrize(
    "truly",
    [
        pytest.param(replace(ROOMY, tokens=24), id="few tokens in a step"),
        pytest.param(replace(ROOMY, blocks=20), id="few blocks"),
        pytest.param(replace(ROOMY, rows=5), id="few requests at once"),
    ],
)
def test_pairs_that_part_begin_anew(truly: Capacity, interface: str) -> None:
    driver = driver_on(ROOMY, interface, truly=truly)
    compare(driver, many(8))
    assert driver.counters.pairs_parted > 0


@pytest.mark.parametrize("interface", ["v1", "v2"])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_twin_that_comes_late_parts_its_pair_alone(interface: str, steps: int) -> None:
    driver = driver_on(ROOMY, interface)
    driver.process.holds_back["2/1"] = steps  # type: ignore[attr-defined]
    compare(driver, many(4))
    assert driver.counters.pairs_parted == 1


def test_a_prompt_longer_than_a_step_is_run_before_its_pair_joins() -> None:
    driver = driver_on(replace(ROOMY, tokens=16))
    compare(driver, many(3, length=40))
    assert driver.counters.pairs_parted == 0


def test_what_never_fits_is_out_of_memory_and_the_others_are_not() -> None:
    small, large = many(3), [replace(many(1, length=60)[0], key=9)]
    found = answers(driver_on(replace(ROOMY, blocks=20)), [small[0], *large, *small[1:]])
    assert {key: end.reason == "out_of_memory" for (key, _), end in found.items()} == {
        **{request.key: False for request in small},
        9: True,
    }


@pytest.mark.parametrize(
    ("capacity", "problem"),
    [
        (replace(ROOMY, rows=1), "max_num_seqs=1 is too little: a prompt here takes 2"),
        (replace(ROOMY, tokens=2), "max_num_batched_tokens=2 is too little: a prompt here takes 3"),
        (replace(ROOMY, tokens=14, caches=False), "max_num_batched_tokens=14 is too little: a prompt here takes 15"),
        (replace(ROOMY, rows=1, rows_by="max_num_active_seqs"), "max_num_active_seqs=1 is too little: .*"),
        (
            replace(ROOMY, tokens=2, tokens_by="max_num_scheduled_tokens"),
            "max_num_scheduled_tokens=2 is .*",
        ),
    ],
)
def test_options_that_hold_no_pair_are_refused(capacity: Capacity, problem: str) -> None:
    with pytest.raises(OptionError, match=f"^engine_option: {problem}$"):
        answers(driver_on(capacity), many(1))


def test_a_stop_string_ends_a_pair_and_frees_what_it_held() -> None:
    (free,) = many(1)
    tokens = plainly(free, free.points[0]).tokens
    stopped = replace(free, points=(replace(free.points[0], stops=lambda taken: taken == tokens[:3]),))
    driver = driver_on(ROOMY)
    (end,) = answers(driver, [stopped]).values()
    assert (end.sequence.tokens, end.reason) == (tokens[:3], "stop")
    assert len(driver.process.blocks.free) == ROOMY.blocks  # type: ignore[attr-defined]


def test_a_caller_that_leaves_leaves_nothing_behind() -> None:
    driver = driver_on(ROOMY)
    steps: Iterator[list[Ended]] = driver.run(Given(many(5)))
    for _ in range(3):
        next(steps)
    steps.close()  # type: ignore[attr-defined]
    simulated: Any = driver.process
    assert not simulated.running
    assert not simulated.waiting
    assert len(simulated.blocks.free) == ROOMY.blocks


def test_logits_that_are_not_finite_end_a_pair() -> None:
    driver = driver_on(ROOMY)
    driver.process.model = lambda ids: model(ids) * float("nan")  # type: ignore[attr-defined]
    assert {end.reason for end in answers(driver, many(2)).values()} == {"not_finite"}


def test_a_token_that_vllm_did_not_take_is_never_an_answer() -> None:
    driver = driver_on(ROOMY)
    simulated: Any = driver.process
    step = simulated.step

    def tampered() -> tuple[dict[str, list[int]], set[str]]:
        taken, finished = step()
        return {name: [39] if name.endswith("/1") else tokens for name, tokens in taken.items()}, finished

    simulated.step = tampered
    with pytest.raises(LalignError, match="does not run the twins of a prompt in the same steps"):
        answers(driver, many(1))


@pytest.mark.parametrize(("ratio", "rows"), [(0, 1), (1, 1), (2, 2)])
def test_without_statistics_a_twin_that_changes_nothing_is_not_run(ratio: float, rows: int) -> None:
    (request,) = many(1, new_tokens=4)
    point = replace(request.points[0], alignment=Alignment(ratio=ratio, support="none"))
    driver = driver_on(ROOMY, statistics="none")
    compare(driver, [replace(request, points=(point,))])
    assert driver.counters.step_rows == rows * driver.counters.steps


def test_no_more_pairs_fly_than_the_batch_size() -> None:
    driver = driver_on(ROOMY, batch_size=3)
    compare(driver, many(7, new_tokens=5))
    assert driver.counters.step_rows <= 6 * driver.counters.steps

"""The continuous batch against a plain loop: both twins run whole at every step, one response at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import VOCABULARY, TinyModel
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lalign.engine.engine import Engine
from lalign.engine.forward import Forward
from lalign.engine.interface import Ended, Point, Request
from lalign.method.aligned import STATISTICS
from lalign.method.linear_alignment import Alignment
from lalign.options import Sampling, Statistics

KINDS = ["llama", "gpt2", "qwen2", "gemma3", "mistral"]
STOP_IDS = frozenset({1, 9, 17, 57, 171})
PRINCIPLE = [(11 * place + 4) % VOCABULARY for place in range(18)]

BASE = Alignment(ratio=0)
PROMPTED = Alignment(ratio=1)
ALIGNED = Alignment()
BARE = Alignment(ratio=1.5, support="none")
SHAPED = Alignment(ratio=2, p=1.5)
RELEASED = Alignment(recipe="released", anchor="principle", ratio=2)
PAPER = Alignment(recipe="paper", scale="absolute", ratio=0.5, p=2, support="none")


# The plain twin.


def logits_after(model: Any, ids: list[int]) -> Tensor:
    """`[vocab]`: no cache, no padding, no company."""
    with torch.inference_mode():
        logits: Tensor = model(torch.tensor([ids]), use_cache=False).logits[0, -1].double()
    return logits


def shift_of(base: Tensor, principled: Tensor, settings: Alignment) -> Tensor:
    if settings.direction == "probabilities":
        return principled.softmax(-1) - base.softmax(-1)
    return principled.log_softmax(-1) - base.log_softmax(-1)


def step_of(shift: Tensor, settings: Alignment) -> Tensor:
    direction = shift.sign() * shift.abs() ** (1 / (settings.p - 1))
    if settings.scale == "absolute":
        step: Tensor = settings.ratio * direction / shift.norm() ** (1 / (settings.p - 1))
    else:
        step = settings.ratio * shift.norm() * direction / direction.norm()
    return step


def nucleus(principled: Tensor, settings: Alignment) -> set[int]:
    probabilities = (principled / settings.support_temperature).softmax(-1).tolist()
    kept: set[int] = set()
    mass = 0.0
    for token in sorted(range(len(probabilities)), key=lambda token: -probabilities[token]):
        if kept and mass >= settings.support_top_p:
            break
        kept.add(token)
        mass += probabilities[token]
    return kept


def drawn(logits: Tensor, sampling: Sampling, uniform: float) -> int:
    """By inversion of the distribution function; `sampling` has no settings but the temperature and `top_k`."""
    if sampling.temperature == 0:
        return int(logits.argmax())
    logits = logits / sampling.temperature
    if sampling.top_k:
        logits = logits.where(logits >= logits.sort(descending=True).values[sampling.top_k - 1], -math.inf)
    reached = 0.0
    for token, probability in enumerate(logits.softmax(-1).tolist()):
        reached += probability
        if reached > uniform:
            return token
    raise AssertionError("probabilities sum to one")


def statistics_of(
    base: Tensor, principled: Tensor, aligned: Tensor, shift: Tensor, step: Tensor, token: int, p: float
) -> list[float]:
    mu0, mu1, mu = (logits.log_softmax(-1) for logits in (base, principled, aligned))
    return [
        float(value)
        for value in (
            (mu.exp() * (mu - mu0)).sum(),
            (mu1.exp() * (mu1 - mu0)).sum(),
            -(mu0.exp() * mu0).sum(),
            -(mu.exp() * mu).sum(),
            shift.norm(),
            step.norm(p=p),
            mu0[token],
            mu1[token],
            mu[token],
        )
    ]


@dataclass(frozen=True)
class Answer:
    tokens: list[int]
    reason: str
    steps: list[list[float]]


def plain(model: Any, request: Request, point: Point, stop_ids: frozenset[int] = STOP_IDS) -> Answer:
    settings, sampling = point.alignment, point.sampling
    assert isinstance(settings, Alignment)
    stream = np.random.Generator(np.random.PCG64(np.random.SeedSequence(point.seed))).random(sampling.max_new_tokens)
    tokens: list[int] = []
    steps: list[list[float]] = []
    while True:
        base = logits_after(model, request.base + tokens)
        principled = base.clone()
        for weight, ids in zip(request.weights, request.principled, strict=True):
            principled += weight * (logits_after(model, ids + tokens) - base)
        shift = shift_of(base, principled, settings)
        step = step_of(shift, settings) if request.principled else torch.zeros_like(base)
        aligned = (base if settings.anchor == "base" else principled) + step
        allowed = aligned.clone()
        if settings.support == "principle" and not (settings.anchor == "base" and settings.ratio == 0):
            outside = sorted(set(range(len(aligned))) - nucleus(principled, settings))
            allowed[outside] = -math.inf
        token = drawn(allowed, sampling, stream[len(tokens)])
        tokens.append(token)
        steps.append(
            [
                *statistics_of(base, principled, aligned, shift, step, token, settings.p),
                settings.ratio,
                float(aligned.argmax() != base.argmax()),
            ]
        )
        if token in stop_ids or (point.stops is not None and point.stops(tokens)):
            return Answer(tokens, "stop", steps)
        if len(tokens) == sampling.max_new_tokens:
            return Answer(tokens, "length", steps)


# Jobs and how they are run.


def request(
    number: int,
    length: int,
    *alignments: Alignment,
    new: int = 8,
    principles: int = 1,
    sampling: Sampling | None = None,
    stops: Callable[[list[int]], bool] | None = None,
) -> Request:
    """A prompt of `length` tokens, and its twins with a principle before it."""
    prompt = [(number * 37 + place * place * 13 + 5) % VOCABULARY for place in range(length)]
    sampling = replace(sampling or Sampling(), max_new_tokens=new)
    return Request(
        key=number,
        base=prompt,
        principled=tuple(PRINCIPLE[kind:] + prompt for kind in range(principles)),
        weights=(1.0,) if principles == 1 else tuple(0.5 + kind for kind in range(principles)),
        points=tuple(
            Point(alignment, sampling, (7, number), stops, place) for place, alignment in enumerate(alignments)
        ),
    )


def mixed_job() -> list[Request]:
    """Prompts of many lengths that end at different steps, of one to four points each, that fork at different steps."""
    return [
        request(0, 3, ALIGNED, new=9),
        request(1, 21, BASE, PROMPTED, ALIGNED, BARE, new=12),
        request(2, 1, BASE, new=1),
        request(3, 12, SHAPED, RELEASED, PAPER, new=7),
        request(4, 25, ALIGNED, BARE, new=14, principles=2),
        request(5, 7, PROMPTED, new=5),
        request(6, 2, ALIGNED, ALIGNED, new=10),
        request(7, 18, BARE, new=3),
        request(8, 9, RELEASED, BASE, new=11),
    ]


def engine_for(model: Any, requests: list[Request], batch_size: int, statistics: Statistics = "none") -> Engine:
    points = max(len(request.points) for request in requests)
    return Engine(Forward(model), STOP_IDS, batch_size, statistics, points)


def answers(engine: Engine, requests: list[Request]) -> dict[tuple[int, int], Answer]:
    """Run a job; every point of every request is to end once."""
    waiting = list(requests)

    def source(room: int, wait: bool) -> list[Request] | None:
        if not waiting:
            return None
        given, waiting[:] = waiting[:room], waiting[room:]
        return given

    found: dict[tuple[int, int], Answer] = {}
    for ended in engine.run(source):
        for end in ended:
            name = (end.sequence.request.key, end.sequence.point.place)
            assert name not in found
            found[name] = answer_of(end)
    assert found.keys() == {(request.key, point.place) for request in requests for point in request.points}
    return found


def answer_of(end: Ended) -> Answer:
    return Answer(end.sequence.tokens, end.reason, [list(step) for step in end.sequence.steps])


def outcome(found: dict[tuple[int, int], Answer]) -> dict[tuple[int, int], tuple[list[int], str]]:
    return {name: (answer.tokens, answer.reason) for name, answer in found.items()}


def expected(model: Any, requests: list[Request]) -> dict[tuple[int, int], Answer]:
    return {
        (request.key, point.place): plain(model, request, point) for request in requests for point in request.points
    }


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest, tiny_model: TinyModel) -> Any:
    # Two layers that look back further than the default window do, so that the principle is not all out of sight.
    return tiny_model(request.param, **({"sliding_window": 16} if request.param == "mistral" else {}))


@pytest.fixture(scope="module")
def mixed(model: Any) -> dict[tuple[int, int], Answer]:
    return expected(model, mixed_job())


@pytest.fixture(scope="module")
def llama(tiny_model: TinyModel) -> Any:
    return tiny_model("llama")


# Tokens and statistics.


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_tokens_are_those_of_the_plain_loop(model: Any, mixed: dict[tuple[int, int], Answer], batch_size: int) -> None:
    engine = engine_for(model, mixed_job(), batch_size, "summary")
    assert outcome(answers(engine, mixed_job())) == outcome(mixed)


@pytest.mark.parametrize("batch_size", [1, 8])
def test_tokens_are_the_same_when_needless_twins_are_not_run(
    model: Any, mixed: dict[tuple[int, int], Answer], batch_size: int
) -> None:
    assert outcome(answers(engine_for(model, mixed_job(), batch_size, "none"), mixed_job())) == outcome(mixed)


@pytest.mark.parametrize("batch_size", [1, 3, 8])
@pytest.mark.parametrize("way", ["copied", "kept once"])
def test_tokens_are_the_same_from_shared_prefixes(
    model: Any, mixed: dict[tuple[int, int], Answer], batch_size: int, way: str
) -> None:
    engine = engine_for(model, mixed_job(), batch_size)
    forward = Forward(model)
    if way == "kept once":
        forward.share_if_it_can()
    engine.forward = forward
    engine.prefixes += [forward.prefix(PRINCIPLE), forward.prefix(PRINCIPLE[1:])]
    assert outcome(answers(engine, mixed_job())) == outcome(mixed)


def test_statistics_are_those_of_the_plain_loop(model: Any, mixed: dict[tuple[int, int], Answer]) -> None:
    found = answers(engine_for(model, mixed_job(), 3, "steps"), mixed_job())
    for name, answer in mixed.items():
        wanted = torch.tensor(answer.steps, dtype=torch.float32)
        assert wanted.shape == (len(answer.tokens), len(STATISTICS))
        torch.testing.assert_close(torch.tensor(found[name].steps), wanted, atol=2e-3, rtol=2e-3)


def test_the_job_tests_something(mixed: dict[tuple[int, int], Answer]) -> None:
    """That responses of a request part, that some stop early, and that alignment changes what is said."""
    assert {answer.reason for answer in mixed.values()} == {"stop", "length"}
    assert len({tuple(mixed[1, place].tokens) for place in range(4)}) >= 3
    assert mixed[6, 0].tokens == mixed[6, 1].tokens


# What is run, and what is not.


def rows_run(model: Any, requests: list[Request], statistics: Statistics) -> int:
    engine = engine_for(model, requests, 4, statistics)
    answers(engine, requests)
    return engine.counters.step_rows


@pytest.mark.parametrize(
    ("alignments", "principles", "statistics", "rows"),
    [
        ([ALIGNED], 1, "none", 2),
        ([ALIGNED], 2, "none", 3),
        ([BASE], 1, "none", 1),
        ([BASE], 2, "none", 1),
        ([PROMPTED], 1, "none", 1),
        ([PROMPTED], 2, "none", 3),
        ([Alignment(ratio=1, support="none")], 1, "none", 1),
        ([Alignment(anchor="principle", ratio=0)], 1, "none", 1),
        ([Alignment(ratio=1, p=3)], 1, "none", 2),
        ([BASE], 1, "summary", 2),
        ([PROMPTED], 1, "steps", 2),
        ([ALIGNED, ALIGNED, ALIGNED], 1, "none", 2),
    ],
)
def test_only_the_twins_that_are_needed_are_run(
    llama: Any, alignments: list[Alignment], principles: int, statistics: Statistics, rows: int
) -> None:
    job = [request(0, 6, *alignments, new=4, principles=principles)]
    assert len(plain(llama, job[0], job[0].points[0]).tokens) == 4
    assert rows_run(llama, job, statistics) == 3 * rows  # the first of the four tokens comes of the prompt


def test_a_request_without_a_principle_runs_one_row(llama: Any) -> None:
    alone = replace(request(0, 6, BASE, new=4), principled=(), weights=())
    for statistics in ("none", "steps"):
        engine = engine_for(llama, [alone], 2, statistics)
        assert outcome(answers(engine, [alone])) == outcome(expected(llama, [alone]))
        assert engine.counters.step_rows == 3


def test_points_share_rows_until_they_part(llama: Any) -> None:
    together = request(0, 6, BASE, PROMPTED, ALIGNED, BARE, new=10)
    apart = [replace(together, key=place, points=(point,)) for place, point in enumerate(together.points)]
    run = expected(llama, [together])
    shared, separate = rows_run(llama, [together], "summary"), rows_run(llama, apart, "summary")
    histories = {
        tuple(run[0, place].tokens[:length])
        for place in range(4)
        for length in range(1, len(run[0, place].tokens))  # each of these is the past of a step
    }
    assert shared == 2 * len(histories) < separate


def test_a_place_that_falls_free_is_taken_at_once(llama: Any) -> None:
    lengths = [2, 9, 3, 2, 4]
    job = [request(number, 5 + number, BARE, new=new) for number, new in enumerate(lengths)]
    engine = Engine(Forward(llama), frozenset(), 2, "none")
    found = answers(engine, job)
    assert [len(found[number, 0].tokens) for number in range(5)] == lengths
    # 9 tokens take 8 steps, and beside them run the others, one after the other: 1 + 2 + 1 + 3 steps.
    assert engine.counters.steps == 8
    assert (engine.counters.prompts, engine.counters.tokens) == (5, sum(lengths))


def test_the_source_is_asked_for_what_there_is_room_for_and_may_wait_only_when_nothing_runs(llama: Any) -> None:
    waiting = [request(number, 4, BARE, new=3 + number) for number in range(7)]
    asked: list[tuple[int, bool, int]] = []
    engine = engine_for(llama, waiting, batch_size=3)

    def source(room: int, wait: bool) -> list[Request] | None:
        asked.append((room, wait, len(engine.batch.groups)))
        if len(asked) % 2:  # now and then there is nothing at hand
            return []
        return [waiting.pop(0)] if waiting else None

    assert sum(len(ended) for ended in engine.run(source)) == 7
    assert all(room == 3 - flying for room, _, flying in asked)
    assert all(wait == (flying == 0) for _, wait, flying in asked)


def test_requests_of_many_points_are_admitted_by_how_many_rows_they_may_take(llama: Any) -> None:
    job = [request(number, 4, BASE, PROMPTED, ALIGNED, BARE, new=6) for number in range(6)]
    engine = engine_for(llama, job, batch_size=4)
    flying = []
    waiting = list(job)

    def source(room: int, wait: bool) -> list[Request] | None:
        given = [waiting.pop(0) for _ in range(min(room, len(waiting)))]
        return given or None

    for _ in engine.run(source):
        flying.append(len(engine.batch.sequences))
    assert 4 < max(flying) <= 8


# Sampling.


def sampled_job(seed: int = 3) -> list[Request]:
    job = [
        request(0, 5, ALIGNED, new=8, sampling=Sampling(temperature=0.9)),
        request(1, 20, BARE, BASE, new=6, sampling=Sampling(temperature=1.0, top_k=5)),
        request(2, 2, RELEASED, new=10, sampling=Sampling(temperature=0.5)),
        request(3, 11, BARE, new=4),
        request(4, 8, BASE, new=7, sampling=Sampling(temperature=0.9)),
    ]
    return [
        replace(each, points=tuple(replace(point, seed=(seed, each.key, point.place)) for point in each.points))
        for each in job
    ]


@pytest.mark.parametrize("statistics", ["none", "summary"])
def test_a_seed_gives_the_same_tokens_whatever_the_batch(llama: Any, statistics: Statistics) -> None:
    wanted = outcome(expected(llama, sampled_job()))
    for batch_size in (1, 3, 8):
        assert outcome(answers(engine_for(llama, sampled_job(), batch_size, statistics), sampled_job())) == wanted


def test_another_seed_gives_other_tokens(llama: Any) -> None:
    first, second = (outcome(answers(engine_for(llama, sampled_job(seed), 3), sampled_job(seed))) for seed in (3, 4))
    assert first != second
    assert first[3, 0] == second[3, 0]  # greedy


@pytest.mark.parametrize("options", [{"top_p": 0.7}, {"min_p": 0.1}, {"repetition_penalty": 1.5}])
def test_other_sampling_settings_do_not_depend_on_the_batch_either(llama: Any, options: dict[str, Any]) -> None:
    sampling = Sampling(temperature=0.8, **options)
    job = [request(number, 3 * number + 1, ALIGNED, BARE, new=5 + number, sampling=sampling) for number in range(4)]
    alone = outcome(answers(engine_for(llama, job, 1), job))
    assert outcome(answers(engine_for(llama, job, 4), job)) == alone


def test_the_repetition_penalty_keeps_a_response_from_the_words_of_its_prompt(llama: Any) -> None:
    sampling = Sampling(repetition_penalty=1e6)
    job = [request(0, 40, BARE, new=10, sampling=sampling), request(1, 3, BARE, new=6, sampling=sampling)]
    for each, (tokens, _) in zip(job, outcome(answers(engine_for(llama, job, 2), job)).values(), strict=True):
        assert len(set(tokens)) == len(tokens)
        assert not set(tokens) & set(each.base)


# How a response ends.


def test_any_stop_id_ends_a_response(llama: Any) -> None:
    job = [request(0, 6, BARE, new=12)]
    free = plain(llama, job[0], job[0].points[0], stop_ids=frozenset()).tokens
    for place in (0, 3, 7):
        stop = free[place]
        engine = Engine(Forward(llama), frozenset({299, stop}), 2, "none")
        assert outcome(answers(engine, job)) == {(0, 0): (free[: free.index(stop) + 1], "stop")}


def test_a_stop_string_ends_its_own_response_alone(llama: Any) -> None:
    free = plain(llama, request(0, 6, BARE), request(0, 6, BARE).points[0], frozenset()).tokens
    job = [
        request(0, 6, BARE, stops=lambda tokens: tokens[-2:] == free[2:4]),
        replace(request(0, 6, BARE), key=1),
    ]
    engine = Engine(Forward(llama), frozenset(), 2, "none")
    assert outcome(answers(engine, job)) == {(0, 0): (free[:4], "stop"), (1, 0): (free, "length")}


def test_one_token_is_a_response(llama: Any) -> None:
    job = [request(number, 4, ALIGNED, BASE, new=1) for number in range(5)]
    engine = engine_for(llama, job, 2)
    assert outcome(answers(engine, job)) == outcome(expected(llama, job))
    assert engine.counters.steps == 0


# Out of memory.


@contextmanager
def failing(model: Any, fails: Callable[[int, Tensor], bool]) -> Iterator[None]:
    """Forward passes that run out of memory where `fails(number of the pass, input ids)`."""
    passes = iter(range(10**6))

    def hook(_: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if fails(next(passes), kwargs["input_ids"]):
            raise torch.OutOfMemoryError("no memory for this pass")

    registered = model.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        registered.remove()


def memory_job() -> list[Request]:
    return mixed_job()[:6]


@pytest.fixture(scope="module")
def wanted(llama: Any) -> dict[tuple[int, int], tuple[list[int], str]]:
    return outcome(expected(llama, memory_job()))


@settings(max_examples=25)
@given(passes=st.sets(st.integers(0, 40), min_size=1, max_size=3), batch_size=st.sampled_from([6, 8, 16]))
def test_running_out_of_memory_halves_the_batch_and_changes_no_response(
    llama: Any, wanted: dict[tuple[int, int], tuple[list[int], str]], passes: set[int], batch_size: int
) -> None:
    engine = engine_for(llama, memory_job(), batch_size)
    failed = 0

    def fails(number: int, _: Tensor) -> bool:
        nonlocal failed
        failed += number in passes
        return number in passes

    with failing(llama, fails):
        found = outcome(answers(engine, memory_job()))
    lost = {name for name, (_, reason) in found.items() if reason == "out_of_memory"}
    assert engine.counters.batch_halvings == failed
    assert {name: found[name] for name in found.keys() - lost} == {name: wanted[name] for name in wanted.keys() - lost}
    assert not lost or failed >= 2  # only what has failed while alone is given up


def test_memory_that_runs_out_behind_a_prefix_changes_no_response(
    llama: Any, wanted: dict[tuple[int, int], tuple[list[int], str]]
) -> None:
    forward = Forward(llama)
    forward.share_if_it_can()
    engine = Engine(forward, STOP_IDS, 8, "none", 4, [forward.prefix(PRINCIPLE)])
    with failing(llama, lambda number, _: number in (1, 6)):
        found = outcome(answers(engine, memory_job()))
    assert engine.counters.batch_halvings == 2
    assert found == wanted


def test_a_pass_too_large_is_run_in_halves(llama: Any, wanted: dict[tuple[int, int], tuple[list[int], str]]) -> None:
    with failing(llama, lambda _, input_ids: input_ids.shape[0] > 8):
        engine = engine_for(llama, memory_job(), 16)  # four points that have parted take eight rows
        found = outcome(answers(engine, memory_job()))
    assert found == wanted
    assert engine.counters.batch_halvings >= 1


def test_a_request_that_cannot_be_run_even_alone_ends_alone(
    llama: Any, wanted: dict[tuple[int, int], tuple[list[int], str]]
) -> None:
    monster = request(99, 50, ALIGNED, BASE)
    job = [*memory_job()[:3], monster, *memory_job()[3:]]
    with failing(llama, lambda _, input_ids: input_ids.shape[1] >= 50):
        found = outcome(answers(engine_for(llama, job, 4), job))
    assert found.pop((99, 0)) == ([], "out_of_memory")
    assert found.pop((99, 1)) == ([], "out_of_memory")
    assert found == wanted


def test_the_batch_is_whole_again_after_a_request_that_cannot_be_run_even_alone(llama: Any) -> None:
    job = [request(99, 50, ALIGNED), *(request(number, 5, ALIGNED) for number in range(8))]
    with failing(llama, lambda _, input_ids: input_ids.shape[1] >= 50):
        engine = engine_for(llama, job, 4)
        answers(engine, job)
    assert engine.counters.batch_halvings >= 2
    assert engine.batch_size == 4


def test_a_halved_batch_grows_again_and_waits_longer_each_time_that_was_too_much(llama: Any) -> None:
    """There is never memory for more than two pairs."""
    job = [request(number, 5, BARE, new=2) for number in range(80)]
    with failing(llama, lambda _, input_ids: input_ids.shape[0] > 4):
        engine = engine_for(llama, job, 4)
        found = outcome(answers(engine, job))
    assert found == outcome(expected(llama, job))
    assert 2 <= engine.counters.batch_halvings <= 5


def test_when_there_is_never_memory_every_request_says_so(llama: Any) -> None:
    with failing(llama, lambda *_: True):
        found = outcome(answers(engine_for(llama, memory_job(), 4), memory_job()))
    assert {reason for _, reason in found.values()} == {"out_of_memory"}


def test_responses_that_had_ended_are_not_given_twice(llama: Any) -> None:
    """Of a request whose points end at different steps, only those still in flight are begun anew."""
    several = request(1, 21, BARE, BASE, PROMPTED, ALIGNED)
    lengths = [3, 5, 7, 9]
    several = replace(
        several,
        points=tuple(
            replace(point, sampling=replace(point.sampling, max_new_tokens=new))
            for point, new in zip(several.points, lengths, strict=True)
        ),
    )
    job = [several, request(0, 3, ALIGNED, new=12)]
    passes = []

    def fails(number: int, _: object) -> bool:
        passes.append(number)
        return number == 6

    with failing(llama, fails):
        engine = Engine(Forward(llama), frozenset(), 4, "none", points=4)
        found = outcome(answers(engine, job))
    assert len(passes) > 10
    assert engine.counters.batch_halvings == 1
    assert [len(found[1, place][0]) for place in range(4)] == lengths
    assert found == outcome(answers(Engine(Forward(llama), frozenset(), 4, "none", points=4), job))


# Logits that are no numbers.


def poisoned(tiny_model: TinyModel, kind: str, token: int) -> Any:
    """A model in which everything that follows one token is nan, keys and values too."""
    model = tiny_model(kind)
    model.get_input_embeddings().weight[token] = math.nan
    return model


@pytest.mark.parametrize("kind", ["llama", "mistral"])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_a_row_whose_logits_turn_nan_ends_alone(tiny_model: TinyModel, kind: str, batch_size: int) -> None:
    job = [request(number, 3 + 4 * (number % 4), BARE, new=5 + number % 3) for number in range(9)]
    healthy = outcome(expected(tiny_model(kind), job))
    # A token that some responses take in mid-course.
    poison = healthy[2, 0][0][1]
    struck = {name for name, (tokens, _) in healthy.items() if poison in tokens[:-1]}
    assert 0 < len(struck) < len(job) - 2
    model = poisoned(tiny_model, kind, poison)
    assert not any(poison in ids for each in job for ids in (each.base, *each.principled))
    ways: list[tuple[Statistics, list[list[int]]]] = [("none", []), ("steps", []), ("none", [PRINCIPLE])]
    for statistics, prefixes in ways:
        engine = engine_for(model, job, batch_size, statistics)
        engine.prefixes += [Forward(model).prefix(prefix) for prefix in prefixes]
        found = outcome(answers(engine, job))
        for name, (tokens, reason) in found.items():
            if name in struck:
                upto = healthy[name][0].index(poison) + 1
                assert (tokens[:upto], len(tokens), reason) == (healthy[name][0][:upto], upto + 1, "not_finite")
            else:
                assert (tokens, reason) == healthy[name]


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
@pytest.mark.parametrize("alignment", [ALIGNED, BARE, RELEASED, SHAPED, Alignment(max_kl=0.5)])
@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("twin", ["base", "principled"])
def test_a_prompt_whose_logits_are_nan_fails_at_its_first_token(
    tiny_model: TinyModel, kind: str, alignment: Alignment, temperature: float, twin: str
) -> None:
    sampling = Sampling(temperature=temperature)
    job = [request(number, 4 + number, alignment, new=4, sampling=sampling) for number in range(5)]
    healthy = outcome(answers(engine_for(tiny_model(kind), job, 5), job))
    used = {token for each in job for ids in (each.base, *each.principled) for token in ids}
    poison = next(
        token for token in range(VOCABULARY) if token not in used.union(*(ids for ids, _ in healthy.values()))
    )
    damaged = [5, poison, 6]
    job[2] = replace(job[2], base=damaged) if twin == "base" else replace(job[2], principled=(damaged,))
    found = outcome(answers(engine_for(poisoned(tiny_model, kind, poison), job, 5), job))
    tokens, reason = found.pop((2, 0))
    healthy.pop((2, 0))
    assert (len(tokens), reason) == (1, "not_finite")
    assert found == healthy


def test_logits_of_minus_infinity_are_no_fault(llama: Any) -> None:
    """As in models whose vocabulary is padded."""
    job = [request(number, 6, ALIGNED, BASE, new=4) for number in range(2)]
    wanted = outcome(answers(engine_for(llama, job, 2, "steps"), job))
    unused = next(token for token in range(VOCABULARY) if not any(token in tokens for tokens, _ in wanted.values()))

    def without(_: Any, args: Any, output: Any) -> Any:
        output.logits[..., unused] = -math.inf
        return output

    hook = llama.register_forward_hook(without)
    try:
        found = answers(engine_for(llama, job, 2, "steps"), job)
    finally:
        hook.remove()
    assert outcome(found) == wanted
    assert all(math.isfinite(value) for answer in found.values() for step in answer.steps for value in step)

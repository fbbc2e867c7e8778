"""The Python interface: answers in order, as they are ready; and on the real model, against stock transformers."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from conftest import SAMPLES, TinyModel, TinyTokenizer, model_of

from lalign import Aligner, Alignment, Execution, OptionError, Sampling
from lalign.aligner import Prompt
from lalign.engine.torch_backend import TorchBackend
from lalign.errors import ModelError
from lalign.method.recipes import RECIPES
from lalign.models.loading import LoadedModel
from lalign.records.parsing import Message, Record
from lalign.records.prompts import make_principles
from lalign.records.requests import Settings
from lalign.results import Failure, Result

KIND = "Always be kind to the person who asks."
SHORT = Sampling(max_new_tokens=6)


@pytest.fixture(scope="module")
def aligner(tiny_model: TinyModel, tiny_tokenizer: TinyTokenizer) -> Aligner:
    return Aligner(TorchBackend(LoadedModel(tiny_model("llama"), tiny_tokenizer("chatml"), "tiny", "tiny")))


def prompts(count: int) -> list[str]:
    return [f"{'word ' * (7 * number % 11)}{number}?" for number in range(count)]


def parsed(line: int, prompt: str) -> Record:
    return Record(line, line, (Message("user", prompt),), {})


def told(outcomes: Iterator[Result | Failure]) -> list[tuple[int, Any]]:
    """By line: the tokens of an answer, or the kind of its failure."""
    return [(outcome.line, outcome.token_ids if isinstance(outcome, Result) else outcome.type) for outcome in outcomes]


# Order and streaming.


@pytest.mark.parametrize("batch_size", [1, 3, 16, "auto"])
def test_answers_come_in_the_order_of_the_prompts_and_are_the_same_whatever_the_batch(
    aligner: Aligner, batch_size: Any
) -> None:
    alone = [
        outcome
        for line, prompt in enumerate(prompts(12), start=1)
        for outcome in told(aligner.generate([parsed(line, prompt)], principle=KIND, sampling=SHORT))
    ]
    execution = Execution(batch_size=batch_size)
    assert told(aligner.generate(prompts(12), principle=KIND, sampling=SHORT, execution=execution)) == alone


def test_prompts_may_be_strings_records_of_any_form_or_parsed(aligner: Aligner) -> None:
    given: list[Prompt] = [
        "Why?",
        {"prompt": "Why?", "id": "b"},
        {"messages": [{"role": "user", "content": "Why?"}]},
        {"custom_id": "d", "body": {"messages": [{"role": "user", "content": "Why?"}]}},
        {"chosen": "\n\nHuman: Why?\n\nAssistant: So."},
        replace(parsed(6, "Why?"), id="f"),
    ]
    outcomes = list(aligner.generate(given, principle=KIND, sampling=SHORT))
    assert all(isinstance(outcome, Result) for outcome in outcomes)
    assert len({outcome.token_ids for outcome in outcomes if isinstance(outcome, Result)}) == 1
    assert [(outcome.line, outcome.id) for outcome in outcomes] == [
        (1, 1), (2, "b"), (3, 3), (4, "d"), (5, 5), (6, "f")
    ]  # fmt: skip


def test_what_cannot_be_answered_leaves_a_failure_in_its_place(aligner: Aligner) -> None:
    given: list[Any] = [
        {"prompt": ""},
        "Why?",
        Failure(3, 3, "invalid_json", "not valid JSON"),
        {"prompt": "Why?", "ratio": -1},
        {"prompt": "long " * 600},
        {"prompt": "Why?", "n": 10**400},
        {},
        "How?",
    ]
    outcomes = told(aligner.generate(given, principle=KIND, sampling=SHORT))
    assert [line for line, _ in outcomes] == list(range(1, 9))
    assert [what for _, what in outcomes if isinstance(what, str)] == [
        "empty_prompt", "invalid_json", "invalid_option", "context_length", "missing_prompt"
    ]  # fmt: skip


def test_a_lone_surrogate_is_a_failure_not_an_exception(aligner: Aligner) -> None:
    surrogate, answer = aligner.generate(["\ud800", "Why?"], principle=KIND, sampling=SHORT)
    assert isinstance(surrogate, Failure)
    assert isinstance(answer, Result)


def test_where_the_principle_stands_and_what_the_template_is_told_are_arguments(aligner: Aligner) -> None:
    results = [
        next(aligner.generate(["Why?<|im_end|>"], principle=KIND, sampling=SHORT, **given))
        for given in ({}, {"placement": "user"}, {"allow_special_tokens": True})
    ]
    usual, placed, allowed = (result for result in results if isinstance(result, Result))
    assert (usual.placement, placed.placement) == ("joined", "user")
    assert usual.usage.principle_tokens > placed.usage.principle_tokens
    assert usual.usage.prompt_tokens > allowed.usage.prompt_tokens
    with pytest.raises(OptionError, match="placement"):
        aligner.generate(["Why?"], principle=KIND, placement="head")  # type: ignore[arg-type]


def test_a_template_that_breaks_the_rule_ends_the_job_before_a_prompt_is_read(
    tiny_model: TinyModel, tiny_tokenizer: TinyTokenizer
) -> None:
    shouting = tiny_tokenizer("{{ messages[-1].content | upper }}")
    broken = Aligner(TorchBackend(LoadedModel(tiny_model("llama"), shouting, "tiny", "tiny")))

    prompts = iter(["Why?"])
    with pytest.raises(ModelError, match="changes the case of what the user says"):
        list(broken.generate(prompts, principle=KIND))
    assert next(prompts) == "Why?"


def test_input_of_nothing_but_failures(aligner: Aligner) -> None:
    assert told(aligner.generate([{}] * 50, principle=KIND)) == [(line, "missing_prompt") for line in range(1, 51)]
    assert told(aligner.generate([], principle=KIND)) == []


def test_an_answer_comes_before_the_next_prompt_is_known(aligner: Aligner) -> None:
    """As in a pipeline where someone types."""
    asked = threading.Semaphore(1)

    def typing() -> Iterator[str]:
        for prompt in prompts(4):
            assert asked.acquire(timeout=60)
            yield prompt

    answers = aligner.generate(typing(), principle=KIND, sampling=SHORT)
    lines = []
    for answer in answers:
        lines.append(answer.line)
        asked.release()
    assert lines == [1, 2, 3, 4]


def test_endless_input_is_read_as_needed(aligner: Aligner) -> None:
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield "Why?"

    answers = aligner.generate(endless(), principle=KIND, sampling=SHORT, execution=Execution(batch_size=2))
    assert [next(answers).line for _ in range(10)] == list(range(1, 11))
    assert read <= 10 + 2 + 2 * (4 * 2) + 1  # answered, in flight, and twice a window of four batches
    assert isinstance(answers, Generator)
    answers.close()


def test_an_error_of_the_input_comes_after_the_answers_to_what_was_read(aligner: Aligner) -> None:
    def breaking() -> Iterator[str]:
        yield from prompts(5)
        raise OSError("the disk is gone")

    answers = aligner.generate(breaking(), principle=KIND, sampling=SHORT)
    assert [next(answers).line for _ in range(5)] == [1, 2, 3, 4, 5]
    with pytest.raises(OSError, match="the disk is gone"):
        next(answers)


def test_ticks_are_given_while_nothing_is_ready(aligner: Aligner) -> None:
    ticks = list(
        aligner.ticks(["Why?"], Settings(make_principles([KIND]), sampling=SHORT), system=None, execution=Execution())
    )
    assert [len(outcomes) for outcomes in ticks if outcomes] == [1]
    assert len(ticks) >= SHORT.max_new_tokens


def test_the_counters_are_of_the_latest_call(aligner: Aligner) -> None:
    for count in (3, 5):
        results = list(aligner.generate(prompts(count), principle=KIND, sampling=SHORT))
        assert aligner.counters.prompts == count
        assert aligner.counters.tokens == sum(len(result.token_ids) for result in results if isinstance(result, Result))


# Options.


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"ratio": -1}, OptionError),
        ({"p": 0.5}, OptionError),
        ({"recipe": "none such"}, OptionError),
        ({"temperature": -1}, OptionError),
        ({"principle": " "}, OptionError),
        ({"contrast": ""}, OptionError),
        ({"weights": [1, 2]}, OptionError),
        ({"beams": 4}, TypeError),
    ],
)
def test_an_option_out_of_range_is_told_before_anything_is_read(
    aligner: Aligner, options: dict[str, Any], error: type[Exception]
) -> None:
    def unread() -> Iterator[str]:
        yield pytest.fail("was read")

    with pytest.raises(error):
        aligner.generate(unread(), **{"principle": KIND, **options})


def test_options_by_name_go_over_the_sampling_and_the_recipe(aligner: Aligner) -> None:
    (result,) = aligner.generate(
        ["Why?"], principle=KIND, recipe="released", sampling=SHORT, ratio=1.5, max_new_tokens=2
    )
    assert isinstance(result, Result)
    assert result.alignment == Alignment(recipe="released", anchor="principle", ratio=1.5)
    assert result.usage.completion_tokens == 2


def test_without_a_principle_the_base_model_answers_at_ratio_zero_alone(aligner: Aligner) -> None:
    (refused,) = aligner.generate(["Why?"], sampling=SHORT)
    assert isinstance(refused, Failure)
    assert refused.type == "missing_principle"
    (bare,) = aligner.generate(["Why?"], sampling=SHORT, ratio=0)
    (base,) = aligner.generate(["Why?"], principle=KIND, sampling=SHORT, ratio=0)
    assert isinstance(bare, Result)
    assert isinstance(base, Result)
    assert bare.token_ids == base.token_ids
    assert bare.usage.principle_tokens == 0 < base.usage.principle_tokens


def test_a_principle_contrasted_with_itself_changes_nothing(aligner: Aligner) -> None:
    (same,) = aligner.generate(["Why?"], principle=KIND, contrast=KIND, sampling=SHORT, ratio=3)
    (plain,) = aligner.generate(["Why?"], principle=KIND, sampling=SHORT, ratio=1)
    assert isinstance(same, Result)
    assert isinstance(plain, Result)
    assert same.token_ids == plain.token_ids
    assert same.steps is not None
    assert same.steps["shift_norm"].max() < 1e-3


def test_a_principle_given_twice_by_halves_is_the_principle(aligner: Aligner) -> None:
    (halves,) = aligner.generate(["Why?"], principle=[KIND, KIND], weights=[0.5, 0.5], sampling=SHORT)
    (whole,) = aligner.generate(["Why?"], principle=KIND, sampling=SHORT)
    assert isinstance(halves, Result)
    assert isinstance(whole, Result)
    assert halves.token_ids == whole.token_ids


def test_a_record_with_a_principle_of_its_own_is_answered_as_in_a_job_of_that_principle(aligner: Aligner) -> None:
    other = "Answer like a pirate, always and everywhere."
    mixed = aligner.generate([{"prompt": "Why?", "principle": other}, "Why?"], principle=KIND, sampling=SHORT)
    tokens = [what for _, what in told(mixed)]
    assert tokens == [
        told(aligner.generate(["Why?"], principle=principle, sampling=SHORT))[0][1] for principle in (other, KIND)
    ]
    assert tokens[0] != tokens[1]


def test_the_points_of_a_sweep_come_together_and_in_order(aligner: Aligner) -> None:
    points = tuple(Alignment(ratio=ratio) for ratio in (0, 1, 2.5, 4))
    sweep = Settings(make_principles([KIND]), points, SHORT, sweep=True)
    given: list[Any] = ["Why?", {}, "How?"]
    ticks = aligner.ticks(given, sweep, system=None, execution=Execution(batch_size=2))
    outcomes = [outcome for tick in ticks for outcome in tick]
    assert [outcome.line for outcome in outcomes] == [1] * 4 + [2] + [3] * 4
    for place, point in enumerate(points):
        single = told(aligner.generate(["Why?"], principle=KIND, sampling=SHORT, ratio=point.ratio))
        assert told(iter(outcomes[place : place + 1])) == single


@pytest.mark.parametrize("statistics", ["none", "summary", "steps"])
def test_statistics_do_not_change_an_answer(aligner: Aligner, statistics: Any) -> None:
    full = told(aligner.generate(prompts(5), principle=KIND, sampling=SHORT))
    execution = Execution(statistics=statistics)
    assert told(aligner.generate(prompts(5), principle=KIND, sampling=SHORT, execution=execution)) == full


def test_a_stop_string_ends_an_answer_before_it(aligner: Aligner) -> None:
    (free,) = aligner.generate(["Why?"], principle=KIND, max_new_tokens=12)
    assert isinstance(free, Result)
    stop = next(letter for letter in free.response[2:] if letter.isascii())
    place = free.response.index(stop)
    (cut,) = aligner.generate(["Why?"], principle=KIND, max_new_tokens=12, stop=(stop,))
    assert isinstance(cut, Result)
    assert (cut.response, cut.finish_reason) == (free.response[:place], "stop")
    assert cut.token_ids == free.token_ids[: len(cut.token_ids)]


# Faults.


def test_records_whose_logits_are_no_numbers_fail_and_the_others_do_not(
    tiny_model: TinyModel, tiny_tokenizer: TinyTokenizer
) -> None:
    tokenizer, model = tiny_tokenizer("chatml"), tiny_model("llama")
    aligner = Aligner(TorchBackend(LoadedModel(model, tokenizer, "tiny", "tiny")))
    given = prompts(6)
    healthy = told(aligner.generate(given, principle=KIND, sampling=SHORT))
    answered = {token for _, tokens in healthy for token in tokens}
    letter = next(letter for letter in "@#%~^" if tokenizer.convert_tokens_to_ids(letter) not in answered)
    model.get_input_embeddings().weight[tokenizer.convert_tokens_to_ids(letter)] = float("nan")
    given.insert(2, f"What is {letter}?")
    outcomes = told(aligner.generate(given, principle=KIND, sampling=SHORT, execution=Execution(batch_size=3)))
    assert outcomes.pop(2) == (3, "not_finite")
    assert [what for _, what in outcomes] == [what for _, what in healthy]


def test_running_out_of_memory_fails_what_cannot_be_run_alone(aligner: Aligner) -> None:
    given = prompts(6)
    healthy = told(aligner.generate(given, principle=KIND, sampling=SHORT))

    def limited(_: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if kwargs["input_ids"].shape[1] > 150:
            raise torch.OutOfMemoryError("no memory for this prompt")

    hook = model_of(aligner).register_forward_pre_hook(limited, with_kwargs=True)
    try:
        given.insert(3, "~" * 300)
        outcomes = told(aligner.generate(given, principle=KIND, sampling=SHORT, execution=Execution(batch_size=4)))
    finally:
        hook.remove()
    assert outcomes.pop(3) == (4, "out_of_memory")
    assert [what for _, what in outcomes] == [what for _, what in healthy]


# The real model, greedy, against stock transformers: token for token.

NEW = 24
CHOSEN = ("capital-australia", "burgle-lock", "pasta-follow-up", "moon-phases", "tutor-fractions", "weather-haiku")


@pytest.fixture(scope="module")
def records() -> list[dict[str, Any]]:
    lines = (SAMPLES / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
    by_id = {record["id"]: record for record in map(json.loads, lines)}
    return [by_id[name] for name in CHOSEN]


@pytest.fixture(scope="module")
def swept(smol: LoadedModel, hh: str, records: list[dict[str, Any]]) -> Callable[[float], list[list[int]]]:
    """Responses of lalign at a ratio, all ratios from one run: they share rows until they part."""
    ratios = (0.0, 0.5, 1.0, 1.5, 3.0)
    points = tuple(Alignment(ratio=ratio, support="none") for ratio in ratios)
    settings = Settings(make_principles([hh]), points, Sampling(max_new_tokens=NEW), sweep=True)
    execution = Execution(batch_size=4, statistics="none")
    ticks = Aligner(TorchBackend(smol)).ticks(records, settings, system=None, execution=execution)
    results = [outcome for tick in ticks for outcome in tick]
    assert len(results) == len(records) * len(ratios)
    return lambda ratio: [
        list(result.token_ids) for result in results if isinstance(result, Result) and result.alignment.ratio == ratio
    ]


def conversations(records: list[dict[str, Any]]) -> list[list[dict[str, str]]]:
    return [record.get("messages") or [{"role": "user", "content": record["prompt"]}] for record in records]


def with_principle(conversation: list[dict[str, str]], principle: str) -> list[dict[str, str]]:
    system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    if conversation[0]["role"] == "system":
        system, conversation = conversation[0]["content"], conversation[1:]
    return [{"role": "system", "content": f"{system}\n\n{principle.strip()}"}, *conversation]


def tokenized(smol: LoadedModel, conversations: list[list[dict[str, str]]]) -> Any:
    return smol.tokenizer.apply_chat_template(
        conversations,
        add_generation_prompt=True,
        padding=True,
        return_dict=True,
        return_tensors="pt",
        tokenizer_kwargs={"padding_side": "left"},
    )


@pytest.fixture(scope="module")
def stock(smol: LoadedModel, stock_smol: Any, hh: str, records: list[dict[str, Any]]) -> Callable[..., list[list[int]]]:
    """Responses of `generate` to the bare or the principled prompts; with a guidance scale, away from the bare ones."""
    bare = tokenized(smol, conversations(records))
    principled = tokenized(smol, [with_principle(conversation, hh) for conversation in conversations(records)])

    def stock(aligned: bool, scale: float | None = None) -> list[list[int]]:
        encoded = principled if aligned else bare
        guidance = {}
        if scale is not None:
            guidance = {
                "guidance_scale": scale,
                "negative_prompt_ids": bare["input_ids"],
                "negative_prompt_attention_mask": bare["attention_mask"],
            }
        output = stock_smol.generate(**encoded, max_new_tokens=NEW, do_sample=False, **guidance)
        responses = output[:, encoded["input_ids"].shape[1] :].tolist()
        return [until_stop(response, smol.stop_ids) for response in responses]

    return stock


def until_stop(tokens: list[int], stop_ids: frozenset[int]) -> list[int]:
    end = next((place for place, token in enumerate(tokens) if token in stop_ids), len(tokens))
    return tokens[: end + 1]


@pytest.mark.real
@pytest.mark.parametrize("ratio", [0, 1])
def test_ratio_0_is_the_bare_prompt_and_ratio_1_the_principle_as_a_prompt(
    swept: Callable[[float], list[list[int]]], stock: Callable[..., list[list[int]]], ratio: int
) -> None:
    assert swept(ratio) == stock(aligned=bool(ratio))


@pytest.mark.real
@pytest.mark.parametrize("ratio", [0.5, 1.5, 3])
def test_without_support_a_ratio_is_a_guidance_scale(
    swept: Callable[[float], list[list[int]]], stock: Callable[..., list[list[int]]], ratio: float
) -> None:
    assert swept(ratio) == stock(aligned=True, scale=ratio)


@pytest.mark.real
def test_the_real_model_says_the_same_greedy_or_sampled_whatever_the_batch(
    smol: LoadedModel, hh: str, records: list[dict[str, Any]]
) -> None:
    mixed = [
        record | ({"temperature": 0.8, "seed": 5, "top_p": 0.9} if number % 2 else {})
        for number, record in enumerate(records[:4])
    ]
    mixed.append(mixed[1] | {"seed": 6})
    answers = []
    for batch_size in (1, 4, 16):
        execution = Execution(batch_size=batch_size, statistics="none")
        outcomes = Aligner(TorchBackend(smol)).generate(
            mixed, principle=hh, ratio=2, max_new_tokens=16, execution=execution
        )
        answers.append(list(outcomes))
    assert all(isinstance(answer, Result) for run in answers for answer in run)
    assert told(iter(answers[0])) == told(iter(answers[1])) == told(iter(answers[2]))
    responses = [answer.response for answer in answers[0] if isinstance(answer, Result)]
    assert responses[1] != responses[4]  # by the seed alone


@pytest.mark.real
def test_every_recipe_answers_alone_as_it_does_among_all_in_a_sweep(smol: LoadedModel, hh: str) -> None:
    """On the real model: each recipe by `generate`, and all of them as the points of one sweep."""
    aligner, prompt = Aligner(TorchBackend(smol)), "Why is the sky blue?"
    alone = {}
    for name in RECIPES:
        (answer,) = aligner.generate([prompt], principle=hh, recipe=name, max_new_tokens=4)
        assert isinstance(answer, Result), name
        assert answer.summary is not None
        assert all(math.isfinite(value) for value in answer.summary.values()), name
        alone[name] = answer.token_ids
    settings = Settings(make_principles([hh]), tuple(RECIPES.values()), Sampling(max_new_tokens=4), sweep=True)
    ticks = aligner.ticks([prompt], settings, system=None, execution=Execution())
    swept = [outcome for outcomes in ticks for outcome in outcomes if isinstance(outcome, Result)]
    assert {answer.alignment.recipe: answer.token_ids for answer in swept} == alone

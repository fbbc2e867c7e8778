"""From a record and the job's settings to a request: what prevails, what fails, and with which words."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from conftest import TinyTokenizer
from tokenizers import normalizers

from lalign.engine.interface import Limits, Request
from lalign.errors import OptionError
from lalign.method.linear_alignment import Alignment
from lalign.options import Prompting, Sampling
from lalign.records.parsing import Message, Record
from lalign.records.prompts import Principles, PromptTemplate, make_principles
from lalign.records.requests import RequestBuilder, Settings, resolve
from lalign.results import Failure

KIND = make_principles(["Be kind."])
RAISING = (
    "{% for message in messages %}{{ message.content }}"
    "{% if message.role == 'assistant' %}{{ raise_exception('no\nassistants') }}{% endif %}{% endfor %}"
)


def record(line: int = 1, text: str = "Hello", **given: Any) -> Record:
    return Record(line, f"id-{line}", (Message("user", text),), given.pop("options", {}), **given)


def never(strings: tuple[str, ...]) -> Callable[[list[int]], bool]:
    return lambda tokens: False


@pytest.fixture(scope="module")
def template(tiny_tokenizer: TinyTokenizer) -> PromptTemplate:
    return PromptTemplate(tiny_tokenizer("chatml"))


@pytest.fixture
def build(template: PromptTemplate) -> Callable[..., Request | Failure]:
    def build(record: Record, settings: Settings | None = None, context: int | None = None) -> Request | Failure:
        settings = settings or Settings(KIND)
        return RequestBuilder(template, settings, Limits(context), never).build(record, ("key", record.line))

    return build


def request_of(outcome: Request | Failure) -> Request:
    assert isinstance(outcome, Request), outcome
    return outcome


def failure_of(outcome: Request | Failure) -> Failure:
    assert isinstance(outcome, Failure)
    assert (outcome.id, outcome.line) == ("id-1", 1)
    assert "\n" not in outcome.message
    return outcome


# Settings of the job.


def test_options_go_over_the_recipe_and_the_sampling() -> None:
    settings = resolve(
        KIND, "released", Sampling(temperature=0.5, top_k=3), {"ratio": 4, "temperature": 0.9, "p": None}
    )
    (aligned,) = settings.alignments
    assert aligned == Alignment(recipe="released", anchor="principle", ratio=4)
    assert (settings.sampling.temperature, settings.sampling.top_k) == (0.9, 3)
    assert settings.principles is KIND


def test_an_option_out_of_range_is_named() -> None:
    with pytest.raises(OptionError, match=r"^ratio: .*-1$"):
        resolve(KIND, options={"ratio": -1})


def test_an_option_that_nothing_has_is_named() -> None:
    with pytest.raises(TypeError, match="beam_width"):
        resolve(KIND, options={"beam_width": 3, "ratio": 1})


# What a record says of itself.


def test_a_plain_record_takes_everything_from_the_job(build: Callable[..., Any], template: PromptTemplate) -> None:
    settings = Settings(KIND, (Alignment(ratio=2.5),), Sampling(temperature=0.7, seed=9))
    request = request_of(build(record(4), settings))
    base, principled = template.twins((Message("user", "Hello"),), KIND)
    assert (request.base, request.principled, request.weights) == (base, (principled,), (1.0,))
    assert request.key == ("key", 4)
    (point,) = request.points
    assert (point.alignment, point.sampling, point.place) == (settings.alignments[0], settings.sampling, 0)
    assert point.seed == (9, 4)  # the run's seed and the record's line


def test_a_records_own_options_prevail(build: Callable[..., Any]) -> None:
    options = {"ratio": 0.5, "p": 1.5, "temperature": 0.1, "top_p": 0.5, "top_k": 2, "max_new_tokens": 7, "seed": 11}
    (point,) = request_of(build(record(options=options))).points
    assert point.alignment == Alignment(ratio=0.5, p=1.5)
    assert point.sampling == Sampling(temperature=0.1, top_p=0.5, top_k=2, max_new_tokens=7, seed=11)
    assert point.seed == (11,)  # wherever in the input the record stands


def test_points_of_a_sweep_prevail_over_a_records_ratio_but_not_over_its_sampling(build: Callable[..., Any]) -> None:
    sweep = Settings(KIND, (Alignment(ratio=1), Alignment(ratio=4, p=3)), Sampling(), sweep=True)
    request = request_of(build(record(options={"ratio": 9.0, "temperature": 0.4}), sweep))
    assert [(point.alignment, point.place) for point in request.points] == [
        (Alignment(ratio=1), 0),
        (Alignment(ratio=4, p=3), 1),
    ]
    assert {point.sampling.temperature for point in request.points} == {0.4}
    assert len({point.seed for point in request.points}) == 1


def test_samples_have_the_seed_of_the_run_or_of_the_record_and_one_more_each(build: Callable[..., Any]) -> None:
    several = Settings(KIND, sampling=Sampling(temperature=1, seed=9), samples=3)
    points = request_of(build(record(4), several)).points
    assert [(point.seed, point.sample, point.place) for point in points] == [
        ((9, 4), 0, 0),
        ((10, 4), 1, 1),
        ((11, 4), 2, 2),
    ]
    points = request_of(build(record(4, options={"seed": 20, "ratio": 1.5}), several)).points
    assert [point.seed for point in points] == [(20,), (21,), (22,)]
    assert {point.alignment for point in points} == {Alignment(ratio=1.5)}


def test_a_record_whose_seed_leaves_no_room_for_its_samples_fails(build: Callable[..., Any]) -> None:
    several = Settings(KIND, sampling=Sampling(temperature=1), samples=2)
    assert failure_of(build(record(options={"seed": 2**63 - 1}), several)).type == "invalid_option"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"samples": 0}, "at least 1"),
        ({"samples": 2}, "temperature above 0"),
        ({"samples": 2, "sampling": Sampling(temperature=1), "sweep": True}, "sweep"),
        ({"samples": 2, "sampling": Sampling(temperature=1, seed=2**63 - 1)}, "too many"),
    ],
)
def test_samples_that_cannot_be(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(OptionError, match=problem) as error:
        Settings(KIND, **options)
    assert error.value.option == "samples"


def test_a_records_principle_takes_the_place_of_all_of_the_jobs(
    build: Callable[..., Any], template: PromptTemplate
) -> None:
    several = Settings(make_principles(["Be kind.", "Be brief."], [2, 0.5], contrast="Be rude."))
    request = request_of(build(record(principle="Be a pirate."), several))
    own = Principles(("Be a pirate.",), (1.0,), "Be rude.")
    assert [request.base, *request.principled] == template.twins((Message("user", "Hello"),), own)
    assert request.weights == (1.0,)


def test_a_records_contrast_takes_the_place_of_the_jobs(build: Callable[..., Any], template: PromptTemplate) -> None:
    request = request_of(build(record(contrast="Be dull.")))
    own = replace(KIND, contrast="Be dull.")
    assert [request.base, *request.principled] == template.twins((Message("user", "Hello"),), own)


@pytest.mark.parametrize("written", ["Be kind.\n", "  Be kind."])
def test_the_space_around_a_principle_does_not_count_wherever_it_is_given(
    build: Callable[..., Any], written: str
) -> None:
    from_the_job = request_of(build(record(), Settings(make_principles([written], contrast=written))))
    from_the_record = request_of(build(record(principle=written, contrast=written), Settings()))
    assert (from_the_job.base, from_the_job.principled) == (from_the_record.base, from_the_record.principled)
    assert from_the_job.base == from_the_job.principled[0]


def test_stop_strings_are_made_into_a_test_of_tokens(template: PromptTemplate) -> None:
    asked: list[tuple[str, ...]] = []

    def stops(strings: tuple[str, ...]) -> Callable[[list[int]], bool]:
        asked.append(strings)
        return lambda tokens: tokens[-1] == 42

    builder = RequestBuilder(template, Settings(KIND, sampling=Sampling(stop=("END",))), Limits(), stops)
    (point,) = request_of(builder.build(record(), 0)).points
    assert point.stops is not None
    assert point.stops([1, 42])
    (point,) = request_of(builder.build(record(options={"stop": ("\n", "###")}), 0)).points
    assert asked == [("END",), ("\n", "###")]
    (point,) = request_of(RequestBuilder(template, Settings(KIND), Limits(), stops).build(record(), 0)).points
    assert point.stops is None


# What cannot be run.


def test_without_a_principle_only_the_base_model_can_be_asked(build: Callable[..., Any]) -> None:
    assert failure_of(build(record(), Settings())).type == "missing_principle"
    mixed = Settings(Principles(), (Alignment(ratio=0), Alignment(ratio=2)), sweep=True)
    assert failure_of(build(record(), mixed)).type == "missing_principle"
    request = request_of(build(record(), Settings(Principles(), (Alignment(ratio=0),))))
    assert (request.principled, request.weights) == ((), ())
    assert request_of(build(record(principle="Be kind."), Settings())).principled


def test_a_prompt_that_just_fits_the_context(build: Callable[..., Any]) -> None:
    long = record(text="word " * 20, options={"max_new_tokens": 10})
    length = request_of(build(long)).length
    assert request_of(build(long, context=length + 10)).length == length
    failure = failure_of(build(long, context=length + 9))
    assert failure.type == "context_length"
    assert all(str(number) in failure.message for number in (length, 10, length + 9))


def test_a_prompt_that_is_far_too_long_is_refused_before_it_is_tokenised(
    template: PromptTemplate, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tokenise(*_: Any) -> Any:
        raise AssertionError("tokenised")

    builder = RequestBuilder(template, Settings(KIND), Limits(512), never)
    monkeypatch.setattr(template, "twins", tokenise)
    failure = failure_of(builder.build(record(text="word " * 10_000_000), 0))
    assert failure.type == "context_length"
    assert re.fullmatch(
        r"prompt: at least \d+ tokens, and max_new_tokens 128, are more than the model's context of 512",
        failure.message,
    )


def test_a_records_own_variables_of_the_template_prevail(tiny_tokenizer: TinyTokenizer) -> None:
    tokenizer = tiny_tokenizer("{{ lead }}{{ messages[-1].content }}")
    template = PromptTemplate(tokenizer, prompting=Prompting(chat_template_kwargs={"lead": "So: "}))
    builder = RequestBuilder(template, Settings(KIND), Limits(), never)
    given = replace(record(), chat_template_kwargs={"lead": "Well: "})
    assert tokenizer.decode(request_of(builder.build(record(), 0)).base) == "So: Hello"
    assert tokenizer.decode(request_of(builder.build(given, 0)).base) == "Well: Hello"


def test_the_principle_counts_towards_the_context(build: Callable[..., Any]) -> None:
    base = request_of(build(record(), Settings(Principles(), (Alignment(ratio=0),))))
    room = len(base.base) + Sampling().max_new_tokens
    assert isinstance(build(record(), Settings(Principles(), (Alignment(ratio=0),)), room), Request)
    assert failure_of(build(record(), context=room)).type == "context_length"


def test_an_option_that_does_not_go_with_the_jobs_is_named(build: Callable[..., Any]) -> None:
    """p = 1 is fine in itself, but Eq. 10 has no value there."""
    paper = Settings(KIND, (Alignment(scale="absolute"),))
    failure = failure_of(build(record(options={"p": 1.0}), paper))
    assert failure.type == "invalid_option"
    assert failure.message.startswith("p: ")


def test_a_prompt_that_leaves_no_token(tiny_tokenizer: TinyTokenizer) -> None:
    """As tokenizers that drop control characters make of some prompts."""
    tokenizer = tiny_tokenizer(add_bos=False)
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("\x01", "")
    builder = RequestBuilder(PromptTemplate(tokenizer), Settings(KIND), Limits(), never)
    failure = failure_of(builder.build(record(text="\x01\x01"), 0))
    assert failure.type == "empty_prompt"


def test_a_conversation_that_the_template_refuses(tiny_tokenizer: TinyTokenizer) -> None:
    template = PromptTemplate(tiny_tokenizer(RAISING))
    turns = (Message("user", "Hi"), Message("assistant", "Ho"), Message("user", "Bye"))
    refused = replace(record(), messages=turns)
    failure = failure_of(RequestBuilder(template, Settings(KIND), Limits(), never).build(refused, 0))
    assert failure.type == "template_error"
    assert "assistants" in failure.message


def test_why_the_context_is_what_it_is_is_told(tiny_tokenizer: TinyTokenizer) -> None:
    template = PromptTemplate(tiny_tokenizer("chatml"))
    builder = RequestBuilder(template, Settings(KIND), Limits(4, "phi3 knows more positions"), never)
    failure = failure_of(builder.build(record(), 0))
    assert failure.type == "context_length"
    assert failure.message.endswith("are more than the model's context of 4 (phi3 knows more positions)")


def test_a_token_that_the_model_has_not_is_refused(tiny_tokenizer: TinyTokenizer) -> None:
    template = PromptTemplate(tiny_tokenizer("chatml"))
    known = request_of(RequestBuilder(template, Settings(KIND), Limits(), never).build(record(), 0))
    most = max(known.base + known.principled[0])
    request_of(RequestBuilder(template, Settings(KIND), Limits(vocabulary=most + 1), never).build(record(), 0))
    failure = failure_of(RequestBuilder(template, Settings(KIND), Limits(vocabulary=most), never).build(record(), 0))
    assert (failure.type, failure.message) == (
        "unknown_token",
        f"prompt: holds token {most}, and the model knows none beyond {most - 1}",
    )

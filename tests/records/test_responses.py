"""From tokens to a result: its text, where that ends, its usage and its statistics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import TinyTokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from lalign.engine.interface import Ended, EndReason, Point, Request, Sequence
from lalign.method.aligned import STATISTICS
from lalign.method.linear_alignment import Alignment
from lalign.options import Sampling, Statistics
from lalign.records.parsing import Message, Record
from lalign.records.responses import ResponseWriter
from lalign.results import Failure, Result

EOS = 1
STOP_IDS = frozenset({EOS, 4})  # <eos> and <|im_end|>


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer: TinyTokenizer) -> Any:
    return tiny_tokenizer("chatml")


@pytest.fixture(scope="module")
def writer(tokenizer: Any) -> ResponseWriter:
    return ResponseWriter(tokenizer, STOP_IDS, "steps")


def encode(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def outcome(
    tokenizer: Any,
    tokens: list[int],
    reason: EndReason = "length",
    statistics: Statistics = "steps",
    stop: tuple[str, ...] = (),
    raw: Any = None,
) -> Result | Failure:
    point = Point(Alignment(ratio=2.5), Sampling(stop=stop))
    request = Request(0, [5] * 10, ([5] * 25, [5] * 13), (1.0, 1.0), (point,))
    steps = [np.arange(len(STATISTICS), dtype=np.float32) + place for place in range(len(tokens))]
    record = Record(3, "mine", (Message("user", "Hi"),), {}, raw=raw)
    return ResponseWriter(tokenizer, STOP_IDS, statistics).outcome(
        Ended(Sequence(request, point, tokens, steps), reason), record
    )


def result(tokenizer: Any, tokens: list[int], **given: Any) -> Result:
    found = outcome(tokenizer, tokens, **given)
    assert isinstance(found, Result)
    return found


# Text.


@pytest.mark.parametrize("stop_id", sorted(STOP_IDS))
def test_the_token_that_ends_a_response_is_no_part_of_its_text_but_is_counted(tokenizer: Any, stop_id: int) -> None:
    found = result(tokenizer, [*encode(tokenizer, "Good day."), stop_id], reason="stop")
    assert (found.response, found.finish_reason) == ("Good day.", "stop")
    assert found.usage.completion_tokens == len(encode(tokenizer, "Good day.")) + 1


def test_special_tokens_within_a_response_are_no_part_of_its_text(tokenizer: Any) -> None:
    assert result(tokenizer, [*encode(tokenizer, "a"), 2, *encode(tokenizer, "b")]).response == "ab"


def test_a_response_of_nothing_but_its_end_is_empty(tokenizer: Any) -> None:
    assert result(tokenizer, [EOS], reason="stop").response == ""


@pytest.mark.parametrize(
    ("text", "stop", "kept"),
    [
        ("one END two", ("END",), "one "),
        ("one END two", ("two", "END"), "one "),
        ("one\n\ntwo", ("\n",), "one"),
        ("END", ("END",), ""),
        ("one two", ("END",), "one two"),
        ("naïve 日本 text", ("日",), "naïve "),
    ],
)
def test_text_is_cut_where_the_first_stop_string_begins(
    tokenizer: Any, text: str, stop: tuple[str, ...], kept: str
) -> None:
    assert result(tokenizer, encode(tokenizer, text), stop=stop, reason="stop").response == kept


def test_spaces_before_punctuation_are_left_as_they_are(tokenizer: Any) -> None:
    assert result(tokenizer, encode(tokenizer, "Well , now .")).response == "Well , now ."


# Stop strings.


@settings(max_examples=100)
@given(
    text=st.text(st.sampled_from("ab\n é日E"), max_size=40),
    strings=st.lists(st.text(st.sampled_from("ab\n é日E"), min_size=1, max_size=12), min_size=1, max_size=3),
)
def test_a_stop_string_is_seen_at_the_token_that_completes_it(
    writer: ResponseWriter, tokenizer: Any, text: str, strings: list[str]
) -> None:
    stops = writer.stops(tuple(strings))
    tokens = encode(tokenizer, text)
    lengths = range(1, len(tokens) + 1)
    complete = [any(string in writer.detokenizer.text(tokens[:length]) for string in strings) for length in lengths]
    first = complete.index(True) if True in complete else len(tokens) - 1
    assert [stops(tokens[: length + 1]) for length in range(first + 1)] == complete[: first + 1]


def test_a_stop_string_of_many_tokens(writer: ResponseWriter, tokenizer: Any) -> None:
    string = "~!@#$%^&*()_+{}|:" * 3
    tokens = encode(tokenizer, f"some text {string}")
    stops = writer.stops((string,))
    assert [stops(tokens[:length]) for length in range(1, len(tokens) + 1)] == [False] * (len(tokens) - 1) + [True]


def test_a_special_token_is_no_stop_string(writer: ResponseWriter) -> None:
    assert not writer.stops(("<pad>",))([2])


# The rest of a result.


def test_usage_counts_the_prompt_what_the_principles_add_and_the_response(tokenizer: Any) -> None:
    usage = result(tokenizer, [50, 51, 52]).usage
    assert (usage.prompt_tokens, usage.principle_tokens, usage.completion_tokens) == (10, 15 + 3, 3)


def test_a_result_is_of_its_record_and_point(tokenizer: Any) -> None:
    found = result(tokenizer, [50], raw={"prompt": "Hi"})
    assert (found.id, found.line, found.alignment.ratio, found.input) == ("mine", 3, 2.5, {"prompt": "Hi"})


def test_steps_are_columns_one_entry_a_token(tokenizer: Any) -> None:
    tokens = encode(tokenizer, "日 a")
    steps = result(tokenizer, tokens).steps
    assert steps is not None
    assert list(steps) == ["token_ids", "tokens", *STATISTICS]
    assert steps["token_ids"].tolist() == tokens
    assert steps["tokens"] == [tokenizer.decode([token]) for token in tokens]
    assert all(len(column) == len(tokens) for column in steps.values())
    assert steps["kl_aligned_base"].tolist() == list(range(len(tokens)))
    assert steps["flipped"].dtype == bool


@pytest.mark.parametrize(
    ("statistics", "summary", "steps"), [("steps", True, True), ("summary", True, False), ("none", False, False)]
)
def test_statistics_that_were_not_asked_for_are_left_out(
    tokenizer: Any, statistics: Statistics, summary: bool, steps: bool
) -> None:
    found = result(tokenizer, [50, 51], statistics=statistics)
    assert (found.summary is not None, found.steps is not None) == (summary, steps)
    if found.summary is not None:
        assert found.summary["kl_aligned_base_sum"] == 0 + 1


@pytest.mark.parametrize("reason", ["not_finite", "out_of_memory"])
def test_a_sequence_that_failed_gives_a_failure_that_says_where(tokenizer: Any, reason: EndReason) -> None:
    failure = outcome(tokenizer, [50, 51], reason)
    assert isinstance(failure, Failure)
    assert (failure.id, failure.line, failure.type) == ("mine", 3, reason)
    assert failure.point == {"recipe": "lalign", "ratio": 2.5, "p": 2.0}
    assert "token 2" in failure.message

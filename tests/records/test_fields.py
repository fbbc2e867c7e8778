"""Nothing that a record asks for is ignored in silence: it is honoured, refused, or named."""

from __future__ import annotations

from typing import Any

import pytest

from lalign.records.notices import Notices
from lalign.records.parsing import Record, parse_fields
from lalign.results import Failure

MESSAGES = [{"role": "user", "content": "Hi"}]


def batch(body: dict[str, Any], **line: Any) -> Record | Failure:
    return parse_fields({"custom_id": "x", **line, "body": {"messages": MESSAGES, **body}}, 1)


def ignored(outcome: Record | Failure) -> tuple[str, ...]:
    assert isinstance(outcome, Record), outcome
    return outcome.ignored


TOOL = {"type": "function", "function": {"name": "weather"}}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 3),
        ("n", "3"),
        ("tools", [TOOL]),
        ("functions", [{"name": "f"}]),
        ("tool_choice", "required"),
        ("tool_choice", TOOL),
        ("response_format", {"type": "json_object"}),
        ("response_format", {"type": "json_schema", "json_schema": {}}),
        ("modalities", ["text", "audio"]),
        ("guided_json", {"type": "object"}),
    ],
)
def test_a_body_that_asks_for_another_kind_of_answer_is_refused(name: str, value: Any) -> None:
    refused = batch({name: value})
    assert isinstance(refused, Failure)
    assert (refused.id, refused.type) == ("x", "unsupported")
    assert refused.message.startswith(f"body.{name}: one answer in plain text is all there is, not ")


@pytest.mark.parametrize("url", ["/v1/embeddings", "/v1/completions", "/v1/responses", "/v1/bad_url", "", 5])
def test_another_endpoint_is_refused_whatever_its_body(url: Any) -> None:
    for body in ({"messages": MESSAGES}, {"input": "text"}, {"prompt": "text"}):
        refused = parse_fields({"custom_id": "x", "url": url, "body": body}, 1)
        assert isinstance(refused, Failure)
        assert (refused.type, refused.message) == ("unsupported", f"url: must be /v1/chat/completions, not {url!r}")


@pytest.mark.parametrize("url", [None, "/v1/chat/completions", "/chat/completions", "https://a.b/v1/chat/completions"])
def test_the_endpoint_of_chats_is_taken(url: Any) -> None:
    assert ignored(batch({}, url=url, method="POST")) == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 1),
        ("stream", False),
        ("tools", []),
        ("tool_choice", "auto"),
        ("tool_choice", "none"),
        ("response_format", {"type": "text"}),
        ("frequency_penalty", 0),
        ("presence_penalty", 0.0),
        ("logprobs", False),
        ("top_logprobs", None),
        ("logit_bias", {}),
        ("modalities", ["text"]),
        ("best_of", 1),
        ("user", "someone"),
        ("metadata", {"a": "b"}),
        ("top_k", 4),
    ],
)
def test_what_asks_for_nothing_more_needs_no_word(name: str, value: Any) -> None:
    assert ignored(batch({name: value})) == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", "m"),
        ("logprobs", True),
        ("top_logprobs", 3),
        ("frequency_penalty", 1.5),
        ("presence_penalty", -1),
        ("logit_bias", {"50": -100}),
        ("stream", True),
        ("best_of", 2),
        ("ignore_eos", True),
        ("min_tokens", 4),
        ("stop_token_ids", [28]),
        ("what_nobody_knows", "x"),
        ("Ratio", 0),
        ("topP", 0),
    ],
)
def test_whatever_else_a_body_asks_for_is_named(name: str, value: Any) -> None:
    assert ignored(batch({name: value})) == (f"body.{name}",)


@pytest.mark.parametrize(
    "name",
    [
        *("Ratio", "max-new-tokens", "maxNewTokens", "MAX_TOKENS", "max_new_token", "temprature", "topP", "top-k", "P"),
        *("minP", "repetition-penalty", "Principle", "principles", "System", "Seed", "STOP", "maxCompletionTokens"),
    ],
)
@pytest.mark.parametrize("value", [0, "x"])
def test_what_is_spelled_like_an_option_is_named(name: str, value: Any) -> None:
    assert ignored(parse_fields({"prompt": "Hi", name: value}, 1)) == (name,)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 2),
        ("do_sample", True),
        ("min_new_tokens", 5),
        ("frequency_penalty", 1),
        ("logit_bias", {"1": 2}),
        ("tools", [TOOL]),
        ("response_format", {"type": "json_object"}),
        ("max_kl", 0.5),
        ("scale", "absolute"),
        ("supportTopP", 0.5),
        ("system_prompt", "Be brief"),
        ("input", "Cats sleep for most of the day."),
    ],
)
def test_an_option_that_records_do_not_have_is_named(name: str, value: Any) -> None:
    assert ignored(parse_fields({"prompt": "Hi", name: value}, 1)) == (name,)


@pytest.mark.parametrize(
    "name",
    [
        *("x", "rating", "topic", "category", "question_id", "prompt_id", "reference", "output", "rejected", "tag"),
        *(
            "model",
            "dataset",
            "step",
            "seat",
            "temp",
            "name",
            "text",
            "token",
            "score",
            "messages_en",
            "source",
            "split",
        ),
        *("\x1b[31m", "é" * 10, "x" * 10_000, ""),
    ],
)
def test_what_is_like_no_option_is_data(name: str) -> None:
    assert ignored(parse_fields({"prompt": "Hi", name: "x"}, 1)) == ()


@pytest.mark.parametrize("value", [None, 0, False, "", [], {}])
def test_an_option_that_is_off_is_not_named(value: Any) -> None:
    line = dict.fromkeys(("n", "stream", "logit_bias", "tools", "max_kl", "input"), value)
    assert ignored(parse_fields({"prompt": "Hi", **line}, 1)) == ()


# What is told of an input


def notices(*records: dict[str, Any]) -> list[str]:
    told = Notices()
    for line, fields in enumerate(records, start=1):
        record = parse_fields(fields, line)
        assert isinstance(record, Record), record
        told.count(record)
    return told.lines("in.jsonl")


def test_what_was_ignored_is_one_line_of_names_and_counts() -> None:
    biased = {"body": {"messages": MESSAGES, "logit_bias": {"1": 2}}}
    streamed = {"body": {"messages": MESSAGES, "logit_bias": {"1": 2}, "stream": True}}
    assert notices(biased, {"prompt": "Hi"}) == ["in.jsonl: ignored body.logit_bias in 1 record"]
    assert notices(streamed, biased) == ["in.jsonl: ignored body.logit_bias in 2 records, body.stream in 1"]


def test_what_several_have_counted_is_told_as_one() -> None:
    counted = [Notices(), Notices()]
    for told in counted:
        told.add(["stream", "x" * 100], "question", continued=True)
    counted[0].merge(counted[1])
    (read, continued, ignored) = counted[0].lines("in")
    assert read == "in: prompts were read from question in 2 records"
    assert continued.startswith("in: 2 records end with an assistant's turn")
    assert ignored.startswith("in: ignored stream in 2 records, ")


def test_where_prompts_were_read_from_is_one_line() -> None:
    question, instruction = {"question": "Hi"}, {"instruction": "Hi"}
    assert notices(question) == ["in.jsonl: prompts were read from question in 1 record"]
    assert notices(question, instruction, question) == [
        "in.jsonl: prompts were read from question in 2 records, instruction in 1"
    ]


def test_there_is_nothing_to_tell_of_plain_records() -> None:
    assert notices({"prompt": "Hi", "ratio": 1, "topic": "x"}) == []


def test_names_without_end_are_neither_all_held_nor_all_told() -> None:
    records = [{"body": {"messages": MESSAGES, f"{'x' * 1000}{number}": 1, f"y{number}": 1}} for number in range(1500)]
    (told,) = notices(*records)
    assert len(told) < 1000
    assert told.endswith(" and 990 more")

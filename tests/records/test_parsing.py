"""Input lines: what each form means, and what is said of a line that cannot be used (design section 4)."""

from __future__ import annotations

import io
import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lalign.errors import OptionError
from lalign.method.linear_alignment import Alignment
from lalign.options import Sampling
from lalign.records.notices import Notices
from lalign.records.parsing import Message, Problem, Record, parse_record
from lalign.records.source import RawLine, open_source, read_lines
from lalign.results import Failure, Result, Usage, to_line

SAMPLES = Path(__file__).parents[2] / "samples"
FUZZ_EXAMPLES = int(os.environ.get("LALIGN_FUZZ_EXAMPLES", "2000"))


def parsed(line: Any, *, keep: bool = False) -> Record | Failure:
    """The outcome of line 7: bytes as they are, anything else as JSON."""
    data = line if isinstance(line, bytes) else json.dumps(line).encode()
    return parse_record(RawLine(7, data), keep=keep)


def record(line: Any, *, keep: bool = False) -> Record:
    outcome = parsed(line, keep=keep)
    assert isinstance(outcome, Record), outcome
    return outcome


def failure(line: Any) -> Failure:
    outcome = parsed(line)
    assert isinstance(outcome, Failure), outcome
    return outcome


def user(*contents: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": content} for content in contents]


def written_with_input(kept: Record) -> bytes:
    result = Result(kept.id, kept.line, "", "stop", Usage(1, 1, 1), Alignment(), input=kept.raw)
    return to_line(result)


# Forms


@pytest.mark.parametrize(
    ("line", "messages"),
    [
        ({"prompt": "Hi"}, [("user", "Hi")]),
        ({"prompt": " Hi\n"}, [("user", " Hi\n")]),
        ({"messages": user("Hi")}, [("user", "Hi")]),
        (
            {"messages": [{"role": "system", "content": "Be brief"}, *user("Hi")]},
            [("system", "Be brief"), ("user", "Hi")],
        ),
        (
            {"messages": [{"role": "developer", "content": "Be brief"}, *user("Hi")]},
            [("system", "Be brief"), ("user", "Hi")],
        ),
        (
            {"messages": [*user("Hi"), {"role": "assistant", "content": "Yes?"}, *user("Bye")]},
            [("user", "Hi"), ("assistant", "Yes?"), ("user", "Bye")],
        ),
        ({"messages": user("Hi", "there")}, [("user", "Hi"), ("user", "there")]),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]},
            [("user", "a\nb")],
        ),
        ({"custom_id": "x", "body": {"model": "m", "messages": user("Hi")}}, [("user", "Hi")]),
        ({"chosen": "\n\nHuman: Hi\n\nAssistant: Hello", "rejected": "\n\nHuman: No"}, [("user", "Hi")]),
        (
            {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: a\n\nb: c\n\nAssistant: Bye"},
            [("user", "Hi"), ("assistant", "Hello"), ("user", "a\n\nb: c")],
        ),
        ({"chosen": "Human: Hi\n\nAssistant:"}, [("user", "Hi")]),
        ({"chosen": "\n\nHuman: Hi"}, [("user", "Hi")]),
        ({"chosen": "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: unanswered"}, [("user", "Hi")]),
    ],
)
def test_every_form_becomes_messages(line: Any, messages: list[tuple[Any, str]]) -> None:
    assert record(line).messages == tuple(Message(role, content) for role, content in messages)


def test_the_first_form_of_messages_prompt_body_and_chosen_is_taken() -> None:
    line: dict[str, Any] = {
        "chosen": "\n\nHuman: chosen\n\nAssistant: x",
        "body": {"messages": user("body"), "seed": 5},
        "prompt": "prompt",
        "messages": user("messages"),
    }
    for form in ("messages", "prompt", "body", "chosen"):
        taken = record(line)
        assert taken.messages == (Message("user", form),)
        assert taken.options == ({"seed": 5} if form == "body" else {})
        line[form] = None


@pytest.mark.parametrize(
    "name", ["prompts.jsonl", "options.jsonl", "openai_batch.jsonl", "anthropic_hh.jsonl", "forms.jsonl"]
)
def test_every_line_of_the_samples_is_a_record(name: str) -> None:
    with open_source(SAMPLES / name) as stream:
        outcomes = [parse_record(line) for line in read_lines(stream, name)]
    assert outcomes
    assert [outcome for outcome in outcomes if isinstance(outcome, Failure)] == []


# Identity and context


@pytest.mark.parametrize(
    ("given_ids", "expected"),
    [
        ({}, 7),
        ({"id": None}, 7),
        ({"id": "a"}, "a"),
        ({"id": 0}, 0),
        ({"id": -(2**63)}, -(2**63)),
        ({"id": 2**64 - 1}, 2**64 - 1),
        ({"custom_id": "b"}, "b"),
        ({"id": "a", "custom_id": "b"}, "a"),
        ({"id": 1.0}, 1.0),
        ({"id": -0.5}, -0.5),
        ({"custom_id": 1e18}, 1e18),
    ],
)
def test_the_id_is_the_lines_own_or_its_number(given_ids: dict[str, Any], expected: str | int | float) -> None:
    for found in (record({"prompt": "Hi", **given_ids}), failure(given_ids)):
        assert repr(found.id) == repr(expected)


@pytest.mark.parametrize("bad", [2**64, -(2**63) - 1, 10**400, 1e19, True, [], {}])
def test_an_id_that_could_not_be_given_back_unchanged_is_refused(bad: Any) -> None:
    refused = failure({"prompt": "Hi", "id": bad})
    assert (refused.id, refused.type) == (7, "invalid_type")
    assert refused.message.startswith("id: must be a string or a number of 64 bits, not ")


def test_variables_of_the_chat_template_are_taken_from_the_line_else_from_the_body() -> None:
    body = {"messages": [{"role": "user", "content": "Hi"}], "chat_template_kwargs": {"enable_thinking": False}}
    assert record({"body": body}).chat_template_kwargs == {"enable_thinking": False}
    assert record({"body": body, "chat_template_kwargs": {"a": [1]}}).chat_template_kwargs == {"a": [1]}
    assert record({"prompt": "Hi", "chat_template_kwargs": None}).chat_template_kwargs is None


def test_principle_and_contrast_are_texts() -> None:
    both = record({"prompt": "Hi", "principle": "/etc/passwd", "contrast": "Be rude"})
    assert (both.principle, both.contrast) == ("/etc/passwd", "Be rude")
    neither = record({"prompt": "Hi", "principle": None})
    assert (neither.principle, neither.contrast) == (None, None)


# Options


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("ratio", 0, 0.0),
        ("p", 1.5, 1.5),
        ("p", "inf", math.inf),
        ("temperature", 1, 1.0),
        ("top_p", 0.9, 0.9),
        ("top_k", 40, 40),
        ("min_p", 0, 0.0),
        ("repetition_penalty", 2, 2.0),
        ("max_new_tokens", 1, 1),
        ("seed", 2**63 - 1, 2**63 - 1),
        ("stop", "\n", ("\n",)),
        ("stop", ["a", "b"], ("a", "b")),
        ("stop", [], ()),
    ],
)
def test_an_option_has_the_type_that_a_run_gives_it(name: str, value: Any, expected: Any) -> None:
    options = record({"prompt": "Hi", name: value}).options
    assert options == {name: expected}
    assert type(options[name]) is type(expected)


def test_a_null_option_is_absent_and_what_is_no_option_is_ignored() -> None:
    assert record({"prompt": "Hi", "ratio": None, "stop": None, "scale": "x", "x": 1}).options == {}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"temperature": 0.5, "top_p": 1, "seed": 3}, {"temperature": 0.5, "top_p": 1.0, "seed": 3}),
        ({"max_tokens": 5}, {"max_new_tokens": 5}),
        ({"max_tokens": 5, "max_completion_tokens": 6}, {"max_new_tokens": 6}),
        ({"max_tokens": 5, "max_completion_tokens": None}, {"max_new_tokens": 5}),
        ({"stop": "\n"}, {"stop": ("\n",)}),
        ({"ratio": 1, "top_k": 4, "min_p": 0.5}, {"ratio": 1.0, "top_k": 4, "min_p": 0.5}),
        ({"repetition_penalty": 1.5, "max_new_tokens": 3}, {"repetition_penalty": 1.5, "max_new_tokens": 3}),
    ],
)
def test_an_openai_body_gives_the_options_that_it_has(body: dict[str, Any], expected: dict[str, Any]) -> None:
    assert record({"body": {"messages": user("Hi"), **body}}).options == expected


def test_a_key_of_the_line_wins_over_the_body() -> None:
    body = {"messages": user("Hi"), "temperature": 0.5, "max_tokens": 5}
    line = {"body": body, "temperature": 0, "max_new_tokens": 9, "ratio": 2}
    assert record(line).options == {"temperature": 0.0, "max_new_tokens": 9, "ratio": 2.0}


BAD_OPTIONS = [
    ("ratio", -1),
    ("ratio", "2"),
    ("ratio", True),
    ("p", 0.5),
    ("p", "infinity"),
    ("temperature", -0.1),
    ("temperature", "inf"),
    ("top_p", 0),
    ("top_p", 1.1),
    ("top_k", 1.5),
    ("top_k", -1),
    ("min_p", 7),
    ("repetition_penalty", 0),
    ("max_new_tokens", 0),
    ("max_new_tokens", 64.0),
    ("seed", 2**63),
    ("seed", {}),
]


@pytest.mark.parametrize(("name", "value"), BAD_OPTIONS)
def test_an_option_out_of_range_is_told_in_the_words_of_the_command_line(name: str, value: Any) -> None:
    with pytest.raises(OptionError) as said:
        (Alignment if name in ("ratio", "p") else Sampling)(**{name: value})
    refused = failure({"prompt": "Hi", name: value, "id": "x"})
    assert refused == Failure("x", 7, "invalid_option", str(said.value))


@pytest.mark.parametrize("name", ["max_new_tokens", "max_completion_tokens", "max_tokens"])
def test_the_length_of_a_response_has_three_names(name: str) -> None:
    assert record({"prompt": "Hi", name: 3}).options == {"max_new_tokens": 3}
    assert record({"prompt": "Hi", "max_tokens": 9, name: 3}).options == {"max_new_tokens": 3}
    assert failure({"prompt": "Hi", name: 0}).message.startswith(f"{name}: must be a whole number ")


def test_texts_may_stand_in_the_body() -> None:
    body = {"messages": user("Hi"), "principle": "Be kind", "contrast": "Be rude", "system": "Be brief"}
    found = record({"body": body, "contrast": "Be dull"})
    assert (found.principle, found.contrast) == ("Be kind", "Be dull")
    assert found.messages[0] == Message("system", "Be brief")


@pytest.mark.parametrize("stop", ["", [""], ["a", 1], 5, {"a": "b"}])
def test_stop_is_one_or_more_strings(stop: Any) -> None:
    refused = failure({"prompt": "Hi", "stop": stop})
    assert (refused.type, refused.message) == ("invalid_option", "stop: must be one or more non-empty strings")


@pytest.mark.parametrize("name", ["temperature", "max_tokens", "max_completion_tokens"])
def test_an_option_of_the_body_is_named_as_the_line_names_it(name: str) -> None:
    refused = failure({"body": {"messages": user("Hi"), name: -1}})
    assert refused.type == "invalid_option"
    assert refused.message.startswith(f"body.{name}: must be a ")


# Lines that cannot be used

BOT = {"role": "bot", "content": "x"}
ASSISTANT = {"role": "assistant", "content": "x"}
SYSTEM = {"role": "system", "content": "x"}
IMAGE = {"type": "image_url", "image_url": {"url": "x"}}

UNUSABLE: list[tuple[Any, Problem, str]] = [
    (b"\xff", "invalid_utf8", "not UTF-8: byte 0xff at position 1"),
    (b'{"prompt": "\xed\xa0\x80"}', "invalid_utf8", "not UTF-8: byte 0xed at position 13"),
    (b"{", "invalid_json", "not valid JSON: unexpected end of data at column 2"),
    (b"\x00\x00", "invalid_json", "not valid JSON: "),
    (b'{"prompt": "a"} {}', "invalid_json", "not valid JSON: "),
    (b'{"prompt": "a", "ratio": NaN}', "invalid_json", "not valid JSON: "),
    (b'{"prompt": "a", "ratio": -Infinity}', "invalid_json", "not valid JSON: "),
    (b'{"n": 1e999, "ratio": NaN}', "invalid_json", "not valid JSON: NaN is not a number at column 23"),
    (b'{"n": 1e999, "prompt": }', "invalid_json", "not valid JSON: "),
    (b'{"prompt": "\\ud800"}', "invalid_json", "not valid JSON: a lone surrogate in a string at column "),
    (b'{"prompt": "\\udc00a"}', "invalid_json", "not valid JSON: a lone surrogate in a string at column "),
    (b'{"n": 1e999, "prompt": "\\ud800"}', "invalid_json", "not valid JSON: a lone surrogate in a string"),
    (b"[" * 10_000 + b"]" * 10_000, "too_deep", "nested too deeply"),
    (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "too_deep", "nested too deeply"),
    (b'{"a":' * 300 + b"1" + b"}" * 300, "too_deep", "nested too deeply"),
    (b'{"n": 1e999, "a":' + b"[" * 10_000 + b"]" * 10_000 + b"}", "too_deep", "nested too deeply"),
    (b"null", "not_an_object", "must be a JSON object, not None"),
    (b'"prompt"', "not_an_object", "must be a JSON object, not 'prompt'"),
    ([{"prompt": "Hi"}], "not_an_object", "must be a JSON object, not [{'prompt': 'Hi'}]"),
    ({}, "missing_prompt", "needs one of: messages, prompt, body.messages, chosen"),
    ({"prompt": None}, "missing_prompt", "needs one of: messages, prompt, body.messages, chosen"),
    ({"body": {}}, "missing_prompt", "body.messages: missing"),
    ({"prompt": ""}, "empty_prompt", "prompt: must not be blank"),
    ({"prompt": " \n\t\u3000"}, "empty_prompt", "prompt: must not be blank"),
    ({"messages": user("Hi", " ")}, "empty_prompt", "messages[1].content: must not be blank"),
    ({"messages": [{"role": "user", "content": []}]}, "empty_prompt", "messages[0].content: must not be blank"),
    (
        {"messages": [*user("Hi"), {"role": "assistant", "content": ""}, *user("x")]},
        "empty_prompt",
        "messages[1].content: must not be blank",
    ),
    ({"chosen": " "}, "empty_prompt", "chosen: must not be blank"),
    ({"chosen": "\n\nHuman:\n\nAssistant: x"}, "empty_prompt", "chosen: turn 1: must not be blank"),
    ({"prompt": 5}, "invalid_type", "prompt: must be a string, not 5"),
    ({"prompt": ["a"]}, "invalid_type", "prompt[0]: must be an object, not 'a'"),
    ({"messages": "Hi"}, "invalid_type", "messages: must be a list of messages, not 'Hi'"),
    ({"messages": ["Hi"]}, "invalid_type", "messages[0]: must be an object, not 'Hi'"),
    ({"messages": [{"role": "user"}]}, "invalid_type", "messages[0].content: must be a string, not None"),
    ({"messages": [{"role": "user", "content": 1}]}, "invalid_type", "messages[0].content: must be a string, not 1"),
    (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, IMAGE]}]},
        "invalid_type",
        "messages[0].content[1]: must be a text part, not {'type': 'image_url', ",
    ),
    ({"messages": [*user("Hi"), SYSTEM]}, "invalid_type", "messages[1].role: a system turn must come first"),
    ({"messages": [SYSTEM, SYSTEM, *user("Hi")]}, "invalid_type", "messages[1].role: a system turn must come first"),
    ({"body": "Hi"}, "invalid_type", "body: must be an object, not 'Hi'"),
    ({"body": {"messages": {}}}, "invalid_type", "body.messages: must be a list of messages, not {}"),
    ({"chosen": ["Hi"]}, "invalid_type", "chosen[0]: must be an object, not 'Hi'"),
    ({"chosen": 5}, "invalid_type", "chosen: must be a string, not 5"),
    ({"chosen": "Hi\n\nHuman: Hi"}, "invalid_type", "chosen: must start with 'Human:', not 'Hi'"),
    ({"prompt": "Hi", "principle": 5}, "invalid_type", "principle: must be a string, not 5"),
    ({"prompt": "Hi", "principle": " "}, "invalid_option", "principle: must not be blank"),
    ({"prompt": "Hi", "contrast": ""}, "invalid_option", "contrast: must not be blank"),
    (
        {"prompt": "Hi", "chat_template_kwargs": "thinking"},
        "invalid_option",
        "chat_template_kwargs: must be a JSON object, not 'thinking'",
    ),
    (
        {"body": {"messages": [{"role": "user", "content": "Hi"}], "chat_template_kwargs": {"tokenize": True}}},
        "invalid_option",
        "body.chat_template_kwargs: cannot set tokenize, which lalign sets itself",
    ),
    (
        {"messages": [*user("Hi"), ASSISTANT, BOT]},
        "unknown_role",
        "messages[2].role: must be system, user or assistant, not 'bot'",
    ),
    (
        {"messages": [{"content": "Hi"}]},
        "unknown_role",
        "messages[0].role: must be system, user or assistant, not None",
    ),
    ({"messages": []}, "no_user_turn", "messages: must hold at least one user turn"),
    ({"messages": [SYSTEM, ASSISTANT]}, "no_user_turn", "messages: must hold at least one user turn"),
    ({"chosen": "\n\nAssistant: Hi"}, "no_user_turn", "chosen: must hold at least one user turn"),
    (
        {"chosen": "\n\nHuman: a\n\nAssistant: b\n\nAssistant: c"},
        "no_user_turn",
        "chosen: the last turn must be the user's, not the assistant's",
    ),
]


@pytest.mark.parametrize(("line", "problem", "message"), UNUSABLE)
def test_a_line_that_cannot_be_used_says_why(line: Any, problem: Problem, message: str) -> None:
    refused = failure(line)
    assert (refused.id, refused.line, refused.type) == (7, 7, problem)
    assert refused.message.startswith(message)


def test_a_line_that_was_too_long_says_so() -> None:
    assert parse_record(RawLine(7, b"", too_long=True)) == Failure(7, 7, "too_long", "the line is longer than 64 MiB")


def test_a_failure_has_the_id_that_could_be_read() -> None:
    assert failure({"id": "x", "messages": [BOT]}).id == "x"
    assert failure({"custom_id": "y", "body": 5}).id == "y"


@pytest.mark.parametrize(
    "line",
    [
        {"messages": [{"role": "\x1b[31m\x07\u202e\x9b" + "x" * 10_000, "content": "x"}]},
        {"prompt": "Hi", "ratio": "\x1b[31m\x07\u202e\x9b" + "x" * 10_000},
        {"prompt": {"\x1b[2J": "x" * 10_000}},
        "\x1b[31m" * 1000,
    ],
)
def test_data_in_a_message_is_short_and_cannot_drive_a_terminal(line: Any) -> None:
    message = failure(line).message
    assert message.isprintable()
    assert len(message) < 160


# Odd lines that can be used


def test_nul_characters_and_repeated_keys_are_json() -> None:
    assert record(b'{"prompt": "first", "prompt": "a\\u0000b"}').messages == (Message("user", "a\0b"),)


def test_a_line_of_ten_megabytes_is_a_record() -> None:
    assert len(record({"prompt": "x" * 10_000_000}).messages[0].content) == 10_000_000


@pytest.mark.parametrize(
    ("number", "kept"),
    [
        ("18446744073709551616", "18446744073709551616"),
        ("-9223372036854775809", "-9223372036854775809"),
        ("1" * 300, "1" * 300),
        ("1" * 400, f'"{"1" * 400}"'),
        ("1" * 10_000, f'"{"1" * 10_000}"'),
        ("-1.5E+999", '"-1.5E+999"'),
    ],
)
def test_numbers_beyond_64_bits_matter_only_where_they_are_read(number: str, kept: str) -> None:
    line = f'{{"prompt":"Hi","ignored":[{number}],"top_k":4}}'.encode()
    assert record(line).options == {"top_k": 4}
    written = written_with_input(record(line, keep=True))
    assert f'"ignored":[{kept}]'.encode() in written
    assert orjson.loads(written)["id"] == 7
    refused = failure(f'{{"prompt":"Hi","top_k":{number}}}'.encode())
    assert (refused.type, refused.message[:30]) == ("invalid_option", "top_k: must be a whole number ")


def test_the_input_object_is_kept_only_when_asked_for() -> None:
    line: dict[str, Any] = {"prompt": "Hi", "other": [1, 2.5, None, True, "é", {"deep": [[[[]]]]}]}
    assert record(line).raw is None
    assert record(line, keep=True).raw == line


def test_whatever_is_deep_enough_to_be_read_can_be_written() -> None:
    def nested(depth: int) -> bytes:
        return b'{"prompt":"Hi","a":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"

    usable = max(depth for depth in range(1, 300) if isinstance(parsed(nested(depth)), Record))
    assert usable >= 200
    assert nested(usable) in written_with_input(record(nested(usable), keep=True))


# Fuzzing: whatever the bytes, one outcome for each line, and one that can be written

OPTIONS = ["ratio", "p", "temperature", "top_p", "top_k", "min_p", "repetition_penalty"]
OPTIONS += ["max_new_tokens", "max_tokens", "seed", "stop"]
FORMS = ["prompt", "messages", "body", "chosen", "instruction", "question", "turns", "conversations"]
ASKED = ["n", "tools", "response_format", "logit_bias", "stream", "url", "input", "Ratio", "max-new-tokens"]
KEYS = [*OPTIONS, *FORMS, *ASKED, "id", "custom_id", "principle", "contrast", "system"]
KEYS += ["role", "content", "type", "text", "from", "value"]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**63, 2**64, 10**400, 0, 1, -1])
    | st.floats()
    | st.text(st.characters())
    | st.sampled_from(["user", "assistant", "system", "inf", "text", "\n\nHuman: a\n\nAssistant: b", "\ud800", "\0"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS) | st.text(), inner, max_size=4),
    max_leaves=12,
)
ROLES = st.sampled_from(["user", "user", "assistant", "system", "developer", "tool"])
TURNS = st.fixed_dictionaries({"role": ROLES, "content": st.text(min_size=1) | VALUES})
CONVERSATIONS = st.lists(TURNS, max_size=3).map(lambda turns: [*turns, *user("Hi")])
NUMBERS = st.sampled_from([0, 1, 2, 0.5, 1.5, 64, "inf"])
PROMPTS: dict[str, st.SearchStrategy[Any]] = {
    "prompt": st.text(min_size=1),
    "messages": CONVERSATIONS,
    "body": st.fixed_dictionaries({"messages": CONVERSATIONS}, optional={"seed": NUMBERS, "max_tokens": NUMBERS}),
    "chosen": st.lists(st.sampled_from(["\n\nHuman:", "\nAssistant:", " ", "a", "\n"]), max_size=8).map("".join)
    | CONVERSATIONS,
    "instruction": st.text(min_size=1),
    "turns": st.lists(st.text(), max_size=2),
    "conversations": st.lists(
        st.fixed_dictionaries({"from": st.sampled_from(["human", "gpt", "system", "x"]), "value": st.text()}),
        max_size=3,
    ),
}
OWN = dict.fromkeys([*OPTIONS, "id"], NUMBERS)
LINES = st.one_of(
    st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6),
    *(st.fixed_dictionaries({form: prompts}, optional=OWN) for form, prompts in PROMPTS.items()),
    *(st.fixed_dictionaries({form: prompts}, optional={"x": VALUES}) for form, prompts in PROMPTS.items()),
    st.fixed_dictionaries({"prompt": st.just("Hi")}, optional={name: SCALARS for name in KEYS if name != "prompt"}),
)
JSON_LINES = st.builds(lambda value, ascii: json.dumps(value, ensure_ascii=ascii), LINES | VALUES, st.booleans()).map(
    lambda text: text.encode(errors="surrogatepass")
)
VALID = [
    json.dumps(line, ensure_ascii=False).encode()
    for line in (
        {"prompt": "Grüße", "id": "a", "ratio": 2.5, "p": "inf", "stop": ["\n", "end"], "top_k": 40},
        {"messages": [SYSTEM, *user("one"), ASSISTANT, *user("two \U0001f600")], "seed": 2**63 - 1, "id": 2**64 - 1},
        {"custom_id": "b", "body": {"messages": user("Hi"), "temperature": 0.5, "max_tokens": 5, "stop": "\n"}},
        {"chosen": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d", "principle": "kind", "big": 10**30},
        {"prompt": user("Hi"), "chosen": [*user("Hi"), ASSISTANT], "system": "", "Ratio": 2, "n": 3, "id": 1.5},
        {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "max-new-tokens": 3},
    )
]


@st.composite
def mutated_lines(draw: st.DrawFn) -> bytes:
    """A valid line after up to four bit flips, truncations, splices with another line, insertions or repeats."""
    data = draw(st.sampled_from(VALID))
    for change in draw(st.lists(st.sampled_from(["flip", "cut", "splice", "insert", "repeat"]), max_size=4)):
        at = draw(st.integers(0, len(data)))
        if change == "flip" and at < len(data):
            data = data[:at] + bytes([data[at] ^ (1 << draw(st.integers(0, 7)))]) + data[at + 1 :]
        elif change == "cut":
            data = data[:at]
        elif change == "splice":
            other = draw(st.sampled_from(VALID))
            data = data[:at] + other[draw(st.integers(0, len(other))) :]
        elif change == "insert":
            data = data[:at] + draw(st.binary(max_size=4) | st.sampled_from([b"9" * 400, b"[" * 2000])) + data[at:]
        elif change == "repeat":
            data = data[:at] + data[draw(st.integers(0, at)) :]
    return data


def check_outcome(outcome: Record | Failure, line: int) -> None:
    assert outcome.line == line
    if isinstance(outcome, Failure):
        assert outcome.type in get_args(Problem)
        assert outcome.message.isprintable()
        assert len(outcome.message) < 200
        written = to_line(outcome)
    else:
        assert outcome.messages[-1].role in ("user", "assistant")
        assert any(message.role == "user" for message in outcome.messages)
        assert all(message.content.strip() or message.role == "system" for message in outcome.messages)
        notices = Notices()
        notices.count(outcome)
        assert all(len(line) < 200 for line in notices.lines("in"))
        for settings_of in (Alignment(), Sampling()):
            own = {name: value for name, value in outcome.options.items() if hasattr(settings_of, name)}
            replace(settings_of, **own)
        written = written_with_input(outcome)
    assert written.count(b"\n") == 1
    assert orjson.loads(written)["id"] == outcome.id


@pytest.mark.fuzz
@pytest.mark.parametrize(
    ("lines", "share"),
    [(st.binary(max_size=200), 0.2), (JSON_LINES, 0.3), (mutated_lines(), 0.5)],
    ids=["random bytes", "random JSON", "mutated lines"],
)
def test_any_input_gives_one_outcome_for_each_line(lines: st.SearchStrategy[bytes], share: float) -> None:
    @settings(
        max_examples=max(1, int(FUZZ_EXAMPLES * share)),
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(lines, min_size=1, max_size=3), st.sampled_from([b"\n", b"\r\n"]), st.booleans())
    def check(drawn: list[bytes], ending: bytes, keep: bool) -> None:
        data = ending.join(drawn)
        filled = [
            number
            for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1)
            if line.strip()
        ]
        raws = list(read_lines(io.BytesIO(data), "fuzz"))
        assert [raw.number for raw in raws] == filled
        for raw in raws:
            check_outcome(parse_record(raw, keep=keep), raw.number)

    check()

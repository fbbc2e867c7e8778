"""Where a line's conversation is read from: lists of messages, system turns, and the keys of other public data."""

from __future__ import annotations

from typing import Any

import pytest

from lalign.records.notices import Notices
from lalign.records.parsing import Message, Record, parse_fields
from lalign.records.reading import Reading
from lalign.results import Failure

USER = {"role": "user", "content": "Hi"}
ANSWER = {"role": "assistant", "content": "SECRET"}
ASKED = (Message("user", "Hi"),)


def record(line: dict[str, Any]) -> Record:
    outcome = parse_fields(line, 1)
    assert isinstance(outcome, Record), outcome
    return outcome


def failure(line: dict[str, Any]) -> Failure:
    outcome = parse_fields(line, 1)
    assert isinstance(outcome, Failure), outcome
    return outcome


# Preference data with lists of messages


@pytest.mark.parametrize(
    "line",
    [
        {"prompt": [USER], "chosen": [ANSWER], "rejected": [ANSWER]},
        {"prompt": [USER]},
        {"prompt": "Hi", "chosen": [USER, ANSWER]},
        {"chosen": [USER, ANSWER], "rejected": [USER, ANSWER]},
        {"chosen": [USER, {"role": "assistant", "content": ""}]},
        {"chosen": [USER]},
    ],
)
def test_a_row_of_messages_gives_what_its_answer_was_given_to(line: dict[str, Any]) -> None:
    assert record(line).messages == ASKED
    assert record(line).read_from is None


def test_earlier_answers_are_part_of_the_conversation() -> None:
    turns = [{"role": "system", "content": "Be brief"}, USER, {"role": "assistant", "content": "Yes?"}, USER, ANSWER]
    assert [message.role for message in record({"chosen": turns}).messages] == ["system", "user", "assistant", "user"]


def test_an_answer_without_its_prompt_cannot_be_used() -> None:
    assert failure({"chosen": [ANSWER]}).message == "chosen: must hold at least one user turn"


# Beginnings of an answer


@pytest.mark.parametrize(
    "line", [{"messages": [USER, ANSWER]}, {"prompt": [USER, ANSWER]}, {"body": {"messages": [USER, ANSWER]}}]
)
def test_a_last_turn_of_the_assistant_s_is_gone_on_from_and_told_of(line: dict[str, Any]) -> None:
    found = record(line)
    assert found.messages == (*ASKED, Message("assistant", "SECRET"))
    notices = Notices()
    notices.count(found)
    assert notices.lines("in") == ["in: 1 record ends with an assistant's turn, which the response goes on from"]


def test_a_blank_beginning_is_none() -> None:
    blank = {"role": "assistant", "content": " "}
    assert failure({"messages": [USER, blank]}).message == "messages[1].content: must not be blank"


def test_preferences_are_never_gone_on_from() -> None:
    assert failure({"chosen": [USER, ANSWER, ANSWER]}).type == "no_user_turn"


# System turns


@pytest.mark.parametrize("empty", ["", " ", []])
def test_an_empty_system_turn_is_an_empty_system_turn(empty: Any) -> None:
    first = record({"messages": [{"role": "system", "content": empty}, USER]}).messages[0]
    assert (first.role, first.content.strip()) == ("system", "")


@pytest.mark.parametrize(
    "line", [{"prompt": "Hi"}, {"messages": [USER]}, {"question": "Hi"}, {"body": {"messages": [USER]}}]
)
@pytest.mark.parametrize("system", ["Be brief", ""])
def test_a_line_may_give_a_system_message_beside_any_form(line: dict[str, Any], system: str) -> None:
    assert record({**line, "system": system}).messages == (Message("system", system), *ASKED)


def test_the_system_turn_of_the_conversation_stays_and_the_other_is_told_of() -> None:
    turns = [{"role": "system", "content": ""}, USER]
    found = record({"messages": turns, "system": "Be brief"})
    assert found.messages[0] == Message("system", "")
    assert found.ignored == ("system",)


def test_a_system_message_is_a_text() -> None:
    assert failure({"prompt": "Hi", "system": ["a"]}).message == "system: must be a string, not ['a']"
    assert record({"prompt": "Hi", "system": None}).messages == ASKED


# Tools


@pytest.mark.parametrize("key", ["tool_calls", "function_call"])
def test_a_call_of_a_tool_in_the_conversation_is_refused(key: str) -> None:
    called: dict[str, Any] = {"role": "assistant", "content": "Let me look", key: [{"id": "a"}]}
    turns = [USER, called, USER]
    refused = failure({"messages": turns})
    assert (refused.type, refused.message) == ("unsupported", f"messages[1].{key}: lalign knows no tools")
    called[key] = []
    assert len(record({"messages": turns}).messages) == 3


# Keys of other public data


@pytest.mark.parametrize(
    ("line", "read_from"),
    [
        ({"question_id": 81, "category": "x", "turns": ["Hi", "Now rhyme it."]}, "turns"),
        ({"instruction": "Hi", "output": "", "generator": "g"}, "instruction"),
        ({"instruction": "Hi", "input": " ", "output": "x"}, "instruction"),
        ({"question": "Hi"}, "question"),
        ({"query": "Hi"}, "query"),
        ({"question": "Hi", "chosen": "SECRET", "rejected": "x"}, "question"),
        ({"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "SECRET"}]}, "conversations"),
    ],
)
def test_a_key_of_other_data_is_taken_for_the_prompt_and_named(line: dict[str, Any], read_from: str) -> None:
    assert record(line).messages == ASKED
    assert record(line).read_from == read_from


@pytest.mark.parametrize("own", [{"prompt": "Hi"}, {"messages": [USER]}, {"chosen": [USER, ANSWER]}])
def test_lalign_s_own_keys_come_first(own: dict[str, Any]) -> None:
    found = record({**own, "question": "x", "instruction": "y"})
    assert (found.messages, found.read_from) == (ASKED, None)


def test_an_instruction_is_joined_to_its_input() -> None:
    found = record({"instruction": "Translate", "input": "chat", "output": "cat"})
    assert found.messages == (Message("user", "Translate\n\nchat"),)
    assert found.ignored == ()


def test_of_mt_bench_the_later_turns_are_told_to_be_left_out() -> None:
    found = record({"turns": ["Hi", "Now rhyme it."]})
    assert found.ignored == ("turns after the first",)
    assert record({"turns": ["Hi"]}).ignored == ()


@pytest.mark.parametrize("texts", [["Hi"], ["Hi", "Now rhyme it."]])
def test_of_a_named_field_with_texts_the_first_is_the_prompt(texts: list[str]) -> None:
    found = parse_fields({"turns": texts}, 1, reading=Reading(prompt_field="turns"))
    assert isinstance(found, Record)
    assert (found.messages, found.read_from) == (ASKED, None)
    assert found.ignored == ("turns after the first",) * (len(texts) - 1)


def test_a_prompt_of_texts_is_refused_where_nothing_names_it() -> None:
    assert failure({"prompt": ["Hi", "Ho"]}).message == "prompt[0]: must be an object, not 'Hi'"


def test_conversations_may_have_roles_and_content() -> None:
    turns = [{"role": "system", "content": ""}, USER, ANSWER, USER, {"role": "assistant", "content": "SECRET"}]
    found = record({"conversations": turns})
    assert found.messages == record({"messages": turns[:-1]}).messages
    assert found.read_from == "conversations"
    assert failure({"conversations": [{"role": "tool"}]}).message.startswith("conversations[0].role: must be system")


def test_sharegpt_turns_have_their_roles() -> None:
    turns = [("system", ""), ("human", "a"), ("gpt", "b"), ("human", "c"), ("gpt", "SECRET")]
    found = record({"conversations": [{"from": name, "value": text} for name, text in turns]})
    assert [(message.role, message.content) for message in found.messages] == [
        ("system", ""),
        ("user", "a"),
        ("assistant", "b"),
        ("user", "c"),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            {"question": "a", "instruction": "b"},
            "needs one of: messages, prompt, body.messages, chosen; of instruction and question only one is taken",
        ),
        (
            {"id": "x", "doc_id": 0, "doc": {"question": "a"}, "target": "b"},
            "needs one of: messages, prompt, body.messages, chosen; the fields are doc, target (generate --prompt",
        ),
        ({"question": "a", "context": "b"}, "question: stands beside context, which may belong to it"),
        ({"query": "a", "input": "b"}, "query: stands beside input, which may belong to it"),
        ({"question": "a", "choices": ["b", "c"]}, "question: stands beside choices, which may belong to it"),
        ({"instruction": "a", "context": "b"}, "instruction: stands beside context, which may belong to it"),
        ({"question": 5}, "question: must be a string, not 5"),
        ({"instruction": "a", "input": 5}, "input: must be a string, not 5"),
        ({"turns": []}, "turns: must be a list of the user's turns, not []"),
        ({"turns": [5]}, "turns[0]: must be a string, not 5"),
        ({"conversations": "Hi"}, "conversations: must be a list of turns, not 'Hi'"),
        (
            {"conversations": [{"from": "tool", "value": "x"}]},
            "conversations[0].from: must be system, human or gpt, not ",
        ),
        ({"conversations": [{"from": "human"}]}, "conversations[0].value: must be a string, not None"),
        ({"conversations": [{"from": "gpt", "value": "x"}]}, "conversations: must hold at least one user turn"),
    ],
)
def test_what_is_not_plainly_the_prompt_is_refused(line: dict[str, Any], message: str) -> None:
    assert failure(line).message.startswith(message)

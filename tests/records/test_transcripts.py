"""Transcripts: who speaks where, however the lines are broken, and that no answer stays in the prompt."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lalign.records.parsing import Message, Record, parse_fields
from lalign.results import Failure

HUMAN, ASSISTANT = ["Human:", "human:", "HUMAN :"], ["Assistant:", "assistant:", "Assistant :"]
LINE_ENDS = ["\n", "\r\n", "\r", "\u2028", "\x85"]


def messages(chosen: Any) -> list[tuple[str, str]]:
    record = parse_fields({"chosen": chosen}, 1)
    assert isinstance(record, Record), record
    return [(message.role, message.content) for message in record.messages]


@pytest.mark.parametrize(
    "chosen",
    [
        "\r\n\r\nHuman: Hi\r\n\r\nAssistant: SECRET",
        "Human: Hi\nAssistant: SECRET",
        "Human: Hi\r\nAssistant: SECRET",
        " \n\n Human: Hi\n\n Assistant: SECRET",
        "\n\n\tHuman: Hi\n \t\n\tAssistant: SECRET",
        "\n\nhuman: Hi\n\nassistant: SECRET",
        "\n\nHuman: Hi\n\nassistant: SECRET",
        "\n\nHuman : Hi\n\nAssistant : SECRET",
        "\n\nHuman:Hi\n\nAssistant:SECRET",
        "\n\nHuman: Hi\n\nAssistant:",
    ],
)
def test_the_last_answer_is_no_part_of_the_prompt(chosen: str) -> None:
    assert messages(chosen) == [("user", "Hi")]


WORDS = st.text(st.sampled_from("ab: é\n\r\u3000"), min_size=1).filter(lambda text: text.strip())


@given(
    st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=3),
    st.sampled_from(LINE_ENDS),
    st.integers(1, 3),
    st.sampled_from(["", " ", "\t"]),
    st.sampled_from(HUMAN),
    st.sampled_from(ASSISTANT),
)
def test_a_transcript_gives_its_turns_however_it_is_laid_out(
    pairs: list[tuple[str, str]], end: str, blank: int, indent: str, human: str, assistant: str
) -> None:
    turns = [(human, asked) for asked, _ in pairs], [(assistant, answer) for _, answer in pairs]
    spoken = [turn for pair in zip(*turns, strict=True) for turn in pair]
    text = "".join(f"{end * blank}{indent}{speaker} {said.strip()}" for speaker, said in spoken)
    said = [
        (role, content.strip()) for pair in pairs for role, content in zip(("user", "assistant"), pair, strict=True)
    ]
    assert messages(text) == said[:-1]


def test_speakers_without_a_blank_line_are_quoted_where_the_others_make_a_whole_conversation() -> None:
    quoted = "Go on:\nHuman: a\nAssistant: b\nHuman: c"
    assert messages(f"\n\nHuman: {quoted}\n\nAssistant: SECRET") == [("user", quoted)]


@pytest.mark.parametrize(
    "chosen",
    [
        "Human: a\nAssistant: SECRET\n\nHuman: c\n\nAssistant: d",
        "Human: a\n\nAssistant: b\n\nHuman: c\nAssistant: SECRET",
    ],
)
def test_where_it_is_not_clear_who_speaks_the_line_is_refused(chosen: str) -> None:
    refused = parse_fields({"chosen": chosen}, 1)
    assert isinstance(refused, Failure)
    assert refused.type == "invalid_type"
    assert refused.message.startswith("chosen: a blank line stands before some speakers and not before others")


def test_a_transcript_of_many_turns_is_split_in_linear_time() -> None:
    text = "\n\nHuman: a\n\nAssistant: b" * 100_000
    assert len(messages(text)) == 199_999


def test_turns_are_messages_of_the_record() -> None:
    record = parse_fields({"chosen": "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Bye\n\nAssistant: x"}, 1)
    assert isinstance(record, Record)
    assert record.messages == (Message("user", "Hi"), Message("assistant", "Hello"), Message("user", "Bye"))

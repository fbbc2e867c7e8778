"""The text of tokens, with the tokenizers that make it hard: spaces at the start, bytes that are no characters."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import MetaspaceTokenizer, TinyTokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from lalign.records.detokenizer import Detokenizer

SPECIAL = 0
KINDS = ["byte-level", "byte fallback"]


@pytest.fixture(scope="module")
def tokenizers(tiny_tokenizer: TinyTokenizer, metaspace_tokenizer: MetaspaceTokenizer) -> dict[str, Any]:
    return {"byte-level": tiny_tokenizer("chatml"), "byte fallback": metaspace_tokenizer()}


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest, tokenizers: dict[str, Any]) -> Any:
    return tokenizers[request.param]


def encode(tokenizer: Any, text: str) -> list[int]:
    """The tokens of a text as it follows another."""
    before = tokenizer("a", add_special_tokens=False)["input_ids"]
    return list(tokenizer(f"a{text}", add_special_tokens=False)["input_ids"][len(before) :])


def found_at(detokenizer: Detokenizer, tokens: list[int], *strings: str) -> int | None:
    """How many tokens there are when a stop string is first seen."""
    stops = detokenizer.stops(strings)
    return next((length for length in range(1, len(tokens) + 1) if stops(tokens[:length])), None)


@pytest.mark.parametrize("text", [" so it is", "so", "  two", " ", "日本", " 🙂", "\n"])
def test_the_text_is_what_the_model_wrote_its_first_space_too(tokenizer: Any, text: str) -> None:
    assert Detokenizer(tokenizer, frozenset()).text(encode(tokenizer, text)) == text


@pytest.mark.parametrize("text", [" so it is", "so", "  two", "日本", " 🙂", "\n", "<|im_start|>"])
def test_the_bytes_of_tokens_are_those_of_the_text(tokenizer: Any, text: str) -> None:
    detokenizer = Detokenizer(tokenizer, frozenset())
    assert b"".join(map(detokenizer.token_bytes, encode(tokenizer, text))) == text.encode()


@pytest.mark.parametrize("run", [1, 10, 40])
def test_a_stop_string_is_found_behind_a_run_of_byte_tokens(tokenizer: Any, run: int) -> None:
    """Wherever the tail that is looked at begins: within a character, or within a run of bytes."""
    for more in range(4):
        tokens = encode(tokenizer, "x" * more + "日本🙂é" * run + " end")
        assert found_at(Detokenizer(tokenizer, frozenset()), tokens, " end") == len(tokens)


def test_a_stop_string_of_bytes_is_found_at_the_byte_that_completes_it(tokenizer: Any) -> None:
    tokens = encode(tokenizer, "日本日é日")
    before = len(encode(tokenizer, "日本日é"))
    assert found_at(Detokenizer(tokenizer, frozenset()), [*tokens, *tokens], "é日") == before + 3


def test_a_stop_string_is_found_at_the_very_start_with_its_space(tokenizer: Any) -> None:
    tokens = encode(tokenizer, " end of it")
    length = len(encode(tokenizer, " end"))
    assert found_at(Detokenizer(tokenizer, frozenset()), tokens, " end") == length
    assert Detokenizer(tokenizer, frozenset()).text(tokens, (" end",)) == ""


def test_special_tokens_do_not_shorten_what_is_looked_at(tokenizer: Any) -> None:
    tokens = [token for letter in encode(tokenizer, " end") for token in [letter, *[SPECIAL] * 20]]
    assert found_at(Detokenizer(tokenizer, frozenset()), tokens, " end") is not None


@settings(max_examples=60)
@given(
    kind=st.sampled_from(KINDS),
    text=st.text(st.sampled_from("ab e日🙂é\ufffd"), max_size=30),
    stop=st.text(st.sampled_from("ab e日🙂é"), min_size=1, max_size=4),
)
def test_a_stop_string_is_found_as_soon_as_the_text_holds_it(
    tokenizers: dict[str, Any], kind: str, text: str, stop: str
) -> None:
    tokens = encode(tokenizers[kind], text)
    detokenizer = Detokenizer(tokenizers[kind], frozenset())
    lengths = range(1, len(tokens) + 1)
    assert found_at(detokenizer, tokens, stop) == next(
        (length for length in lengths if stop in detokenizer.text(tokens[:length])), None
    )
    assert detokenizer.text(tokens) == text


@settings(max_examples=60)
@given(
    kind=st.sampled_from(KINDS),
    text=st.text(st.sampled_from("ab 日🙂é\ufffd"), min_size=1, max_size=12),
    cut=st.integers(0, 40),
)
def test_a_response_cut_within_a_character_ends_before_it(
    tokenizers: dict[str, Any], kind: str, text: str, cut: int
) -> None:
    """Whole characters before it stand, and what the model wrote as U+FFFD is the model's."""
    tokens = encode(tokenizers[kind], text)[:cut]
    cut_text = Detokenizer(tokenizers[kind], frozenset()).text(tokens)
    assert text.startswith(cut_text)
    rest = encode(tokenizers[kind], cut_text)
    assert len(tokens) - len(rest) <= 3


def test_bytes_that_are_no_characters_are_shown_as_such_where_more_follows(tokenizers: dict[str, Any]) -> None:
    for tokenizer in tokenizers.values():
        tokens = encode(tokenizer, "日")[:2] + encode(tokenizer, "ab")
        text = Detokenizer(tokenizer, frozenset()).text(tokens)
        assert text.endswith("ab")
        assert text.startswith("\ufffd")


def test_a_stop_token_behind_half_a_character(tokenizer: Any) -> None:
    tokens = [*encode(tokenizer, "a日")[:-1], SPECIAL, 1]
    assert Detokenizer(tokenizer, frozenset({1})).text(tokens) == "a"

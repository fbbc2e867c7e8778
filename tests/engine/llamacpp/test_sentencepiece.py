"""GGUF files with a tokenizer of SentencePiece's, as of Llama 2, Mistral and Gemma, against that of transformers."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from conftest import TinyModel
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_gguf import EXACT, sentencepiece_tokenizer, write_tiny_gguf

from lalign.aligner import Aligner
from lalign.engine.torch_backend import TorchBackend
from lalign.models.loading import LoadedModel
from lalign.records.detokenizer import Detokenizer
from lalign.records.parsing import Message
from lalign.records.prompts import PromptTemplate, make_principles
from lalign.results import Result

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

from lalign.engine.llamacpp.backend import LlamaBackend

INSTRUCTIONS = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %} {{ m.content }} {{ eos_token }}"
    "{% else %}[inst] {{ m.content }} [/inst]{% endif %}{% endfor %}"
)


class Both(NamedTuple):
    """The same model and tokenizer in both engines."""

    llama: LlamaBackend
    torch: TorchBackend


@pytest.fixture(scope="module", params=[True, False], ids=["space before a text", "none"])
def both(request: pytest.FixtureRequest, tiny_model: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> Both:
    tokenizer = sentencepiece_tokenizer(INSTRUCTIONS, add_space_prefix=request.param)
    ids = {"vocab_size": len(tokenizer), "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}
    model = tiny_model("llama", **ids)
    path = write_tiny_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", model, tokenizer)
    return Both(LlamaBackend(path, "tiny", EXACT), TorchBackend(LoadedModel(model, tokenizer, "tiny", "tiny")))


TEXT = st.text(
    st.sampled_from("the andig  日é🙂X\n▁<|") | st.characters(codec="utf-8", exclude_characters="\0"), max_size=30
)


@given(text=st.lists(st.sampled_from(["<s>", "</s>", " "]) | TEXT, max_size=4).map("".join))
@settings(max_examples=200)
def test_ids_and_text_are_those_of_transformers(both: Both, text: str) -> None:
    mine, theirs = both.llama.tokenizer, both.torch.tokenizer
    for special in (True, False):
        ids = theirs(text, add_special_tokens=special)["input_ids"]
        assert mine(text, add_special_tokens=special)["input_ids"] == ids
        for skip in (True, False):
            wanted = theirs.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False)
            assert mine.decode(ids, skip_special_tokens=skip) == wanted


@given(ids=st.lists(st.integers(0, 300), max_size=12))
@settings(max_examples=200)
def test_any_ids_decode_as_in_transformers(both: Both, ids: list[int]) -> None:
    """Bytes that make no character among them."""
    mine, theirs = both.llama.tokenizer, both.torch.tokenizer
    for skip in (True, False):
        wanted = theirs.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False)
        assert mine.decode(ids, skip_special_tokens=skip) == wanted
    assert mine.convert_ids_to_tokens(ids) == theirs.convert_ids_to_tokens(ids)
    assert Detokenizer(mine, frozenset({2})).text(ids) == Detokenizer(theirs, frozenset({2})).text(ids)


def test_the_vocabulary_is_that_of_transformers(both: Both) -> None:
    mine, theirs = both.llama.tokenizer, both.torch.tokenizer
    assert mine.get_vocab() == theirs.get_vocab()
    assert (mine.bos_token, mine.eos_token, mine.unk_token) == ("<s>", "</s>", "<unk>")
    assert set(mine.all_special_tokens) == set(theirs.all_special_tokens)
    assert both.llama.stop_ids == both.torch.stop_ids == {2}


def test_prompts_are_those_of_transformers(both: Both) -> None:
    principles = make_principles(["be brief, and kind.", "日 é <s> X"])
    mine, theirs = (PromptTemplate(backend.tokenizer) for backend in both)
    turns = [Message("user", "the thing </s>?"), Message("assistant", "and?"), Message("user", " what ")]
    for count in (1, 3):
        assert mine.twins(turns[:count], principles) == theirs.twins(turns[:count], principles)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_answers_are_those_of_torch(both: Both, temperature: float) -> None:
    how: dict[str, Any] = {"principle": "be kind.", "ratio": 2, "max_new_tokens": 24, "temperature": temperature}
    mine, theirs = (list(Aligner(backend).generate(["the thing?", "and 日?"], **how)) for backend in both)
    for one, other in zip(mine, theirs, strict=True):
        assert isinstance(one, Result)
        assert isinstance(other, Result)
        assert (one.token_ids, one.response, one.finish_reason) == (
            other.token_ids,
            other.response,
            other.finish_reason,
        )

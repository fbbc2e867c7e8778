"""The tokenizer of a GGUF against that of transformers for the same model."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import CHATML, TinyModel, TinyTokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_gguf import write_tiny_gguf

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

from lalign.engine.llamacpp.backend import LlamaBackend
from lalign.engine.llamacpp.template import Template
from lalign.engine.llamacpp.tokenizer import GgufTokenizer
from lalign.options import Prompting
from lalign.records.parsing import Message
from lalign.records.prompts import PromptTemplate, make_principles

TURNS = [{"role": "system", "content": "Be."}, {"role": "user", "content": "Two\nlines"}]
TEMPLATES = [
    CHATML,
    "{{ bos_token }}{% for m in messages %}\n  {% if loop.last %}\n[{{ m.content | trim }}]\n  {% endif %}{% endfor %}",
    "{%- for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}{{ m | tojson }}{% endfor %}",
    "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}{{ thinking }}",
    "{% set n = namespace(k=0) %}{% for m in messages %}{% set n.k = n.k + 1 %}{% endfor %}{{ n.k }}{{ eos_token }}",
    "{% if tools %}x{% endif %}{{ strftime_now('%Y') }}{{ messages[0]['role'].upper() }}",
    "{{ messages[0].content | tojson(indent=2) }}{% if add_generation_prompt %}>{% endif %}",
]


@pytest.fixture(scope="module")
def theirs(tiny_tokenizer: TinyTokenizer) -> Any:
    return tiny_tokenizer("chatml")


@pytest.fixture(scope="module")
def mine(tiny_model: TinyModel, theirs: Any, tmp_path_factory: pytest.TempPathFactory) -> GgufTokenizer:
    path = write_tiny_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", tiny_model("llama"), theirs)
    return LlamaBackend(path, "tiny", {}).tokenizer


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)


@given(text=st.lists(st.sampled_from(["<|im_start|>", "<bos>"]) | TEXT, max_size=4).map("".join))
@settings(max_examples=100)
def test_ids_and_text_are_those_of_transformers(mine: GgufTokenizer, theirs: Any, text: str) -> None:
    for special in (True, False):
        ids = theirs(text, add_special_tokens=special)["input_ids"]
        assert mine(text, add_special_tokens=special)["input_ids"] == ids
        for skip in (True, False):
            wanted = theirs.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False)
            assert mine.decode(ids, skip_special_tokens=skip) == wanted


@given(ids=st.lists(st.integers(0, 299), max_size=12))
@settings(max_examples=100)
def test_any_ids_decode_as_in_transformers(mine: GgufTokenizer, theirs: Any, ids: list[int]) -> None:
    wanted = theirs.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert mine.decode(ids, skip_special_tokens=True) == wanted
    assert mine.convert_ids_to_tokens(ids) == theirs.convert_ids_to_tokens(ids)


def test_special_tokens_are_those_of_transformers(mine: GgufTokenizer, theirs: Any) -> None:
    assert (mine.bos_token, mine.eos_token, mine.pad_token) == (theirs.bos_token, theirs.eos_token, theirs.pad_token)
    assert (mine.bos_token_id, mine.eos_token_id) == (theirs.bos_token_id, theirs.eos_token_id)
    assert set(mine.all_special_tokens) >= set(theirs.all_special_tokens)
    assert mine.get_vocab() == theirs.get_vocab()
    assert len(mine) == len(theirs)
    assert {number: token.content for number, token in mine.added_tokens_decoder.items()} == {
        number: token.content for number, token in theirs.added_tokens_decoder.items()
    }


@pytest.mark.parametrize("source", TEMPLATES)
def test_a_template_writes_what_transformers_writes(theirs: Any, source: str) -> None:
    written = Template(source, theirs.special_tokens_map)(TURNS, add_generation_prompt=True, thinking="no")
    assert written == theirs.apply_chat_template(
        TURNS, chat_template=source, tokenize=False, add_generation_prompt=True, thinking="no"
    )


def test_what_a_response_goes_on_from_is_as_in_transformers(mine: GgufTokenizer, theirs: Any) -> None:
    turns = (Message("user", "Why?"), Message("assistant", "Because of <|im_end|> "))
    principles = make_principles(["Be kind."])
    assert PromptTemplate(mine).twins(turns, principles) == PromptTemplate(theirs).twins(turns, principles)
    prefilling = Prompting(prefill="Because")
    ids = PromptTemplate(mine, prompting=prefilling).twins(turns[:1], principles)
    assert ids == PromptTemplate(theirs, prompting=prefilling).twins(turns[:1], principles)
    assert mine.decode(ids[0]).endswith("<|im_start|>assistant\nBecause")


@pytest.mark.parametrize(
    "source", ["{{ raise_exception('not so') }}", "{{ messages.append(1) }}", "{{ ''.__class__ }}"]
)
def test_a_template_that_refuses_raises(source: str) -> None:
    with pytest.raises(Exception):  # noqa: B017, a template may raise anything
        Template(source, {})(TURNS) or (_ for _ in ()).throw(ValueError("nothing was written"))

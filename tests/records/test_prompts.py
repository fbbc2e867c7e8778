"""The twins of a conversation differ by the principle alone, whatever the chat template makes of it."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import TinyTokenizer
from hypothesis import given
from hypothesis import strategies as st

from lalign.errors import OptionError
from lalign.models.loading import LoadedModel
from lalign.records.parsing import Message
from lalign.records.prompts import Principles, PromptTemplate, make_principles

PRINCIPLE = "Be kind."
ASK = (Message("user", "Why?"),)
MULTI_TURN = (Message("user", "Hi"), Message("assistant", "Ho"), Message("user", "Why?"))
OWN_SYSTEM = (Message("system", "You are Ada."), *ASK)
EMPTY_SYSTEM = (Message("system", ""), *ASK)

WITH_DEFAULT = (
    "<bos>{% if messages[0].role != 'system' %}[system]You are Bob.[/system]{% endif %}"
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}[/{{ m.role }}]{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
WITHOUT_DEFAULT = (
    "<bos>{% for m in messages %}[{{ m.role }}]{{ m.content }}[/{{ m.role }}]{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
# As of Llama 2 and Mistral: the template itself puts the system text into the first user turn.
IN_USER_TURN = (
    "<bos>{% if messages[0].role == 'system' %}{% set system = messages[0].content %}{% set turns = messages[1:] %}"
    "{% else %}{% set system = none %}{% set turns = messages %}{% endif %}{% for m in turns %}"
    "{% if m.role == 'user' %}[INST]{% if loop.first and system %}<<{{ system }}>>{% endif %}{{ m.content }}[/INST]"
    "{% else %}{{ m.content }}{% endif %}{% endfor %}"
)
REFUSING = (
    "<bos>{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}[{{ m.role }}]{{ m.content }}[/{{ m.role }}]{% endfor %}[assistant]"
)
DROPPING = (
    "<bos>{% for m in messages %}{% if m.role != 'system' %}[{{ m.role }}]{{ m.content }}[/{{ m.role }}]{% endif %}"
    "{% endfor %}[assistant]"
)
TEMPLATES = [WITH_DEFAULT, WITHOUT_DEFAULT, IN_USER_TURN, REFUSING, DROPPING, "chatml", None]


@pytest.fixture(scope="module")
def written(tiny_tokenizer: TinyTokenizer) -> Any:
    """`written(template, messages, principle, system)`: a twin as text."""

    def written(
        chat_template: str | None,
        messages: tuple[Message, ...],
        principle: str | None = None,
        system: str | None = None,
    ) -> str:
        tokenizer = tiny_tokenizer(chat_template)
        text: str = tokenizer.decode(PromptTemplate(tokenizer, system).token_ids(messages, principle))
        return text

    return written


@pytest.mark.parametrize(
    ("template", "messages", "system", "base", "principled"),
    [
        pytest.param(
            WITH_DEFAULT,
            ASK,
            None,
            "<bos>[system]You are Bob.[/system][user]Why?[/user][assistant]",
            "<bos>[system]You are Bob.\n\nBe kind.[/system][user]Why?[/user][assistant]",
            id="a default system text",
        ),
        pytest.param(
            WITH_DEFAULT,
            OWN_SYSTEM,
            "You are Eve.",
            "<bos>[system]You are Ada.[/system][user]Why?[/user][assistant]",
            "<bos>[system]You are Ada.\n\nBe kind.[/system][user]Why?[/user][assistant]",
            id="a default system text, and a record's own",
        ),
        pytest.param(
            WITH_DEFAULT,
            ASK,
            "You are Eve.",
            "<bos>[system]You are Eve.[/system][user]Why?[/user][assistant]",
            "<bos>[system]You are Eve.\n\nBe kind.[/system][user]Why?[/user][assistant]",
            id="a default system text, and the job's own",
        ),
        pytest.param(
            WITHOUT_DEFAULT,
            MULTI_TURN,
            None,
            "<bos>[user]Hi[/user][assistant]Ho[/assistant][user]Why?[/user][assistant]",
            "<bos>[system]Be kind.[/system][user]Hi[/user][assistant]Ho[/assistant][user]Why?[/user][assistant]",
            id="a system role",
        ),
        pytest.param(
            WITHOUT_DEFAULT,
            OWN_SYSTEM,
            None,
            "<bos>[system]You are Ada.[/system][user]Why?[/user][assistant]",
            "<bos>[system]You are Ada.\n\nBe kind.[/system][user]Why?[/user][assistant]",
            id="a system role, and a record's own",
        ),
        pytest.param(
            IN_USER_TURN,
            MULTI_TURN,
            None,
            "<bos>[INST]Hi[/INST]Ho[INST]Why?[/INST]",
            "<bos>[INST]<<Be kind.>>Hi[/INST]Ho[INST]Why?[/INST]",
            id="a system text in the first user turn",
        ),
        pytest.param(
            REFUSING,
            MULTI_TURN,
            None,
            "<bos>[user]Hi[/user][assistant]Ho[/assistant][user]Why?[/user][assistant]",
            "<bos>[user]Be kind.\n\nHi[/user][assistant]Ho[/assistant][user]Why?[/user][assistant]",
            id="a system role refused",
        ),
        pytest.param(
            REFUSING,
            OWN_SYSTEM,
            None,
            "<bos>[user]You are Ada.\n\nWhy?[/user][assistant]",
            "<bos>[user]You are Ada.\n\nBe kind.\n\nWhy?[/user][assistant]",
            id="a system role refused, and a record's own system turn",
        ),
        pytest.param(
            DROPPING,
            ASK,
            "You are Eve.",
            "<bos>[user]You are Eve.\n\nWhy?[/user][assistant]",
            "<bos>[user]You are Eve.\n\nBe kind.\n\nWhy?[/user][assistant]",
            id="a system role silently dropped",
        ),
        pytest.param(
            WITH_DEFAULT,
            EMPTY_SYSTEM,
            "You are Eve.",
            "<bos>[system][/system][user]Why?[/user][assistant]",
            "<bos>[system]Be kind.[/system][user]Why?[/user][assistant]",
            id="an empty system turn in place of a default text",
        ),
        pytest.param(
            REFUSING,
            EMPTY_SYSTEM,
            "You are Eve.",
            "<bos>[user]Why?[/user][assistant]",
            "<bos>[user]Be kind.\n\nWhy?[/user][assistant]",
            id="an empty system turn, and a system role refused",
        ),
        pytest.param(
            None, EMPTY_SYSTEM, None, "<bos>Why?", "<bos>Be kind.\n\nWhy?", id="an empty system turn, and no template"
        ),
        pytest.param(None, ASK, None, "<bos>Why?", "<bos>Be kind.\n\nWhy?", id="no template"),
        pytest.param(
            None,
            OWN_SYSTEM,
            None,
            "<bos>You are Ada.\n\nWhy?",
            "<bos>You are Ada.\n\nBe kind.\n\nWhy?",
            id="no template, and a system turn",
        ),
        pytest.param(
            None,
            MULTI_TURN,
            None,
            "<bos>Human: Hi\n\nAssistant: Ho\n\nHuman: Why?\n\nAssistant:",
            "<bos>Be kind.\n\nHuman: Hi\n\nAssistant: Ho\n\nHuman: Why?\n\nAssistant:",
            id="no template, and several turns",
        ),
    ],
)
def test_the_twins_differ_by_the_principle_alone(
    written: Any, template: str | None, messages: tuple[Message, ...], system: str | None, base: str, principled: str
) -> None:
    assert written(template, messages, None, system) == base
    assert written(template, messages, PRINCIPLE, system) == principled


def test_a_turn_of_the_assistant_may_come_first(written: Any) -> None:
    turns = (Message("assistant", "Ho"), *ASK)
    assert (
        written(REFUSING, turns, PRINCIPLE) == "<bos>[assistant]Ho[/assistant][user]Be kind.\n\nWhy?[/user][assistant]"
    )


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("messages", [ASK, MULTI_TURN, OWN_SYSTEM])
def test_there_is_never_a_second_bos(
    tiny_tokenizer: TinyTokenizer, template: str | None, messages: tuple[Message, ...]
) -> None:
    """Whether the template writes one, or the tokenizer adds one, or both."""
    tokenizer = tiny_tokenizer(template)
    for principle in (None, PRINCIPLE):
        ids = PromptTemplate(tokenizer, None).token_ids(messages, principle)
        assert ids.count(tokenizer.bos_token_id) == (0 if template == "chatml" else 1)


def test_a_prompt_that_was_rendered_elsewhere_brings_its_own_bos(written: Any) -> None:
    rendered = (Message("user", "<bos>Why?"),)
    assert written(None, rendered) == "<bos>Why?"
    assert written(None, rendered, PRINCIPLE) == "<bos>Be kind.\n\nWhy?"


@pytest.mark.real
def test_the_embedded_model_keeps_its_own_system_text(smol: LoadedModel, hh: str) -> None:
    default = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"

    def stock(*turns: tuple[str, str]) -> list[int]:
        conversation = [{"role": role, "content": content} for role, content in turns]
        encoded = smol.tokenizer.apply_chat_template(conversation, add_generation_prompt=True, return_dict=True)
        return list(encoded["input_ids"])

    principle = hh.strip()
    base, principled = PromptTemplate(smol.tokenizer).twins(ASK, make_principles([hh]))
    assert base == stock(("user", "Why?")) == stock(("system", default), ("user", "Why?"))
    assert principled == stock(("system", f"{default}\n\n{principle}"), ("user", "Why?"))
    base, principled = PromptTemplate(smol.tokenizer, "Be Bob.").twins(MULTI_TURN, make_principles([hh]))
    turns = [(message.role, message.content) for message in MULTI_TURN]
    assert base == stock(("system", "Be Bob."), *turns)
    assert principled == stock(("system", f"Be Bob.\n\n{principle}"), *turns)


# Several principles, and a contrast.


def test_each_principle_has_a_twin_and_the_contrast_takes_the_bases_place(tiny_tokenizer: TinyTokenizer) -> None:
    template = PromptTemplate(tiny_tokenizer(WITH_DEFAULT))
    principles = Principles(("Be kind.", "Be brief."), (1.0, 0.5), contrast="Be rude.")
    assert template.twins(MULTI_TURN, principles) == [
        template.token_ids(MULTI_TURN, text) for text in ("Be rude.", "Be kind.", "Be brief.")
    ]


def test_without_principles_there_is_the_base_twin_alone(tiny_tokenizer: TinyTokenizer) -> None:
    template = PromptTemplate(tiny_tokenizer("chatml"))
    assert template.twins(ASK, Principles()) == [template.token_ids(ASK)]


def test_weights_are_one_each_unless_given() -> None:
    assert make_principles(["a", "b"]) == Principles(("a", "b"), (1.0, 1.0))
    assert make_principles(["a", "b"], [2, -0.5], contrast=" c\n") == Principles(("a", "b"), (2.0, -0.5), "c")
    assert make_principles([]) == Principles()


@pytest.mark.parametrize(
    ("texts", "weights", "contrast", "option"),
    [
        (["kind", " \n"], None, None, "principle"),
        (["kind"], None, "\t", "contrast"),
        (["kind"], [1, 2], None, "weight"),
        (["kind", "brief"], [1], None, "weight"),
        (["kind"], [float("nan")], None, "weight"),
        (["kind"], [float("inf")], None, "weight"),
        ([], [1], None, "weight"),
    ],
)
def test_principles_that_cannot_be_used_are_named(
    texts: list[str], weights: list[float] | None, contrast: str | None, option: str
) -> None:
    with pytest.raises(OptionError) as raised:
        make_principles(texts, weights, contrast)
    assert raised.value.option == option


# What conversations share.

words = st.text(st.characters(categories=["L", "N", "P"]), min_size=1).filter(str.strip)


@pytest.fixture(scope="module", params=TEMPLATES)
def template(request: pytest.FixtureRequest, tiny_tokenizer: TinyTokenizer) -> PromptTemplate:
    return PromptTemplate(tiny_tokenizer(request.param), "You are Eve.")


@given(texts=st.lists(words, min_size=1, max_size=3))
def test_a_shared_prefix_begins_every_twin(template: PromptTemplate, texts: list[str]) -> None:
    principles = Principles((PRINCIPLE * 4, "Be brief and clear."), (1.0, 1.0))
    turns = tuple(Message("user" if place % 2 == 0 else "assistant", text) for place, text in enumerate(texts))
    prefixes = template.shared_prefixes(principles)
    for prefix, ids in zip(prefixes, template.twins(turns, principles), strict=True):
        assert ids[: len(prefix)] == prefix


def test_the_prefix_holds_the_system_text_and_the_principle(tiny_tokenizer: TinyTokenizer) -> None:
    tokenizer = tiny_tokenizer(WITH_DEFAULT)
    base, principled = PromptTemplate(tokenizer).shared_prefixes(make_principles([PRINCIPLE]))
    assert tokenizer.decode(base) == "<bos>[system]You are Bob.[/system][user]"
    assert tokenizer.decode(principled) == "<bos>[system]You are Bob.\n\nBe kind.[/system][user]"

"""Both twins hold the conversation, one the principle, and nothing else differs: whatever a chat template does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from conftest import CHATML, TinyTokenizer
from hypothesis import given
from hypothesis import strategies as st

from lalign.errors import ModelError, OptionError, PromptError
from lalign.options import Placement, Prompting
from lalign.records.chat import is_inserted
from lalign.records.parsing import Message
from lalign.records.prompts import PromptTemplate, make_principles

PRINCIPLE = "Be kind."
ASK = (Message("user", "Why?"),)
MULTI_TURN = (Message("user", "Hi"), Message("assistant", "Ho"), Message("user", "Why?"))
OWN_SYSTEM = (Message("system", "You are Ada."), *ASK)
EMPTY_SYSTEM = (Message("system", ""), *ASK)

SPLIT = (
    "{% set given = messages[0].role == 'system' %}{% set turns = messages[1:] if given else messages %}"
    "{% set system = messages[0].content if given else none %}"
)
TURNS = "{% for m in turns %}[{{ m.role }}]{{ m.content }}[/{{ m.role }}]{% endfor %}[assistant]"
EACH = "{% for m in messages %}[{{ m.role }}]{{ m.content }}[/{{ m.role }}]{% endfor %}[assistant]"
# As of SmolLM3: a flag is taken out of the system text, and out of the middle of what is written </think>.
FLAGGED = (
    f"<bos>{SPLIT}[system]# Instructions\n\n{{% if given %}}{{{{ system.replace('/think', '') }}}}"
    f"{{% else %}}You are Bob. First <think>, then </think> answer.{{% endif %}}{{{{ '\n\n' }}}}[/system]{TURNS}"
)
# As of Kimi-K2: what follows the default text is not what follows a system turn.
WITH_LINE_FEED = f"<bos>{{% if messages[0].role != 'system' %}}[system]You are Bob.[/system]\n{{% endif %}}{EACH}"
WITH_DEFAULT = f"<bos>{{% if messages[0].role != 'system' %}}[system]You are Bob.[/system]{{% endif %}}{EACH}"
WITHOUT_DEFAULT = f"<bos>{EACH}"
INSISTING = (
    "{% if messages[0].role != 'system' %}{{ raise_exception('The first turn must be the system') }}{% endif %}<bos>"
    + EACH
)
# These index the first message without a look at its role.
STUMBLING = "<bos>[system]{{ {'system': messages[0].content}[messages[0].role] + '' }}[/system]" + SPLIT + TURNS
NO_SYSTEM_ROLE = (
    "<bos>{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}[{{ m.role }}]{{ m.content }}[/{{ m.role }}]{% endfor %}[assistant]"
)
NO_SYSTEM_ROLE_WITH_DEFAULT = NO_SYSTEM_ROLE.replace("<bos>", "<bos>A chat with Bob. ")
DATED = (
    f"<bos>{SPLIT}[system]It is {{{{ strftime_now('%Y') }}}}. "
    f"{{% if given %}}{{{{ system }}}}{{% endif %}}[/system]{TURNS}"
)
# As one that writes the time would be, where a second ends between the twins.
COUNTING = f"<bos>{{{{ messages | map(attribute='content') | join | length }}}}{EACH}"
TRIMMING = WITHOUT_DEFAULT.replace("m.content", "m.content | trim")
IN_LAST_TURN = (
    f"<bos>{SPLIT}{{% for m in turns %}}{{% if loop.last and given %}}<<{{{{ system }}}}>>{{% endif %}}"
    "[{{ m.role }}]{{ m.content }}[/{{ m.role }}]{% endfor %}[assistant]"
)
BLOCK_ALWAYS = f"<bos>{SPLIT}[system]{{{{ system or '' }}}}[/system]{TURNS}"
UPPER_SYSTEM = f"<bos>{SPLIT}{{% if given %}}[system]{{{{ system | upper }}}}[/system]{{% endif %}}{TURNS}"
SYSTEM_OR_TURNS = (
    f"<bos>{SPLIT}{{% if given %}}[system]{{{{ system }}}}[/system][assistant]{{% else %}}{TURNS}{{% endif %}}"
)
HOLDING = {
    "a default text": WITH_DEFAULT,
    "no default text": WITHOUT_DEFAULT,
    "a default text that does not survive as a system turn": FLAGGED,
    "a default text with a line feed of its own": WITH_LINE_FEED,
    "no system role": NO_SYSTEM_ROLE,
    "no system role, and a default text": NO_SYSTEM_ROLE_WITH_DEFAULT,
    "the date": DATED,
    "white space trimmed": TRIMMING,
    "a system text in the last turn": IN_LAST_TURN,
    "a system block always": BLOCK_ALWAYS,
    "a system text in upper case": UPPER_SYSTEM,
    "a system turn in place of all others": SYSTEM_OR_TURNS,
    "plain ChatML": CHATML,
    "no template": None,
}
# What `replace` puts the principle in place of.
DEFAULTS = {
    "a default text": "You are Bob.",
    "a default text with a line feed of its own": "You are Bob.",
    "a default text that does not survive as a system turn": "You are Bob. First <think>, then </think> answer.",
}
# A default text in a place that no system turn has, and with a system turn another text at the end.
ELSEWHERE = (
    f"<bos>{SPLIT}{{% if given %}}[system]{{{{ system }}}}[/system]{TURNS}"
    f"{{% else %}}Bob speaks. {TURNS}[warm]{{% endif %}}"
)
BREAKING = {
    "a default text elsewhere": (ELSEWHERE, "changes more of the prompt"),
    "another text before what is put in": (COUNTING, "changes more of the prompt"),
    "no conversation": (f"<bos>{SPLIT}[system]{{{{ system }}}}[/system][assistant]", "leaves out what the user says"),
    "a field that is not there": (EACH.replace("m.content", "m.text"), "leaves out what the user says"),
    "upper case": (EACH.replace("m.content", "m.content | upper"), "changes the case of what the user says"),
    "nothing but an error": ("{{ raise_exception('needs\na tool') }}", "refuses the conversation: needs a tool"),
    "an error and no system text": (
        INSISTING.replace("m.content", "m.content if m.role == 'user' else ''"),
        "refuses the conversation: The first turn",
    ),
}


@pytest.fixture(scope="module")
def make(tiny_tokenizer: TinyTokenizer) -> Callable[..., PromptTemplate]:
    """`make(template, placement, system)`, the special tokens of whose prompts are seen."""

    def make(
        chat_template: str | None, placement: Placement = "joined", system: str | None = None, **given: Any
    ) -> PromptTemplate:
        return PromptTemplate(tiny_tokenizer(chat_template), system, Prompting(placement, **given))

    return make


def texts(template: PromptTemplate, messages: tuple[Message, ...], principle: str = PRINCIPLE) -> tuple[str, str]:
    base, principled = template.twins(messages, make_principles([principle]))
    return template.tokenizer.decode(base), template.tokenizer.decode(principled)


# The rule.


@pytest.mark.parametrize("placement", ["joined", "replace", "user"])
@pytest.mark.parametrize("messages", [ASK, MULTI_TURN, OWN_SYSTEM, (*OWN_SYSTEM, Message("assistant", "Ho"), *ASK)])
@pytest.mark.parametrize("kind", HOLDING)
def test_the_twins_differ_by_what_is_put_in_with_the_principle(
    make: Callable[..., PromptTemplate], kind: str, messages: tuple[Message, ...], placement: Placement
) -> None:
    template = make(HOLDING[kind], placement)
    template.check()
    base, principled = texts(template, messages)
    assert all(turn.content in base for turn in messages if turn.role != "system")
    assert PRINCIPLE not in base
    assert principled.count(PRINCIPLE) == 1
    if placement == "replace" and kind in DEFAULTS and messages[0].role != "system":
        assert base.replace(DEFAULTS[kind], PRINCIPLE) == principled != base
    else:
        assert is_inserted(base, principled, PRINCIPLE)


@pytest.mark.parametrize("kind", BREAKING)
def test_where_the_rule_cannot_be_held_one_error_says_what_the_template_does(
    make: Callable[..., PromptTemplate], kind: str
) -> None:
    template, reason = BREAKING[kind]
    with pytest.raises(ModelError, match=f"the chat template {reason}") as raised:
        make(template).check()
    assert "\n" not in str(raised.value)


def test_what_helps_where_the_rule_cannot_be_held_in_the_systems_place(make: Callable[..., PromptTemplate]) -> None:
    with pytest.raises(ModelError, match="--placement user, or a system message of your own"):
        make(ELSEWHERE).check()
    make(ELSEWHERE, "user").check()
    make(ELSEWHERE, system="You are Eve.").check()
    assert texts(make(ELSEWHERE, "user"), ASK)[1] == ("<bos>Bob speaks. [user]Be kind.\n\nWhy?[/user][assistant][warm]")


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("<bos>[user]{{ messages[-1].content }}[/user]", "leaves out what the user says"),
        (EACH.replace("m.content", "m.content if m.role == 'user' else ''"), "leaves out what the assistant says"),
        (EACH.replace("m.content", "m.content.replace('Hi', '')"), "leaves out what the user says"),
        (
            EACH.replace("m.content", "m.content if loop.length < 3 or m.role != 'system' else ''"),
            "leaves out the principle",
        ),
    ],
)
def test_a_conversation_of_which_something_is_dropped_is_refused(
    make: Callable[..., PromptTemplate], template: str, problem: str
) -> None:
    refused = make(template)
    refused.check()
    texts(refused, ASK)
    with pytest.raises(PromptError, match=f"^the chat template {problem}"):
        texts(refused, MULTI_TURN)


def test_a_train_of_thought_in_an_earlier_answer_may_be_left_out(make: Callable[..., PromptTemplate]) -> None:
    template = make(EACH.replace("m.content", "m.content.split('</think>')[-1]"))
    turns = (ASK[0], Message("assistant", "<think>Well.</think>So."), ASK[0])
    assert "[assistant]So.[/assistant]" in texts(template, turns)[0]


@pytest.mark.parametrize("template", [INSISTING, STUMBLING])
def test_a_template_that_insists_on_a_system_message(make: Callable[..., PromptTemplate], template: str) -> None:
    bare = make(template)
    bare.check()  # the records may bring one
    assert bare.shared_prefixes(make_principles([PRINCIPLE])) == []
    with pytest.raises(PromptError, match="needs a system message: --system gives one"):
        texts(bare, ASK)
    expected = "<bos>[system]You are Ada.\n\nBe kind.[/system][user]Why?[/user][assistant]"
    assert texts(bare, OWN_SYSTEM)[1] == expected
    given = make(template, system="You are Ada.")
    given.check()
    assert texts(given, ASK)[1] == expected


# What the response goes on from.

BEGUN = (*ASK, Message("assistant", "Because "))
THINKING = EACH.replace("m.content", "m.content.split('</think>')[-1]")


@pytest.mark.parametrize("placement", ["joined", "replace", "user"])
@pytest.mark.parametrize("messages", [BEGUN, (*MULTI_TURN, BEGUN[-1]), (*OWN_SYSTEM, BEGUN[-1])])
@pytest.mark.parametrize("kind", HOLDING)
def test_both_twins_end_with_what_the_assistant_has_begun(
    make: Callable[..., PromptTemplate], kind: str, messages: tuple[Message, ...], placement: Placement
) -> None:
    template = make(HOLDING[kind], placement)
    base, principled = texts(template, messages)
    assert base.endswith("Because ")
    assert principled.endswith("Because ")
    assert PRINCIPLE not in base
    assert principled.count(PRINCIPLE) == 1


@pytest.mark.parametrize("begun", ["Because", "\n Because", "Because <|im_end|>", "<think>Well.</think> So", "A\n\nB"])
@pytest.mark.parametrize("kind", [kind for kind in HOLDING if HOLDING[kind]])
def test_a_continued_text_is_that_of_transformers(make: Callable[..., PromptTemplate], kind: str, begun: str) -> None:
    template = make(HOLDING[kind], allow_special_tokens=True)
    given = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": begun}]
    ids = template.twins((*ASK, Message("assistant", begun)), make_principles([]))[0]
    stock = template.tokenizer.apply_chat_template(given, tokenize=False, continue_final_message=True)
    assert ids == template.tokenizer(stock, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("placement", ["joined", "replace", "user"])
@pytest.mark.parametrize("template", [WITH_DEFAULT, NO_SYSTEM_ROLE, CHATML])
def test_a_prefill_of_the_job_is_a_turn_of_each_record_that_has_none(
    make: Callable[..., PromptTemplate], template: str, placement: Placement
) -> None:
    prefilling = make(template, placement, prefill="Because ")
    prefilling.check()
    assert texts(prefilling, ASK) == texts(make(template, placement), BEGUN)
    own = (*ASK, Message("assistant", "Well"))
    assert texts(prefilling, own) == texts(make(template, placement), own)
    prefixes = prefilling.shared_prefixes(make_principles([PRINCIPLE]))
    twins = prefilling.twins(ASK, make_principles([PRINCIPLE]))
    assert all(twin[: len(prefix)] == prefix for twin, prefix in zip(twins, prefixes, strict=True))


@pytest.mark.parametrize(
    ("template", "begun", "reason"),
    [
        (THINKING, "<think>Well.</think>So", "leaves out what the assistant says last, or changes it"),
        (EACH.replace("m.content", "m.content | upper"), "So", "changes the case of what the"),
        (EACH.replace("m.content", "m.content if m.role == 'user' else ''"), "So", "leaves out what the assistant"),
        (
            EACH.replace("m.content", "m.content + (raise_exception('no such turn') if m.role == 'assistant' else '')"),
            "So",
            "refuses the conversation: no such turn",
        ),
        (f"{EACH}{{{{ messages[-1].content }}}}", "So", "leaves out what the assistant says last, or changes it"),
    ],
)
def test_a_template_that_does_not_let_it_go_on_is_refused(
    make: Callable[..., PromptTemplate], template: str, begun: str, reason: str
) -> None:
    with pytest.raises((ModelError, PromptError), match=f"^the chat template {reason}"):
        texts(make(template, allow_special_tokens=True), (*ASK, Message("assistant", begun)))
    with pytest.raises(ModelError, match=f"^the chat template {reason}"):
        make(template, allow_special_tokens=True, prefill=begun).check()


def test_without_a_template_a_transcript_goes_on_and_a_lone_prompt_takes_no_prefill(
    make: Callable[..., PromptTemplate],
) -> None:
    assert texts(make(None), BEGUN)[1] == "<bos>Be kind.\n\nHuman: Why?\n\nAssistant: Because "
    with pytest.raises(OptionError, match="has no chat template"):
        make(None, prefill="Because ")


# Where the principle stands.


@pytest.mark.parametrize(
    ("template", "messages", "system", "joined", "replaced", "in_user_turn"),
    [
        pytest.param(
            WITH_DEFAULT,
            MULTI_TURN,
            None,
            "[system]You are Bob.\n\nBe kind.[/system][user]Hi[/user][assistant]Ho[/assistant][user]Why?[/user]",
            "[system]Be kind.[/system][user]Hi[/user][assistant]Ho[/assistant][user]Why?[/user]",
            "[system]You are Bob.[/system][user]Hi[/user][assistant]Ho[/assistant][user]Be kind.\n\nWhy?[/user]",
            id="a default text",
        ),
        pytest.param(
            WITH_DEFAULT,
            OWN_SYSTEM,
            "You are Eve.",
            *["[system]You are Ada.\n\nBe kind.[/system][user]Why?[/user]"] * 2,
            "[system]You are Ada.[/system][user]Be kind.\n\nWhy?[/user]",
            id="a record's own text is kept",
        ),
        pytest.param(
            WITH_DEFAULT,
            ASK,
            "You are Eve.",
            *["[system]You are Eve.\n\nBe kind.[/system][user]Why?[/user]"] * 2,
            "[system]You are Eve.[/system][user]Be kind.\n\nWhy?[/user]",
            id="the job's own text is kept",
        ),
        pytest.param(
            WITHOUT_DEFAULT,
            ASK,
            None,
            *["[system]Be kind.[/system][user]Why?[/user]"] * 2,
            "[user]Be kind.\n\nWhy?[/user]",
            id="nothing to replace",
        ),
        pytest.param(
            WITH_LINE_FEED,
            ASK,
            None,
            "[system]You are Bob.\n\nBe kind.[/system]\n[user]Why?[/user]",
            "[system]Be kind.[/system]\n[user]Why?[/user]",
            "[system]You are Bob.[/system]\n[user]Be kind.\n\nWhy?[/user]",
            id="a line feed behind the default text",
        ),
        pytest.param(
            FLAGGED,
            ASK,
            None,
            "[system]# Instructions\n\nYou are Bob. First <think>, then </think> answer.\n\nBe kind.\n\n[/system]"
            "[user]Why?[/user]",
            "[system]# Instructions\n\nBe kind.\n\n[/system][user]Why?[/user]",
            "[system]# Instructions\n\nYou are Bob. First <think>, then </think> answer.\n\n[/system]"
            "[user]Be kind.\n\nWhy?[/user]",
            id="a default text that does not survive as a system turn",
        ),
        pytest.param(
            NO_SYSTEM_ROLE,
            MULTI_TURN,
            "You are Eve.",
            *["[user]You are Eve.\n\nBe kind.\n\nHi[/user][assistant]Ho[/assistant][user]Why?[/user]"] * 2,
            "[user]You are Eve.\n\nHi[/user][assistant]Ho[/assistant][user]Be kind.\n\nWhy?[/user]",
            id="no system role",
        ),
        pytest.param(
            NO_SYSTEM_ROLE_WITH_DEFAULT,
            ASK,
            None,
            *["A chat with Bob. [user]Be kind.\n\nWhy?[/user]"] * 3,
            id="no system role, and a default text that cannot be replaced",
        ),
        pytest.param(
            WITH_DEFAULT,
            EMPTY_SYSTEM,
            "You are Eve.",
            *["[system]Be kind.[/system][user]Why?[/user]"] * 2,
            "[system][/system][user]Be kind.\n\nWhy?[/user]",
            id="an empty system turn of the record's own",
        ),
    ],
)
def test_placements(
    make: Callable[..., PromptTemplate],
    template: str,
    messages: tuple[Message, ...],
    system: str | None,
    joined: str,
    replaced: str,
    in_user_turn: str,
) -> None:
    placed: dict[Placement, str] = {"joined": joined, "replace": replaced, "user": in_user_turn}
    for placement, expected in placed.items():
        assert texts(make(template, placement, system), messages)[1] == f"<bos>{expected}[assistant]"


@pytest.mark.parametrize(
    ("placement", "principled"),
    [
        ("joined", "<bos>You are Eve.\n\nBe kind.\n\nHuman: Hi\n\nAssistant: Ho\n\nHuman: Why?\n\nAssistant:"),
        ("replace", "<bos>You are Eve.\n\nBe kind.\n\nHuman: Hi\n\nAssistant: Ho\n\nHuman: Why?\n\nAssistant:"),
        ("user", "<bos>You are Eve.\n\nHuman: Hi\n\nAssistant: Ho\n\nHuman: Be kind.\n\nWhy?\n\nAssistant:"),
    ],
)
def test_placements_without_a_template(
    make: Callable[..., PromptTemplate], placement: Placement, principled: str
) -> None:
    assert texts(make(None, placement, "You are Eve."), MULTI_TURN)[1] == principled


@pytest.mark.parametrize("placement", ["joined", "replace", "user"])
def test_a_contrast_stands_where_the_principle_does(make: Callable[..., PromptTemplate], placement: Placement) -> None:
    template = make(WITH_DEFAULT, placement)
    contrast, principled = template.twins(ASK, make_principles(["Be kind."], contrast="Be rude."))
    assert template.tokenizer.decode(contrast) == template.tokenizer.decode(principled).replace("kind", "rude")


def test_an_empty_system_turn_is_a_system_turn(make: Callable[..., PromptTemplate]) -> None:
    base, principled = texts(make(WITH_DEFAULT), EMPTY_SYSTEM)
    assert base == "<bos>[system][/system][user]Why?[/user][assistant]"
    assert principled == "<bos>[system]Be kind.[/system][user]Why?[/user][assistant]"


# Variables of the template.


def test_variables_reach_the_template_and_a_conversations_own_prevail(make: Callable[..., PromptTemplate]) -> None:
    template = make(
        "<bos>{% if messages[0].role != 'system' %}[system]You {{ 'think' if thinking else 'answer' }}.[/system]"
        "{% endif %}" + EACH,
        chat_template_kwargs={"thinking": True},
    )
    assert "You think.\n\nBe kind.[/system]" in texts(template, ASK)[1]
    base, principled = template.twins(ASK, make_principles([PRINCIPLE]), {"thinking": False})
    assert "You answer.[/system]" in template.tokenizer.decode(base)
    assert "You answer.\n\nBe kind.[/system]" in template.tokenizer.decode(principled)


# The parts.


@given(st.text("ab", max_size=6), st.text("ab", max_size=6), st.text("abm", max_size=6))
def test_what_is_put_in_is_recognised_wherever_it_stands(before: str, after: str, block: str) -> None:
    assert is_inserted(before + after, before + block + after, "m") == ("m" in block)


@pytest.mark.parametrize(
    ("base", "marked"), [("ab", "xmb"), ("ab", "amc"), ("aa", "am"), ("ab", "mbam"), ("abc", "acmb")]
)
def test_what_changes_more_is_not_put_in(base: str, marked: str) -> None:
    assert not is_inserted(base, marked, "m")

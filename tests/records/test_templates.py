"""Templates over a record's fields: filled in a sandbox, and an error that says which fields there are."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from lalign.errors import OptionError
from lalign.records.parsing import Message, Record, parse_record
from lalign.records.problems import Unusable
from lalign.records.reading import Reading
from lalign.records.source import RawLine
from lalign.records.templates import FieldTemplate, is_template
from lalign.results import Failure


def filled(text: str, fields: dict[str, Any]) -> str:
    return FieldTemplate(text, "prompt_template").filled(fields)


@pytest.mark.parametrize(
    ("text", "fields", "wanted"),
    [
        ("Q: {{ q }}", {"q": "Why?"}, "Q: Why?"),
        ("{{ q }}", {"q": "{{ 7 * 7 }} <b> & {% raw %}"}, "{{ 7 * 7 }} <b> & {% raw %}"),
        ("{{ turns[1] }}", {"turns": ["a", "b"]}, "b"),
        ("{% for t in turns %}\n{{ loop.index }}. {{ t }}\n{% endfor %}", {"turns": ["a", "b"]}, "1. a\n2. b"),
        ("{{ who.name }}, {{ ok }}", {"who": {"name": "Ann"}, "ok": True}, "Ann, true"),
        ("{{ q }}", {"q": ["ä", {"b": None}]}, '["ä",{"b":null}]'),
        ("{{ q | default('none') }}", {"q": None}, "none"),
        ("{{ n }} {{ x }}", {"n": 7, "x": 0.5}, "7 0.5"),
        ("{{ (q, [q]) }}", {"q": 1}, "[1,[1]]"),
        ("{{ record['Best Answer'] }} {{ record.q }}", {"Best Answer": "Yes", "q": 1}, "Yes 1"),
        ("{{ record | tojson }}", {"a-b": "Yes", "none": None}, '{"a-b":"Yes"}'),
        ("{{ record }}", {"record": "own"}, "own"),
    ],
)
def test_is_filled(text: str, fields: dict[str, Any], wanted: str) -> None:
    assert filled(text, fields) == wanted


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{{ question }}", "'question' is undefined; the fields are q, 'a b', deep"),
        ("{{ nil }}", "'nil' is undefined"),
        ("{{ record['c d'] }}", "has no attribute 'c d'; the fields are q, 'a b', deep"),
        ("{{ [range] }}", "a function, which cannot be written as JSON"),
        ("{{ none }}", "a value that is null"),
        ("{{ deep.nil }}", "a value that is null"),
        ("{{ range }}", "which is no value"),
        ("{{ q.x }}", "has no attribute 'x'"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ q | int + 'x' }}", "unsupported operand"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ range(10**9) | list }}", "too big"),
        ("{% set x = 1 %}", "makes an empty text"),
    ],
)
def test_what_cannot_be_filled_says_why(text: str, told: str) -> None:
    with pytest.raises(Unusable, match=told) as raised:
        filled(text, {"q": "Why?", "a b": 1, "nil": None, "deep": {"nil": None}})
    assert str(raised.value).startswith("prompt_template: ")


@pytest.mark.parametrize(
    "text",
    [
        *("{{ x | tojson }}", "{{ [x] }}", "{{ {'a': [x]} }}", "{{ (x,) }}", "{{ x | tojson(2) }}"),
        *("{{ [x] | string }}", "{{ x | pprint }}", "{{ '%r' | format(x) }}", "{{ x.y }}", "{{ x() }}"),
    ],
)
def test_a_field_that_is_missing_is_told_however_it_is_written(text: str) -> None:
    with pytest.raises(Unusable, match="'x' is undefined; the fields are q") as raised:
        filled(text, {"q": "Why?"})
    assert raised.value.problem == "missing_field"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{{ q | nope }}", "line 1: there is no filter 'nope'"),
        ("a\n{% if q %}{{ q | nope }}{% endif %}", "line 2: there is no filter 'nope'"),
        ("{% if q is nope %}a{% endif %}", "line 1: there is no test 'nope'"),
        ("{% include 'other' %}", "line 1: a template can take in no other file"),
        ("{% for a in q %}" * 25 + "{% endfor %}" * 25, "is nested too deeply"),
        ("{{ " + "[" * 2000 + "]" * 2000 + " }}", "is nested too deeply"),
    ],
)
def test_what_no_record_could_fill_is_refused_at_once(text: str, told: str) -> None:
    with pytest.raises(OptionError) as raised:
        FieldTemplate(text, "prompt_template")
    assert str(raised.value) == f"prompt_template: {told}"


def test_what_is_no_template_is_refused() -> None:
    with pytest.raises(OptionError, match="prompt_template: line 2: "):
        FieldTemplate("a\n{{ b", "prompt_template")


def test_a_macro_that_calls_itself_is_an_error_of_the_record() -> None:
    template = FieldTemplate("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "prompt_template")
    outcome = parse_record(RawLine(3, b'{"a": 1}'), reading=Reading(prompt_template=template))
    assert outcome == Failure(3, 3, "template_error", "prompt_template: calls itself without an end")


@pytest.mark.parametrize(("text", "is_one"), [("{{ a }}", True), ("{% if a %}b{% endif %}", True), ("{a} %", False)])
def test_is_told_by_its_marks(text: str, is_one: bool) -> None:
    assert is_template(text) == is_one


def read(fields: dict[str, Any] | bytes, **reading: Any) -> Record | Failure:
    data = fields if isinstance(fields, bytes) else orjson.dumps(fields)
    return parse_record(RawLine(3, data), reading=Reading(**reading))


def asked(outcome: Record | Failure) -> tuple[Message, ...]:
    assert isinstance(outcome, Record), outcome
    return outcome.messages


HI = (Message("user", "Hi"),)


class TestReading:
    def test_a_prompt_template_makes_the_turn_of_the_user(self) -> None:
        outcome = read({"prompt": "No", "q": "Hi", "system": "S"}, prompt_template=FieldTemplate("{{ q }}", "x"))
        assert asked(outcome) == (Message("system", "S"), *HI)

    @pytest.mark.parametrize("prompt", ["Hi", [{"role": "user", "content": "Hi"}]])
    def test_a_prompt_field_holds_what_a_prompt_may_be(self, prompt: Any) -> None:
        assert asked(read({"messages": "No", "Goal": prompt}, prompt_field="Goal")) == HI

    @pytest.mark.parametrize("turn", [{"role": "user", "content": "Hi"}, {"from": "human", "value": "Hi"}])
    def test_a_messages_field_holds_turns_of_either_kind(self, turn: Any) -> None:
        assert asked(read({"chat": [turn]}, messages_field="chat")) == HI

    def test_an_id_field_prevails(self) -> None:
        outcome = read({"id": "no", "qid": 7, "prompt": "Hi"}, id_field="qid")
        assert outcome.id == 7

    @pytest.mark.parametrize("option", ["prompt_field", "messages_field", "id_field"])
    def test_a_field_that_is_not_there_lists_those_that_are(self, option: str) -> None:
        outcome = read({"prompt": "Hi", "b": None, "c": 1}, **{option: "b"})
        message = f"{option}: no field 'b'; the fields are prompt, c"
        assert outcome == Failure(3, 3, "missing_field", message)

    def test_a_value_that_is_none_is_refused_by_its_name(self) -> None:
        assert read({"q": 1}, prompt_field="q") == Failure(3, 3, "invalid_type", "q: must be a string, not 1")

    def test_a_principle_is_filled_by_each_record(self) -> None:
        principles = (FieldTemplate("Know {{ domain }}.", "principle"), FieldTemplate("Be brief.", "principle"))
        outcome = read({"prompt": "Hi", "domain": "law"}, principles=principles)
        assert isinstance(outcome, Record)
        assert outcome.principles == ("Know law.", "Be brief.")

    def test_a_record_with_a_principle_of_its_own_need_not_fill_one(self) -> None:
        outcome = read({"prompt": "Hi", "principle": "Own."}, principles=(FieldTemplate("{{ domain }}", "principle"),))
        assert isinstance(outcome, Record)
        assert (outcome.principle, outcome.principles) == ("Own.", None)

    def test_no_digit_of_a_number_is_lost(self) -> None:
        template = FieldTemplate("{{ n }}", "prompt_template")
        assert (
            asked(read(b'{"n": 18446744073709551615}', prompt_template=template))[0].content == "18446744073709551615"
        )
        outcome = read(b'{"n": 12345678901234567890123}', prompt_template=template)
        assert isinstance(outcome, Failure)
        assert outcome.message == "prompt_template: a number of more than 64 bits"

    @pytest.mark.parametrize("other", ["prompt_field", "messages_field"])
    def test_only_one_option_says_where_the_prompt_is(self, other: str) -> None:
        with pytest.raises(OptionError, match="both say where the prompt is"):
            read({}, prompt_template=FieldTemplate("a", "prompt_template"), **{other: "b"})

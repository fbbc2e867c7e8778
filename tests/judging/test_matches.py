"""From files of answers to matches: every answer meets the one of the same id, or it is told why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from lalign.errors import InputError, OptionError
from lalign.judging.answers import Contestant, read_contestant, read_prompts
from lalign.judging.matches import Match, Unmatched, contests, make_matches


def lines(path: Path, *objects: Any) -> Path:
    path.write_bytes(b"".join(orjson.dumps(one, option=orjson.OPT_APPEND_NEWLINE) for one in objects))
    return path


def answer(record_id: Any, response: str = "r", **more: Any) -> dict[str, Any]:
    return {"id": record_id, "line": 1, "response": response, "input": {"prompt": f"p{record_id}"}, **more}


@pytest.fixture
def contestant(tmp_path: Path) -> Any:
    def made(name: str, *objects: Any, **given: Any) -> Contestant:
        return read_contestant(lines(tmp_path / f"{name}.jsonl", *objects), name, **given)

    return made


def test_answers_meet_by_their_ids_whatever_their_order(contestant: Any) -> None:
    a = contestant("a", answer("x", "ax"), answer("y", "ay"))
    b = contestant("b", answer("y", "by"), answer("x", "bx"))
    matches, unmatched = make_matches([(a, b)])
    assert [(match.id, match.texts, match.conversation[0].content) for match in matches] == [
        ("x", ("ax", "bx"), "px"),
        ("y", ("ay", "by"), "py"),
    ]
    assert not unmatched


def test_what_has_no_counterpart_is_counted(contestant: Any) -> None:
    failed = {"id": "z", "line": 3, "error": {"type": "t", "message": "m"}}
    a = contestant("a", answer("x"), answer("y"), failed)
    b = contestant("b", answer("x"), answer("w"), answer("z"))
    matches, unmatched = make_matches([(a, b)])
    assert [match.id for match in matches] == ["x"]
    assert unmatched == [Unmatched("a", "b", missing=2, failed=1)]


@pytest.mark.parametrize(
    ("record", "given"),
    [
        ({"id": 1, "prompt": "p1", "response": "r"}, {}),
        ({"prompt": "p1", "response": "r"}, {}),
        ({"id": 1, "messages": [{"role": "user", "content": "p1"}], "text": "r"}, {"field": "text"}),
        ({"custom_id": 1, "input": {"prompt": "p1"}, "response": "r"}, {}),
    ],
)
def test_answers_of_other_programs_take_part(contestant: Any, record: dict[str, Any], given: dict[str, Any]) -> None:
    (match,), _ = make_matches([(contestant("a", record, **given), contestant("b", answer(1)))])
    assert (match.texts[0], match.conversation[0].content) == ("r", "p1")


def test_openai_batch_output_takes_part(contestant: Any) -> None:
    body = {"choices": [{"message": {"content": "r"}, "finish_reason": "stop"}]}
    record = {"custom_id": "x", "response": {"status_code": 200, "body": body}, "error": None}
    (match,), _ = make_matches([(contestant("a", record), contestant("b", answer("x", "s")))])
    assert match.texts == ("r", "s")


def batch_answer(custom_id: str, text: str, **own: Any) -> dict[str, Any]:
    """A line of batch results; with keys of lalign's own, one that lalign wrote."""
    body = {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}
    line = {"id": "batch_req_1", "custom_id": custom_id, "response": {"status_code": 200, "body": body}, "error": None}
    return line | ({"lalign": own} if own else {})


def test_lalign_s_batch_output_has_its_prompts_too(contestant: Any) -> None:
    a = contestant("a", batch_answer("x", "", line=1, input={"prompt": "Hi?"}))
    (match,), _ = make_matches([(a, contestant("b", batch_answer("x", "s")))])
    assert (match.texts, match.conversation[0].content) == (("", "s"), "Hi?")


def test_an_id_as_a_text_meets_the_same_as_a_number(contestant: Any, tmp_path: Path) -> None:
    openai = contestant("a", batch_answer("1", "a1"), batch_answer("2", "a2"), batch_answer("y", "ay"))
    own = contestant("b", answer(2, "b2"), answer(1, "b1"), answer("z", "bz"))
    matches, unmatched = make_matches([(openai, own)])
    assert [(match.id, match.texts, match.conversation[0].content) for match in matches] == [
        ("1", ("a1", "b1"), "p1"),
        ("2", ("a2", "b2"), "p2"),
    ]
    assert unmatched == [Unmatched("a", "b", missing=2, failed=0)]
    prompts = read_prompts(lines(tmp_path / "in.jsonl", {"prompt": "First?"}, {"prompt": "Second?"}))
    matches, _ = make_matches([(openai, own)], prompts)
    assert [match.conversation[0].content for match in matches] == ["First?", "Second?"]


def test_an_id_that_is_there_as_both_meets_itself_alone(contestant: Any) -> None:
    both = contestant("a", answer(1, "number"), answer("1", "text"))
    (match,), _ = make_matches([(both, contestant("b", answer("1", "r")))])
    assert (match.id, match.texts) == ("1", ("text", "r"))


def test_of_two_ids_the_record_s_own_counts_as_everywhere(contestant: Any) -> None:
    (match,), _ = make_matches([(contestant("a", answer("x", custom_id="y")), contestant("b", answer("x")))])
    assert match.id == "x"


def test_prompts_may_stand_in_a_file_of_their_own(contestant: Any, tmp_path: Path) -> None:
    bare = {"id": "x", "line": 1, "response": "r"}
    pairs = [(contestant("a", bare), contestant("b", bare))]
    with pytest.raises(InputError, match=r"a\.jsonl:1: has no prompt; --prompts"):
        make_matches(pairs)
    prompts = read_prompts(lines(tmp_path / "in.jsonl", {"id": "x", "prompt": "Hello?"}))
    (match,), _ = make_matches(pairs, prompts)
    assert match.conversation[0].content == "Hello?"
    with pytest.raises(InputError, match="no record of id 'x'"):
        make_matches(pairs, {})


@pytest.mark.parametrize(
    ("objects", "told"),
    [
        ([answer("x"), answer("x")], ":2: id: 'x' is there twice, first in line 1"),
        ([{"id": "x"}], ":1: response: missing; --response-field"),
        ([{"id": "x", "response": 7}], ":1: response: must be a string, not 7"),
        ([{"id": [], "response": ""}], ":1: id: must be a string or a number"),
        ([[]], ":1: must be a JSON object"),
        ([], "holds no records"),
    ],
)
def test_a_file_that_cannot_take_part_is_named(contestant: Any, objects: list[Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        contestant("a", *objects)


def test_answers_to_different_prompts_never_meet(contestant: Any) -> None:
    other = answer("x") | {"input": {"prompt": "another"}}
    with pytest.raises(InputError, match="two different prompts"):
        make_matches([(contestant("a", answer("x")), contestant("b", other))])
    with pytest.raises(InputError, match="no id in common"):
        make_matches([(contestant("a", answer("x")), contestant("b", answer("y")))])


def test_who_meets_whom(contestant: Any) -> None:
    four = [contestant(name, answer("x")) for name in "abcd"]

    def names(pairing: Any, count: int = 4) -> list[str]:
        return [one.name + other.name for one, other in contests(four[:count], pairing)]

    assert names("first") == ["ab", "ac", "ad"]
    assert names("all") == ["ab", "ac", "ad", "bc", "bd", "cd"]
    assert names("two") == ["ab", "cd"]
    for pairing, count, option in (("two", 3, "match"), ("first", 1, "files"), ("some", 4, "match")):
        with pytest.raises(OptionError, match=f"^{option}: "):
            names(pairing, count)


def test_a_match_as_a_line_differs_where_anything_of_it_does(contestant: Any) -> None:
    (match,), _ = make_matches([(contestant("a", answer("x")), contestant("b", answer("x", "s")))])
    others = [
        Match(1, "y", "a", "b", match.conversation, match.texts),
        Match(1, "x", "a", "c", match.conversation, match.texts),
        Match(1, "x", "a", "b", match.conversation[:0], match.texts),
        Match(1, "x", "a", "b", match.conversation, ("s", "r")),
    ]
    assert len({one.as_line().data for one in [match, *others]}) == 5

"""Replies that are not as asked for: error records that keep what was said, asked again when told to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import orjson
import pytest
from conftest import Lalign
from constructed import SEEDS, block, constructing, lines, model, question, records
from scripted_endpoint import Act, Raw, Serve

from lalign.evaluation.preferences import read_questions


@pytest.fixture
def construct(lalign: Lalign) -> Any:
    """`construct(endpoint, stage, ...)`, in a folder with `four.jsonl`."""
    return constructing(lalign)


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        ("I cannot.", "no block between"),
        (block(question("x"))[:-2], r"no \]\]"),
        (block({**question("x"), "preference_c": "..."}), "preference_c: is empty"),
        (block(orjson.loads(SEEDS.read_bytes().splitlines()[0])), "an example"),
    ],
)
def test_no_question_is_an_error_record(construct: Any, serve: Serve, tmp_path: Path, reply: str, told: str) -> None:
    seeds = [orjson.loads(line) for line in SEEDS.read_bytes().splitlines()[:3]]
    done = construct(serve(lambda text, before: reply), "questions", lines(tmp_path / "three.jsonl", seeds))
    assert done.status == 1
    (first, *_) = done.records
    assert first["error"]["type"] == "unparsable"
    assert re.search(told, first["error"]["message"])
    assert first["replies"] == [reply]
    assert "20 of 20 requests have an error record" in done.err


def test_what_can_be_read_of_a_reply_is_kept_and_the_rest_told(construct: Any, serve: Serve, lalign: Lalign) -> None:
    reply = block(question("one")) + "[[ <<Domain>>: d ]]" + block(question("two")) + "[[ <<Domain>>"
    done = construct(
        serve(lambda text, before: reply), "questions", SEEDS, "--count", 5, "-o", lalign.folder / "a.jsonl"
    )
    assert done.status == 0, done.err
    (record,) = records(lalign.folder / "a.jsonl")
    assert record["questions"] == [question("one"), question("two")]
    assert [one["problem"] for one in record["unparsed"]] == ["question: missing", "no ]]"]
    assert "2 blocks had not been parsed" in construct(None, "filter", lalign.folder / "a.jsonl").err


@pytest.mark.parametrize(
    ("reply", "type"),
    [
        ("For ease, take it.", "unparsable"),
        ("<<Answer_b>>: Take it.", "unparsable"),
        ("<<Answer_b>>: For ...", "unparsable"),
        ("<<Answer_a>>: For ease, take it.", "unparsable"),
        (f"<<Answer_b>>: For {question('four1')['preference_b']}, take it.", "names_description"),
        (f"<<Answer_b>>: For a {question('four1')['preference_b'].split()[0]}: take it.", "names_description"),
    ],
)
def test_an_answer_that_is_not_as_asked_for(construct: Any, serve: Serve, reply: str, type: str) -> None:
    def script(text: str, before: int) -> Act:
        return reply if question("four1")["preference_b"] in text else model(text)

    done = construct(serve(script), "answers", "four.jsonl")
    assert done.status == 1
    assert [record.get("error", {}).get("type") for record in done.records] == [None, type, None, None]
    assert [record["id"] for record in done.records] == ["q0", "q1", "q2", "q3"]
    assert "1 of 4 answers have an error record" in done.err


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("<<Answer_b>>: For ease, take it.", "For ease, take it."),
        ("[[\n<<Answer_b>>: For ease, take it.\n]]", "For ease, take it."),
        ("[[<<Answer_b>>: For ease, take it. ]] Hope this helps!", "For ease, take it."),
        ("<<Answer_b>>: For ease, use x[i[0]] or [[1, 2], [3]]. ]] Bye.", "For ease, use x[i[0]] or [[1, 2], [3]]."),
    ],
)
def test_what_is_said_behind_an_answer_is_no_part_of_it(construct: Any, serve: Serve, reply: str, answer: str) -> None:
    done = construct(
        serve(lambda text, before: reply if "<<Answer_b>>" in text else model(text)), "answers", "four.jsonl"
    )
    assert done.status == 0, done.err
    assert {record["answer_b"] for record in done.records} == {answer}


def test_a_reply_that_was_cut_off(construct: Any, serve: Serve) -> None:
    body = {"choices": [{"message": {"content": "<<Principle>>: Be k"}, "finish_reason": "length"}]}
    done = construct(serve(lambda text, before: Raw(orjson.dumps(body))), "principles", "four.jsonl", "--general")
    assert {record["error"]["type"] for record in done.records} == {"cut_off"}


def test_what_could_not_be_read_is_asked_again_by_retry_errors_alone(
    construct: Any, serve: Serve, lalign: Lalign
) -> None:
    held = question("four1")["preference_b"]
    bad = [2]

    def script(text: str, before: int) -> Act:
        if held in text and bad[0]:
            bad[0] -= 1
            return "Hm."
        return model(text)

    endpoint = serve(script)
    arguments = ["answers", "four.jsonl", "-o", "out.jsonl"]
    assert construct(endpoint, *arguments).status == 1
    assert len(endpoint.bodies) == 16
    assert construct(endpoint, *arguments, "--resume").status == 1
    assert len(endpoint.bodies) == 16
    # The other three answers of that question are not paid for again.
    assert construct(endpoint, *arguments, "--resume", "--retry-errors").status == 1
    assert len(endpoint.bodies) == 17
    assert construct(endpoint, *arguments, "--resume", "--retry-errors").status == 0
    assert len(endpoint.bodies) == 18
    assert len(read_questions(lalign.folder / "out.jsonl")) == 4
    assert not (lalign.folder / "out.jsonl.replies").exists()


def test_error_records_are_refused_by_the_next_stage_and_left_out_by_filter(
    construct: Any, serve: Serve, lalign: Lalign
) -> None:
    held = question("four2")["preference_a"]
    endpoint = serve(lambda text, before: "Hm." if held in text else model(text))
    assert construct(endpoint, "answers", "four.jsonl", "-o", "out.jsonl").status == 1
    done = construct(endpoint, "principles", "out.jsonl")
    assert (done.status, "out.jsonl:3: error: is an error record" in done.err) == (2, True), done.err
    done = lalign("eval", "out.jsonl")
    told = "lalign: out.jsonl:3: error: is an error record, which `lalign construct filter` leaves out\n"
    assert (done.status, done.err) == (2, told)
    done = construct(None, "filter", "out.jsonl", "-o", "clean.jsonl")
    assert (done.status, "1 error records passed over" in done.err) == (0, True)
    assert len(read_questions(lalign.folder / "clean.jsonl")) == 3

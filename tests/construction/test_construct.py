"""`lalign construct` from seeds to what `lalign eval` reads: streamed, resumed, never asking twice."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import SAMPLES, Lalign
from constructed import SEEDS, command, constructing, lines, model, question, records
from scripted_endpoint import Act, Serve, Silence, Status

from lalign.evaluation.preferences import make_items, read_questions
from lalign.records.parsing import Record, parse_record
from lalign.records.source import json_lines, open_lines


@pytest.fixture
def construct(lalign: Lalign) -> Any:
    """`construct(endpoint, stage, ...)`, in a folder with `four.jsonl`."""
    return constructing(lalign)


def test_from_seeds_to_what_eval_reads(construct: Any, serve: Serve, lalign: Lalign) -> None:
    endpoint = serve(model)
    folder = lalign.folder
    done = construct(endpoint, "questions", SEEDS, "--count", 12, "-o", "asked.jsonl")
    assert done.status == 0, done.err
    assert [len(record["questions"]) for record in records(folder / "asked.jsonl")] == [5, 5, 5]
    assert (endpoint.bodies[0]["temperature"], endpoint.bodies[0]["max_tokens"]) == (1.0, 2048)
    done = construct(None, "filter", "asked.jsonl", "--besides", SEEDS, "-o", "kept.jsonl", "--report", "r.json")
    assert done.status == 0, done.err
    assert "15 questions read, 15 kept, with 60 descriptions" in done.err
    done = construct(endpoint, "answers", "kept.jsonl", "-o", "preferences.jsonl")
    assert done.status == 0, done.err
    assert len(endpoint.bodies) == 3 + 15 * 4
    # The parser of eval.
    items = make_items(read_questions(folder / "preferences.jsonl"))
    assert len(items) == 15 * 4
    assert items[0].question.answers[0].startswith("For ease of use")
    done = construct(endpoint, "principles", "kept.jsonl", "-o", "principles.jsonl")
    assert done.status == 0, done.err
    with open_lines(folder / "principles.jsonl") as stream:
        found = [parse_record(raw) for raw in json_lines(stream, "")]
    # What generate reads: a prompt, and a principle of its own.
    assert [record.principle for record in found if isinstance(record, Record)] == ["Be kind to this person."] * 60
    first = records(folder / "principles.jsonl")[0]
    assert (first["id"], first["preference"]) == ("1-1-a", records(folder / "kept.jsonl")[0]["preference_a"])
    assert lalign("eval", "preferences.jsonl", "--limit", 1, "--model", lalign.tiny[1]).status == 0


def test_a_request_shows_three_to_five_seeds_by_the_seed_and_its_number(
    construct: Any, serve: Serve, lalign: Lalign
) -> None:
    def shown(*arguments: object) -> list[list[int]]:
        done = construct(serve(model), "questions", SEEDS, *arguments)
        assert done.status == 0, done.err
        return [record["shown"] for record in done.records]

    many = shown("--count", 60)
    assert {len(seeds) for seeds in many} == {3, 4, 5}
    assert all(len({*seeds}) == len(seeds) for seeds in many)
    assert shown("--count", 20) == many[:4]
    assert shown("--count", 20, "--seed", 1) != many[:4]


@pytest.mark.parametrize(
    ("stage", "source", "count"), [("questions", SEEDS, 4), ("answers", "four.jsonl", 16), ("principles", SEEDS, 40)]
)
def test_a_job_that_is_killed_asks_nothing_twice(
    construct: Any, serve: Serve, lalign: Lalign, stage: str, source: object, count: int
) -> None:
    reached = threading.Event()
    answered = count // 2

    def until_killed(text: str, before: int) -> Act:
        if len(endpoint.bodies) > answered:
            reached.set()
            return Silence()
        return "Hm." if len(endpoint.bodies) == 1 else model(text)

    endpoint = serve(until_killed)
    more = ["--count", 20] if stage == "questions" else []
    arguments = [stage, source, "-o", "out.jsonl", "--concurrency", 1, *more]
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as said:
        process = lalign.start(*command(endpoint, *arguments), stdin=stdin, stdout=said, stderr=said)
        assert reached.wait(60)
        os.kill(process, signal.SIGKILL)
        assert lalign.wait(process) == -signal.SIGKILL
    held = endpoint.texts[answered]
    endpoint.script = model
    done = construct(endpoint, *arguments, "--resume")
    # The first reply could not be read; the rest is there.
    assert done.status == 1, done.err
    found = records(lalign.folder / "out.jsonl")
    assert ["error" in record for record in found] == [True] + [False] * (len(found) - 1)
    # All but the one that was under way were asked once.
    assert Counter(endpoint.texts) - Counter([held]) == Counter({*endpoint.texts})
    assert len({*endpoint.texts}) == count


def test_more_questions_are_asked_for_by_a_higher_count(construct: Any, serve: Serve, lalign: Lalign) -> None:
    endpoint = serve(model)
    arguments = ["questions", SEEDS, "-o", "out.jsonl"]
    assert construct(endpoint, *arguments, "--count", 10).status == 0
    assert construct(endpoint, *arguments, "--count", 20, "--resume").status == 0
    assert len(endpoint.bodies) == 4
    done = construct(endpoint, *arguments, "--count", 20, "--resume", "--seed", 1)
    assert (done.status, "seed: 0 in the output, 1 now" in done.err) == (2, True), done.err
    seeds = records(SEEDS)[::-1]
    done = construct(
        endpoint, "questions", lines(lalign.folder / "s.jsonl", seeds), *arguments[2:], "--count", 20, "--resume"
    )
    told = "the first 4 requests of the input are not those the output answers"
    assert (done.status, told in done.err) == (2, True), done.err


def test_batch_files_do_as_the_endpoint_does_and_what_failed_is_written_again(
    construct: Any, serve: Serve, lalign: Lalign
) -> None:
    folder = lalign.folder
    held = question("four1")["preference_b"]

    def answer(requests: str, bad: bool) -> None:
        responses = []
        for request in records(folder / requests):
            text = request["body"]["messages"][0]["content"]
            message = {"role": "assistant", "content": "Hm." if bad and held in text else model(text)}
            body = {"choices": [{"message": message, "finish_reason": "stop"}]}
            responses.append({"custom_id": request["custom_id"], "response": {"status_code": 200, "body": body}})
        lines(folder / f"of-{requests}", responses[::-1])

    arguments = ["answers", "four.jsonl"]
    done = construct(None, *arguments, "--url-model", "m", "--write-requests", "requests.jsonl")
    assert (done.status, "16 requests to requests.jsonl" in done.err) == (0, True)
    answer("requests.jsonl", bad=True)
    arguments += ["-o", "out.jsonl"]
    assert construct(None, *arguments, "--read-responses", "of-requests.jsonl").status == 1
    again = ["--resume", "--retry-errors"]
    # What failed is to be asked again, whether or not it is said.
    done = construct(None, *arguments, "--resume", "--url-model", "m", "--write-requests", "again.jsonl")
    assert (done.status, "1 requests to again.jsonl" in done.err) == (0, True), done.err
    answer("again.jsonl", bad=False)
    done = construct(None, *arguments, *again, "--read-responses", "of-again.jsonl")
    assert done.status == 0, done.err
    assert records(folder / "out.jsonl") == construct(serve(model), "answers", "four.jsonl").records


def test_a_local_model_is_asked(construct: Any, lalign: Lalign, tiny_folder: Path) -> None:
    # The tiny model has a context of 512 bytes.
    (lalign.folder / "short.txt").write_text("{conversation}")
    arguments = ["--general", "--prompt", "short.txt", "--max-new-tokens", 8, "--model", tiny_folder]
    done = construct(None, "principles", "four.jsonl", *arguments)
    assert done.status == 1
    assert [record["error"]["type"] for record in done.records] == ["cut_off"] * 4
    assert all(record["replies"][0] for record in done.records)


def test_principles_of_prompts_are_for_people_in_general(construct: Any, serve: Serve, lalign: Lalign) -> None:
    endpoint = serve(model)
    done = construct(endpoint, "principles", SAMPLES / "forms.jsonl")
    assert done.status == 2  # it holds lines that cannot be answered
    source = lines(
        lalign.folder / "in.jsonl",
        [
            {"id": "x", "prompt": "Hello?"},
            {"prompt": "Hello?", "preference": "a sailor"},
            {"messages": [{"role": "system", "content": "Be."}, {"role": "user", "content": "Hi"}]},
        ],
    )
    done = construct(endpoint, "principles", source)
    assert done.status == 0, done.err
    assert [record["principle"][-10:-1] for record in done.records] == ["nd to all", "is person", "nd to all"]
    assert "System: Be.\n\nUser: Hi" in "".join(endpoint.texts)
    assert done.records[2]["messages"][1] == {"role": "user", "content": "Hi"}
    assert [record["id"] for record in done.records] == ["x", 2, 3]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["riddles", "four.jsonl"], "lalign: STAGE: must be one of questions, filter, answers, principles"),
        (["answers", "nowhere.jsonl"], "nowhere.jsonl: No such file"),
        (["answers", "four.jsonl", "--count", "3"], "--count: is of stage questions, not answers"),
        (["questions", "four.jsonl", "--general"], "--general: is of stage principles"),
        (["questions", "four.jsonl", "--count", "0"], "--count: must be a whole number of at least 1"),
        (["questions", "four.jsonl", "--seed", "-1"], "--seed: must be a whole number of at least 0"),
        (["filter", "four.jsonl", "--similarity", "200"], "--similarity: must be a number above 0 and at most 100"),
        (["filter", "four.jsonl", "--resume", "-o", "o.jsonl"], "--resume: is of no use to stage filter"),
        (["filter", "four.jsonl", "--prompt", "four.jsonl"], "--prompt: is of no use to stage filter"),
        (["filter", "four.jsonl", "-o", "four.jsonl", "--overwrite"], "is the input"),
        (["filter", "four.jsonl", "--report", "four.jsonl"], "is the input"),
        (["answers", "four.jsonl", "--prompt", "four.jsonl"], "--prompt: must hold {question} once"),
        (["answers", "four.jsonl", "-o", "x.parquet"], "--output: x.parquet: is written as JSON Lines"),
        (["answers", "four.jsonl", "--url", "http://127.0.0.1:1"], "lalign: --url-model: is needed with --url"),
        (["answers", "four.jsonl", "--judge-url", "http://x"], "lalign: --judge-model: is needed with --judge-url"),
        (["answers", "four.jsonl", "--write-requests", "r"], "lalign: --url-model: is needed with --write-requests"),
        (["answers", "four.jsonl", "--url-model", "m"], "lalign: --url-model: is of an endpoint (--url)"),
        (["answers", "four.jsonl", "--max-requests", "3"], "lalign: --max-requests: is for an endpoint: --url"),
        (["answers", "four.jsonl", "--url", "x", "--url-model", "m"], "lalign: --url: must begin with http"),
        (["answers", "four.jsonl", "--timeout", "3"], "lalign: --timeout: is for an endpoint: --url"),
        (["answers", "four.jsonl", "--seed", "0"], "--seed: is of stage questions, not answers"),
        (["answers", "four.jsonl", "--similarity", "0"], "--similarity: is of stage filter, not answers"),
        (
            ["filter", "four.jsonl", "--temperature", "0"],
            "--temperature: is of no use to stage filter, which asks nobody",
        ),
        (["filter", "four.jsonl", "--model", "x"], "--model: is of no use to stage filter, which asks nobody"),
        (["filter", "four.jsonl", "-o", "two.jsonl"], "lalign: two.jsonl: exists; --overwrite replaces it\n"),
        (["answers", "bad.jsonl"], "bad.jsonl:2: preference_b: missing"),
        (["questions", "two.jsonl"], "2 seed examples are too few"),
        (["filter", "empty.jsonl"], "empty.jsonl: holds no questions"),
        (["principles", "bad.jsonl"], "bad.jsonl:2: preference_b: missing"),
    ],
)
def test_what_cannot_be_is_one_line(construct: Any, lalign: Lalign, arguments: list[str], told: str) -> None:
    bad = {name: text for name, text in question("y").items() if name != "preference_b"}
    lines(lalign.folder / "bad.jsonl", [question("x"), bad])
    lines(lalign.folder / "two.jsonl", [question("x"), question("y")])
    lines(lalign.folder / "empty.jsonl", [])
    done = construct(None, *arguments)
    assert done.status == 2
    assert told in done.err
    assert len(done.err.splitlines()) == 1


def test_an_endpoint_that_refuses_is_told_in_one_line(construct: Any, serve: Serve) -> None:
    done = construct(serve(lambda text, before: Status(401, message="bad key")), "answers", "four.jsonl")
    assert done.status == 1
    assert "bad key" in done.err
    assert "Traceback" not in done.err

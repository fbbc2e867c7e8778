"""`lalign judge` as a job: streamed, resumed, never asking twice; whatever the endpoint does."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from conftest import Finished, Lalign
from scripted_endpoint import Act, Raw, ScriptedEndpoint, Serve, Silence, Status

COUNT = 6


@pytest.fixture
def judge(lalign: Lalign) -> Callable[..., Finished]:
    """`judge(endpoint, *arguments)`: `lalign judge good.jsonl bad.jsonl` of `COUNT` answers each."""
    answers(lalign.folder)

    def run(endpoint: ScriptedEndpoint | None, *arguments: object) -> Finished:
        return lalign(*command(endpoint, *arguments))

    return run


def command(endpoint: ScriptedEndpoint | None, *arguments: object) -> list[object]:
    asked = ["--judge-url", endpoint.url, "--judge-model", "m"] if endpoint else []
    return ["judge", "good.jsonl", "bad.jsonl", "--prompts", "in.jsonl", *asked, *arguments]


def answers(folder: Path, count: int = COUNT) -> None:
    for name in ("good", "bad"):
        records = [{"id": f"q{n}", "line": n + 1, "response": f"{name} answer {n}"} for n in range(count)]
        lines(folder / f"{name}.jsonl", records)
    lines(folder / "in.jsonl", [{"id": f"q{n}", "prompt": f"Question {n}?"} for n in range(count)])


def lines(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_bytes(b"".join(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE) for record in records))


def records(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def fair(text: str, before: int = 0) -> str:
    """A judge that knows the good answer, wherever it stands."""
    return "It helps. [[A]]" if "<answer_a>\ngood" in text else "It helps. [[B]]"


def test_a_fair_judge_lets_the_good_answer_win(judge: Any, serve: Serve, lalign: Lalign) -> None:
    endpoint = serve(fair)
    done = judge(endpoint, "-o", "out.jsonl", "--summary", "s.json", "--plot", "p.png")
    assert done.status == 0, done.err
    found = records(lalign.folder / "out.jsonl")
    assert [record["id"] for record in found] == [f"q{n}" for n in range(COUNT)]
    assert {record["outcome"] for record in found} == {"win"}
    assert found[0]["orders"] == [
        {"shown": ["good", "bad"], "verdict": "A", "reply": "It helps. [[A]]"},
        {"shown": ["bad", "good"], "verdict": "B", "reply": "It helps. [[B]]"},
    ]
    (contest,) = orjson.loads((lalign.folder / "s.json").read_bytes())["contests"]
    assert (contest["win"]["value"], contest["p_value"], contest["bias"]["agreed"]) == (1.0, 0.03125, COUNT)
    assert len(endpoint.bodies) == 2 * COUNT
    assert endpoint.bodies[0]["temperature"] == 0
    assert (lalign.folder / "p.png").read_bytes().startswith(b"\x89PNG")
    assert not (lalign.folder / "out.jsonl.replies").exists()


def test_a_judge_that_always_says_a_gives_ties_alone(judge: Any, serve: Serve) -> None:
    done = judge(serve(lambda text, before: "[[A]]"))
    assert [record["outcome"] for record in done.records] == ["tie"] * COUNT
    assert "100" in done.err


def test_answers_that_are_the_same_are_a_tie_that_nobody_is_asked(judge: Any, serve: Serve, lalign: Lalign) -> None:
    (lalign.folder / "bad.jsonl").write_bytes((lalign.folder / "good.jsonl").read_bytes())
    endpoint = serve(fair)
    done = judge(endpoint)
    assert [(record["outcome"], record["orders"]) for record in done.records] == [("tie", [])] * COUNT
    assert not endpoint.bodies


def test_verdicts_that_cannot_be_read_are_counted_apart(judge: Any, serve: Serve) -> None:
    done = judge(serve(lambda text, before: "Hm." if "Question 2" in text else fair(text)))
    assert done.status == 0
    assert [record["outcome"] for record in done.records].count("unparsable") == 1
    assert "1 unparsable" in done.err


def test_errors_stand_in_their_place_and_are_asked_again_alone(judge: Any, serve: Serve, lalign: Lalign) -> None:
    broken = [True]

    def script(text: str, before: int) -> Act:
        return Raw(b"<html>") if broken[0] and "Question 3" in text and "<answer_a>\ngood" in text else fair(text)

    endpoint = serve(script)
    done = judge(endpoint, "-o", "out.jsonl")
    assert done.status == 1
    assert records(lalign.folder / "out.jsonl")[3]["error"]["type"] == "not_a_completion"
    broken[0] = False
    before = len(endpoint.bodies)
    done = judge(endpoint, "-o", "out.jsonl", "--resume", "--retry-errors")
    assert done.status == 0, done.err
    assert {record["outcome"] for record in records(lalign.folder / "out.jsonl")} == {"win"}
    # The other order was answered, and is not paid for again.
    assert len(endpoint.bodies) == before + 1


@pytest.mark.parametrize("answered", [0, 1, 4, 2 * COUNT - 1])
def test_a_job_that_is_killed_asks_nothing_twice(serve: Serve, lalign: Lalign, judge: Any, answered: int) -> None:
    reached = threading.Event()

    def until_killed(text: str, before: int) -> Act:
        if len(endpoint.bodies) > answered:
            reached.set()
            return Silence()
        return fair(text)

    endpoint = serve(until_killed)
    arguments = ["-o", "out.jsonl", "--concurrency", 1]
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as said:
        process = lalign.start(*command(endpoint, *arguments), stdin=stdin, stdout=said, stderr=said)
        assert reached.wait(60)
        os.kill(process, signal.SIGKILL)
        assert lalign.wait(process) == -signal.SIGKILL
    held = endpoint.texts[answered]
    endpoint.script = fair
    done = judge(endpoint, *arguments, "--resume")
    assert done.status == 0, done.err
    assert [record["outcome"] for record in records(lalign.folder / "out.jsonl")] == ["win"] * COUNT
    # All but the one that was under way were asked once.
    assert Counter(endpoint.texts) - Counter([held]) == Counter({*endpoint.texts})


def test_a_job_that_is_told_to_stop_keeps_what_is_under_way(serve: Serve, lalign: Lalign, judge: Any) -> None:
    process: list[int] = []
    started = threading.Event()

    def script(text: str, before: int) -> Act:
        if len(endpoint.bodies) == 5:
            started.wait(60)
            os.kill(process[0], signal.SIGTERM)
        return fair(text)

    endpoint = serve(script)
    arguments = ["-o", "out.jsonl", "--concurrency", 3]
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as said:
        process.append(lalign.start(*command(endpoint, *arguments), stdin=stdin, stdout=said, stderr=said))
        started.set()
        assert lalign.wait(process[0]) == 128 + signal.SIGTERM
        said.seek(0)
        assert b"interrupted; resume with: lalign judge good.jsonl" in said.read()
    assert len(endpoint.bodies) < 2 * COUNT
    assert judge(endpoint, *arguments, "--resume").status == 0
    assert len(endpoint.bodies) == len({*endpoint.texts}) == 2 * COUNT


def test_a_limit_on_requests_ends_the_job_and_resume_goes_on(judge: Any, serve: Serve, lalign: Lalign) -> None:
    endpoint = serve(fair)
    done = judge(endpoint, "-o", "out.jsonl", "--max-requests", 5)
    assert done.status == 1
    assert "--max-requests allows" in done.err
    assert len(endpoint.bodies) == 5
    assert judge(endpoint, "-o", "out.jsonl", "--resume").status == 0
    assert len(endpoint.bodies) == 2 * COUNT


def test_a_resume_under_other_settings_or_of_other_answers_is_refused(judge: Any, serve: Serve, lalign: Lalign) -> None:
    endpoint = serve(fair)
    assert judge(endpoint, "-o", "out.jsonl").status == 0
    (lalign.folder / "mine.txt").write_text("{conversation} {answer_a} {answer_b}")
    done = judge(endpoint, "-o", "out.jsonl", "--resume", "--judge-prompt", "mine.txt")
    assert (done.status, "instructions" in done.err) == (2, True)
    text = (lalign.folder / "bad.jsonl").read_text()
    (lalign.folder / "bad.jsonl").write_text(text.replace("bad answer 2", "another answer"))
    done = judge(endpoint, "-o", "out.jsonl", "--resume")
    assert (done.status, "are not those the output answers" in done.err) == (2, True), done.err
    assert len(endpoint.bodies) == 2 * COUNT


def test_an_endpoint_that_refuses_is_told_in_one_line(judge: Any, serve: Serve) -> None:
    done = judge(serve(lambda text, before: Status(401, message="bad key")))
    assert done.status == 1
    assert "bad key" in done.err
    assert "Traceback" not in done.err


def test_batch_files_judge_as_the_endpoint_does(judge: Any, serve: Serve, lalign: Lalign) -> None:
    folder = lalign.folder
    assert judge(None, "--judge-model", "m", "--write-requests", "requests.jsonl").status == 0
    responses = []
    for request in records(folder / "requests.jsonl"):
        message = {"role": "assistant", "content": fair(request["body"]["messages"][0]["content"])}
        body = {"choices": [{"message": message, "finish_reason": "stop"}]}
        responses.append({"custom_id": request["custom_id"], "response": {"status_code": 200, "body": body}})
    lines(folder / "responses.jsonl", responses[::-1])
    by_file = judge(None, "--read-responses", "responses.jsonl")
    assert by_file.status == 0, by_file.err
    assert by_file.records == judge(serve(fair)).records
    lines(folder / "responses.jsonl", responses[1:])
    done = judge(None, "--read-responses", "responses.jsonl")
    assert done.status == 1
    assert [record["error"]["type"] for record in done.records if "error" in record] == ["no_response"]


def test_a_local_model_judges(judge: Any, lalign: Lalign, tiny_folder: Path) -> None:
    # The tiny model has a context of 512 bytes.
    (lalign.folder / "short.txt").write_text("{conversation} {answer_a} {answer_b}")
    arguments = ["--judge-prompt", "short.txt", "--max-new-tokens", 8, "--model", tiny_folder]
    done = judge(None, *arguments)
    assert done.status == 0, done.err
    assert [record["outcome"] for record in done.records] == ["unparsable"] * COUNT
    assert all(order["reply"] for record in done.records for order in record["orders"])


def test_many_files_in_one_table(judge: Any, serve: Serve, lalign: Lalign) -> None:
    lines(lalign.folder / "third.jsonl", [{"id": "q1", "response": "third"}])
    done = lalign(
        "judge", "good.jsonl", "bad.jsonl", "third.jsonl", "--prompts", "in.jsonl", "--match", "all",
        *["--judge-url", serve(fair).url, "--judge-model", "m", "--name", "G", "--name", "B", "--name", "T"],
    )  # fmt: skip
    assert done.status == 0, done.err
    found = Counter((record["first"], record["second"], record["outcome"]) for record in done.records)
    assert found[("G", "B", "win")] == COUNT
    assert found[("G", "T", "win")] == 1
    assert "G vs T: not judged: 5 ids in one file alone" in done.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--judge-url", "http://127.0.0.1:1"], "--judge-model: is needed"),
        (["--judge-model", "m"], "--judge-model: is of an endpoint"),
        (["--max-requests", "3"], "--max-requests: is for an endpoint"),
        (["--page", "p.html", "--votes", "v.jsonl"], "--page: does not go with --votes"),
        (["--compare", "v.jsonl"], "--compare: only goes with --votes"),
        (["--name", "x"], "--name: 1 names for 2 files"),
        (["--match", "some"], "--match: must be one of"),
        (["-o", "good.jsonl", "--overwrite"], "is the input"),
        (["--request-options", "[]"], "--request-options: must be a JSON object"),
        (["--request-options", '{"model": "x"}'], "cannot set model"),
        (["--judge-prompt", "in.jsonl"], "--judge-prompt: must hold {conversation} once"),
        (["--plot", "x.html"], "--plot: must name a .pdf, .png or .svg"),
        (["-o", "out.parquet"], "--output: out.parquet: judged matches are written as JSON Lines"),
        (["--prompt-field", "x"], "No such option"),
        (["--summary", "good.jsonl"], "good.jsonl: is the input"),
        (["--temperature", "-1"], "--temperature: must be"),
    ],
)
def test_options_that_cannot_be_are_told(judge: Any, arguments: list[str], told: str) -> None:
    done = judge(None, *arguments)
    assert done.status == 2
    assert told in done.err
    assert "Traceback" not in done.err

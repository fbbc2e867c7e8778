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
# Of options that are refused before anything is asked.
ENDPOINT = ["--url", "http://127.0.0.1:1", "--url-model", "m"]
BATCH = ["--write-requests", "r.jsonl", "--judge-model", "m"]


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
    told = f"lalign: the first {COUNT} matches of the input are not those the output answers"
    assert (done.status, told in done.err) == (2, True), done.err
    assert len(endpoint.bodies) == 2 * COUNT


def killed_before_a_record(serve: Serve, lalign: Lalign) -> tuple[ScriptedEndpoint, list[object]]:
    """A job that was killed when the last of its answers was under way, and the first had not come."""
    reached = threading.Event()

    def script(text: str, before: int) -> Act:
        if "Question 0" in text:
            return Silence()
        if len({*endpoint.texts}) == 2 * COUNT:
            reached.set()
        return fair(text)

    endpoint = serve(script)
    arguments: list[object] = ["-o", "out.jsonl", "--concurrency", 3]
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as said:
        process = lalign.start(*command(endpoint, *arguments), stdin=stdin, stdout=said, stderr=said)
        assert reached.wait(60)
        os.kill(process, signal.SIGKILL)
        lalign.wait(process)
    assert not (lalign.folder / "out.jsonl").exists()
    return endpoint, arguments


@pytest.mark.parametrize(
    "changed", [("--judge-model", "n"), ("--temperature", 1), ("--request-options", '{"top_k": 3}')]
)
def test_replies_of_another_model_are_not_taken_where_no_record_stands(
    serve: Serve, lalign: Lalign, judge: Any, changed: tuple[object, ...]
) -> None:
    endpoint, arguments = killed_before_a_record(serve, lalign)
    endpoint.script = fair
    asked = len(endpoint.bodies)
    done = judge(endpoint, *arguments, "--resume", *changed)
    assert done.status == 2
    assert done.err.startswith("lalign: out.jsonl: the replies in "), done.err
    assert ("model: 'm' in the output, 'n' now" if changed[1] == "n" else "body: ") in done.err
    assert len(done.err.splitlines()) == 1
    assert len(endpoint.bodies) == asked
    assert judge(endpoint, *arguments, "--resume").status == 0


def test_what_was_paid_for_is_not_thrown_away_by_running_it_again(serve: Serve, lalign: Lalign, judge: Any) -> None:
    endpoint, arguments = killed_before_a_record(serve, lalign)
    held = (lalign.folder / "out.jsonl.replies").read_bytes()
    again = judge(endpoint, *arguments)
    assert (again.status, "out.jsonl.replies: holds replies of a job that did not end" in again.err) == (2, True)
    bad = judge(endpoint, "-o", "out.jsonl", "--overwrite", "--concurrency", 0)
    assert (bad.status, "--concurrency: must be" in bad.err) == (2, True), bad.err
    assert (lalign.folder / "out.jsonl.replies").read_bytes() == held
    endpoint.script = fair
    asked = len(endpoint.bodies)
    assert judge(endpoint, *arguments, "--overwrite").status == 0
    assert len(endpoint.bodies) == asked + 2 * COUNT


def test_an_endpoint_that_refuses_is_told_in_one_line(judge: Any, serve: Serve) -> None:
    done = judge(serve(lambda text, before: Status(401, message="bad key")))
    assert done.status == 1
    assert "bad key" in done.err
    assert "Traceback" not in done.err


def test_batch_files_judge_as_the_endpoint_does(judge: Any, serve: Serve, lalign: Lalign) -> None:
    folder = lalign.folder
    assert judge(None, "--judge-model", "m", "--write-requests", "requests.jsonl").status == 0
    respond(folder, "requests.jsonl", "responses.jsonl")
    by_file = judge(None, "--read-responses", "responses.jsonl")
    assert by_file.status == 0, by_file.err
    assert by_file.records == judge(serve(fair)).records


def respond(folder: Path, requests: str, responses: str, most: int | None = None) -> None:
    """The file of responses to one of requests, in another order, of the first `most` requests."""
    found = []
    for request in records(folder / requests)[:most]:
        message = {"role": "assistant", "content": fair(request["body"]["messages"][0]["content"])}
        body = {"choices": [{"message": message, "finish_reason": "stop"}]}
        found.append({"custom_id": request["custom_id"], "response": {"status_code": 200, "body": body}})
    lines(folder / responses, found[::-1])


def test_what_a_batch_has_no_response_to_is_written_again(judge: Any, lalign: Lalign) -> None:
    folder = lalign.folder
    writing = ["--judge-model", "m", "--write-requests"]
    assert judge(None, *writing, "requests.jsonl").status == 0
    respond(folder, "requests.jsonl", "responses.jsonl", most=-1)
    done = judge(None, "--read-responses", "responses.jsonl", "-o", "out.jsonl")
    assert done.status == 1
    found = records(folder / "out.jsonl")
    assert [record["error"]["type"] for record in found if "error" in record] == ["no_response"]
    done = judge(None, *writing, "again.jsonl", "-o", "out.jsonl", "--resume")
    assert (done.status, done.err.count("\n")) == (0, 1), done.err
    assert "1 requests to again.jsonl; --read-responses with --resume --retry-errors reads" in done.err
    assert records(folder / "out.jsonl") == found
    respond(folder, "again.jsonl", "late.jsonl")
    done = judge(None, "--read-responses", "late.jsonl", "-o", "out.jsonl", "--resume", "--retry-errors")
    assert done.status == 0, done.err
    assert {record["outcome"] for record in records(folder / "out.jsonl")} == {"win"}


def test_what_an_endpoint_began_is_not_gone_on_with_by_a_batch(judge: Any, serve: Serve, lalign: Lalign) -> None:
    assert judge(serve(fair), "-o", "out.jsonl", "--max-requests", 5).status == 1
    done = judge(None, "--judge-model", "m", "--write-requests", "r.jsonl", "-o", "out.jsonl", "--resume")
    assert (done.status, "model: 'm' in the output, 'batch responses' now" in done.err) == (2, True), done.err
    assert not (lalign.folder / "r.jsonl").exists()


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
        (["--judge-url", "http://127.0.0.1:1"], "--judge-model: is needed with --judge-url"),
        (["--url", "http://127.0.0.1:1"], "--url-model: is needed with --url"),
        (["--write-requests", "r.jsonl"], "--judge-model: is needed with --write-requests"),
        (["--judge-url", "localhost", "--judge-model", "m"], "--judge-url: must begin with http"),
        (["--judge-model", "m"], "--judge-model: is of an endpoint (--judge-url)"),
        (["--url-model=m"], "--url-model: is of an endpoint (--url)"),
        (["--max-requests", "3"], "--max-requests: is for an endpoint: --judge-url"),
        (["--concurrency", "3"], "--concurrency: is for an endpoint"),
        (["--retries", "3"], "--retries: is for an endpoint"),
        (["--timeout", "3"], "--timeout: is for an endpoint"),
        (["--request-options", "{}"], "--request-options: is for an endpoint or a batch: --judge-url or --write-requ"),
        ([*ENDPOINT, "--model", "x"], "--model: is for a model that lalign runs itself; --url has another asked"),
        ([*ENDPOINT, "--batch-size", "2"], "--batch-size: is for a model that lalign runs itself"),
        ([*BATCH, "--plot", "p.png"], "--plot: is of no use to --write-requests"),
        ([*BATCH, "--summary", "s.json"], "--summary: is of no use to --write-requests"),
        ([*BATCH, "-o", "o.jsonl"], "--output: goes with --write-requests only to --resume"),
        ([*BATCH, "--concurrency", "2"], "--concurrency: is for an endpoint"),
        (["--page", "p.html", "--plot", "p.png"], "--plot: is of no use to --page, which asks nobody"),
        (["--page", "p.html", "--summary", "s.json"], "--summary: is of no use to --page, which asks nobody"),
        (["--page", "p.html", "-o", "o.jsonl"], "--output: is of no use to --page, which asks nobody"),
        (["--page", "p.html", "--temperature", "0.5"], "--temperature: is of no use to --page, which asks nobody"),
        (["--page", "p.html", "--url", "http://x"], "--page: does not go with --url"),
        (["--page", "p.html", "--seed", str(2**53)], "--seed: must be a whole number of at least 0 and at most 9007"),
        (["--seed", "-1"], "--seed: must be a whole number of at least 0 and at most 9007"),
        (["--votes", "v.jsonl", "--judge-prompt", "in.jsonl"], "--judge-prompt: is of no use to --votes"),
        (["--votes", "v.jsonl", "--model", "x"], "--model: is of no use to --votes, which asks nobody"),
        (["--response-field", "a", "--response-field", "b", "third.jsonl"], "--response-field: one for all files or"),
        (["bad.jsonl"], "A.jsonl B.jsonl ...: 'bad.jsonl' is there twice"),
        (["--page", "p.html", "--votes", "v.jsonl"], "--page: does not go with --votes"),
        (["--compare", "v.jsonl"], "--compare: only goes with --votes"),
        (["--name", "x"], "--name: 1 names for 2 files"),
        (["--match", "some"], "--match: must be one of"),
        (["-o", "good.jsonl", "--overwrite"], "is the input"),
        ([*ENDPOINT, "--request-options", "[]"], "--request-options: must be a JSON object"),
        ([*ENDPOINT, "--request-options", '{"model": "x"}'], "cannot set model"),
        (["--judge-prompt", "in.jsonl"], "--judge-prompt: must hold {conversation} once"),
        (["--plot", "x.html"], "--plot: must name a .pdf, .png or .svg"),
        (["-o", "out.parquet"], "--output: out.parquet: judged matches are written as JSON Lines"),
        (["--prompt-field", "x"], "No such option"),
        (["--summary", "good.jsonl"], "good.jsonl: is the input"),
        (["--temperature", "-1"], "--temperature: must be"),
    ],
)
def test_options_that_cannot_be_are_told(judge: Any, lalign: Lalign, arguments: list[str], told: str) -> None:
    before = sorted(lalign.folder.iterdir())
    done = judge(None, *arguments)
    assert done.status == 2
    assert told in done.err
    assert "Traceback" not in done.err
    assert sorted(lalign.folder.iterdir()) == before


def test_one_file_alone_meets_nobody(lalign: Lalign) -> None:
    answers(lalign.folder)
    done = lalign("judge", "good.jsonl", "--prompts", "in.jsonl")
    assert (done.status, done.err) == (
        2,
        "lalign: A.jsonl B.jsonl ...: two files of answers are needed at the least, not 1\n",
    )


def test_each_file_may_have_its_answers_under_a_key_of_its_own(judge: Any, serve: Serve, lalign: Lalign) -> None:
    lines(lalign.folder / "bad.jsonl", [{"id": f"q{n}", "text": f"bad answer {n}"} for n in range(COUNT)])
    done = judge(serve(fair), "--response-field", "response", "--response-field", "text")
    assert done.status == 0, done.err
    assert [record["outcome"] for record in done.records] == ["win"] * COUNT


def test_a_pipe_or_device_is_an_output_that_is_not_read_again(judge: Any, serve: Serve, lalign: Lalign) -> None:
    os.mkfifo(lalign.folder / "pipe")
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append((lalign.folder / "pipe").read_bytes()))
    reader.start()
    done = judge(serve(fair), "-o", "pipe", "--summary", "s.json")
    reader.join(60)
    assert done.status == 0, done.err
    assert [orjson.loads(line)["outcome"] for line in got[0].splitlines()] == ["win"] * COUNT
    (contest,) = orjson.loads((lalign.folder / "s.json").read_bytes())["contests"]
    assert contest["win"]["value"] == 1.0
    done = judge(serve(fair), "-o", "/dev/null")
    assert (done.status, "100" in done.err) == (0, True), done.err
    assert not Path("/dev/null.replies").exists()
    assert not (lalign.folder / "pipe.replies").exists()


def test_votes_advise_nothing_that_there_is_not(judge: Any, lalign: Lalign) -> None:
    for name in ("v.jsonl", "out.jsonl"):
        (lalign.folder / name).touch()
    done = judge(None, "--votes", "v.jsonl", "-o", "out.jsonl")
    assert (done.status, done.err) == (2, "lalign: out.jsonl: exists; --overwrite replaces it\n")

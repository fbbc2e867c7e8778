"""`lalign eval` as a user runs it: what it writes, and what it refuses before a model is loaded."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import orjson
import pytest
from conftest import Lalign

QUESTIONS = [
    {"prompt": f"Which is {number}?", "choices": ["Venus", "Mars", "Earth"], "answer": number % 3}
    for number in range(5)
]


@pytest.fixture
def asked(lalign: Lalign, tmp_path: Path, tiny_folder: Path) -> tuple[Lalign, tuple[object, ...]]:
    (tmp_path / "asked.jsonl").write_bytes(b"".join(orjson.dumps(question) + b"\n" for question in QUESTIONS))
    options = ("eval", "asked.jsonl", "--model", tiny_folder, "--principle", "principle.txt", "--scoring", "letter")
    return lalign, options


def records(file: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in file.read_bytes().splitlines()]


def test_no_more_questions_are_asked_than_the_limit_and_each_has_a_record(
    asked: tuple[Lalign, tuple[object, ...]], tmp_path: Path
) -> None:
    lalign, options = asked
    finished = lalign(*options, "--ratios", "0,2", "--limit", 3, "-o", "chosen.jsonl")
    assert finished.status == 0, finished.err
    found = records(tmp_path / "chosen.jsonl")
    assert sorted(record["line"] for record in found) == [1, 2, 3]
    assert orjson.loads(finished.out)["questions"] == 3
    for record in found:
        assert record["answers"][record["right"]] == QUESTIONS[record["line"] - 1]["choices"][(record["line"] - 1) % 3]
        assert [choice["ratio"] for choice in record["choices"]] == [0, 1, 0, 2]


def test_records_are_replaced_only_when_asked(asked: tuple[Lalign, tuple[object, ...]], tmp_path: Path) -> None:
    lalign, options = asked
    (tmp_path / "chosen.jsonl").write_bytes(b"mine")
    refused = lalign(*options, "-o", "chosen.jsonl")
    assert (refused.status, refused.err) == (2, "lalign: -o: chosen.jsonl: exists; --overwrite replaces it\n")
    assert lalign(*options, "-o", "asked.jsonl", "--overwrite").status == 2
    assert len((tmp_path / "asked.jsonl").read_bytes().splitlines()) == len(QUESTIONS)
    assert (tmp_path / "chosen.jsonl").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--ratios", "1e39"), "--ratios: "),
        (("--seed", -1), "--seed: must be a whole number of at least 0"),
        (("--seed", 2**63), "--seed: must be a whole number of at least 0"),
        (("--limit", 0), "--limit: must be a whole number of at least 1"),
    ],
)
def test_numbers_out_of_range_are_refused(
    asked: tuple[Lalign, tuple[object, ...]], given: tuple[object, ...], told: str
) -> None:
    lalign, options = asked
    finished = lalign(*options, *given)
    assert finished.status == 2
    assert finished.err.startswith(f"lalign: {told}"), finished.err
    assert len(finished.err.splitlines()) == 1


def test_an_evaluation_is_gone_on_with(asked: tuple[Lalign, tuple[object, ...]], tmp_path: Path) -> None:
    lalign, options = asked
    whole = lalign(*options, "--ratios", "0,2", "-o", "whole.jsonl")
    assert lalign(*options, "--ratios", "0,2", "-o", "parts.jsonl", "--limit", 2).status == 0
    resumed = lalign(*options, "--ratios", "0,2", "-o", "parts.jsonl", "--resume")
    assert resumed.status == 0, resumed.err
    assert (tmp_path / "parts.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert resumed.out == whole.out
    other = lalign(*options, "--ratios", "0,3", "-o", "parts.jsonl", "--resume")
    assert other.status == 2
    assert "points" in other.err


def test_several_models_stand_in_one_table_and_runs_are_merged(
    asked: tuple[Lalign, tuple[object, ...]], tmp_path: Path, tiny_folder: Path
) -> None:
    lalign, options = asked
    (tmp_path / "other").symlink_to(tiny_folder)
    plain = [option for option in options if option not in ("--model", tiny_folder)]
    one = lalign(*plain, "--model", tiny_folder, "--ratios", "0,2")
    both = lalign(*plain, "--models", tiny_folder, "--models", "other", "--ratios", "0,2", "--plot", "both.svg")
    assert both.status == 0, both.err
    runs = orjson.loads(both.out)["runs"]
    assert [run["settings"]["model"] for run in runs] == [str(tiny_folder), "other"]
    assert runs[0] == orjson.loads(one.out)
    (tmp_path / "one.json").write_bytes(one.out)
    (tmp_path / "both.json").write_bytes(both.out)
    merged = lalign("eval", "--merge", "one.json", "both.json", "--plot", "merged.svg")
    assert merged.status == 0, merged.err
    assert [run["settings"]["model"] for run in orjson.loads(merged.out)["runs"]] == [*[str(tiny_folder)] * 2, "other"]
    assert "other" in (tmp_path / "merged.svg").read_text()
    refused = lalign("eval", "--merge", "asked.jsonl")
    assert (refused.status, len(refused.err.splitlines())) == (2, 1)


def test_what_one_model_gave_is_not_lost_with_the_next(
    asked: tuple[Lalign, tuple[object, ...]], tmp_path: Path, tiny_folder: Path
) -> None:
    lalign, options = asked
    plain = [option for option in options if option not in ("--model", tiny_folder)]
    missing = lalign(*plain, "--models", tiny_folder, "--models", tmp_path / "no.gguf", "--ratios", "0,2")
    assert (missing.status, missing.out) == (2, b"")
    assert missing.err == f"lalign: {tmp_path / 'no.gguf'}: no such file\n"  # before any was asked
    (tmp_path / "bad").mkdir()
    for file in tiny_folder.iterdir():
        (tmp_path / "bad" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "bad" / "model.safetensors").write_bytes(b"no weights")
    both = ["--models", tiny_folder, "--models", "bad", "--ratios", "0,2", "--plot", "both.svg"]
    broken = lalign(*plain, *both)
    assert broken.status == 2
    assert [run["settings"]["model"] for run in orjson.loads(broken.out)["runs"]] == [str(tiny_folder)]
    assert broken.err.splitlines()[-1].startswith("lalign: bad: "), broken.err
    assert not (tmp_path / "both.svg").exists()


def test_a_second_model_is_not_taken_in_place_of_the_first(asked: tuple[Lalign, tuple[object, ...]]) -> None:
    lalign, options = asked
    finished = lalign(*options, "--model", "other")
    told = "lalign: --model: is there more than once; --models A --models B asks several models in turn\n"
    assert (finished.status, finished.err) == (2, told)


def test_an_evaluation_that_is_told_to_stop_says_how_to_go_on(
    asked: tuple[Lalign, tuple[object, ...]], tmp_path: Path
) -> None:
    lalign, options = asked
    (tmp_path / "asked.jsonl").write_bytes(b"".join(orjson.dumps(QUESTIONS[n % 5]) + b"\n" for n in range(400)))
    arguments = (*options, "--ratios", "0,2", "-o", "chosen.jsonl")
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = lalign.start(*arguments, stdin=stdin, stdout=out, stderr=err)
        while not (tmp_path / "chosen.jsonl").exists() or not (tmp_path / "chosen.jsonl").stat().st_size:
            time.sleep(0.01)
        os.kill(process, signal.SIGINT)
        assert lalign.wait(process) == 128 + signal.SIGINT
        err.seek(0)
        said = err.read().decode()
        assert not out.tell()
    assert said.startswith("lalign: interrupted; resume with: lalign eval asked.jsonl"), said
    assert said.endswith(" -o chosen.jsonl --resume\n"), said
    assert 0 < len(records(tmp_path / "chosen.jsonl")) < 400


USERS = {f"preference_{user}": f"a person {user}" for user in "abcd"} | {
    f"answer_{user}": f"Do {user}." for user in "abcd"
}


@pytest.fixture
def personal(lalign: Lalign, tmp_path: Path, tiny_folder: Path) -> tuple[Lalign, tuple[object, ...]]:
    questions = [{"domain": "work", "question": f"How, {number}?", **USERS} for number in range(3)]
    (tmp_path / "personal.jsonl").write_bytes(b"".join(orjson.dumps(question) + b"\n" for question in questions))
    return lalign, ("eval", "personal.jsonl", "--model", tiny_folder)


def settings(finished: Any) -> dict[str, Any]:
    assert finished.status == 0, finished.err
    found = orjson.loads(finished.out)
    points = [(point["recipe"], point["ratio"]) for point in found["ratios"]]
    return {**found["settings"], "points": points, "items": found["items"]}


def test_presets_set_what_is_not_given(personal: tuple[Lalign, tuple[object, ...]], tmp_path: Path) -> None:
    lalign, options = personal
    released = settings(lalign(*options, "--preset", "released", "-o", "asked.jsonl"))
    assert released["points"] == [("released", 5)]
    assert (released["scoring"], released["users"], released["permute"], released["seed"]) == (
        "first",
        "one",
        "none",
        42,
    )
    assert released["prefill"] == "Answer:"
    assert released["system"].startswith("You are a helpful, respectful and honest assistant.")
    assert released["items"] == 3
    for record in records(tmp_path / "asked.jsonl"):
        assert record["answers"] == dict(zip("ABCD", ["Do a.", "Do b.", "Do c.", "Do d."], strict=True))
    paper = settings(lalign(*options, "--preset", "paper", "--ratios", "0,2", "--seed", 3, "--all-users"))
    assert paper["points"] == [("lalign", 0), ("lalign", 2)]
    assert (paper["scoring"], paper["users"], paper["permute"], paper["seed"]) == ("letter", "all", "none", 3)
    (tmp_path / "system.txt").write_text("Be kind.")
    own = settings(
        lalign(*options, "--preset", "released", "--system", "system.txt", "--recipe", "cfg", "--ratios", "2")
    )
    assert (own["system"], own["points"]) == ("Be kind.", [("cfg", 2)])


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--preset", "draft"), "--preset: must be one of paper, released"),
        (("--resume",), "--resume: needs -o"),
        (("--kl", 0.5), "--kl: has no place here"),
        (("--models", "a", "-o", "out.jsonl"), "--models: goes in place of --model"),
        (("--scoring", "taste"), "--scoring: must be one of letter, first, logit, ppl"),
        (("-o", "out.parquet"), "-o: out.parquet: records are written as JSON Lines"),
        (("personal.jsonl",), "--merge: is needed for several files"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    personal: tuple[Lalign, tuple[object, ...]], given: tuple[object, ...], told: str
) -> None:
    lalign, options = personal
    finished = lalign(*options, *given)
    assert finished.status == 2
    assert finished.err.startswith(f"lalign: {told}"), finished.err
    assert len(finished.err.splitlines()) == 1

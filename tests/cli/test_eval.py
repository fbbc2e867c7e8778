"""`lalign eval` as a user runs it: what it writes, and what it refuses before a model is loaded."""

from __future__ import annotations

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
    assert (refused.status, refused.err) == (2, "lalign: --output: chosen.jsonl: exists; --overwrite replaces it\n")
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

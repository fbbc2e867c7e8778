"""What is made of an output knows the prompts that the model answered, wherever the job had them from."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from browser import page_data
from conftest import Finished, Lalign

from lalign.errors import InputError
from lalign.judging.answers import read_contestant, read_prompts
from lalign.rewards.answers import Answer, read_answers
from lalign.rewards.prompts import PromptFile, kept_prompt

# Each record has a key that a prompt is taken from where the job names no other.
RECORDS = [
    {"key": f"k{number}", "question": "Never asked?", "en": f"What is {number}?", "n": number} for number in (1, 2, 3)
]
ASKED = [record["en"] for record in RECORDS]
FIELD = ("--prompt-field", "en", "--id-field", "key")
TEMPLATE = ("--prompt-template", "template.txt", "--id-field", "key")


def lines(*records: Any) -> bytes:
    return b"".join(orjson.dumps(record) + b"\n" for record in records)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in.jsonl").write_bytes(lines(*RECORDS))
    (tmp_path / "template.txt").write_text("{% if n %}{{ en }}{% endif %}")
    with (tmp_path / "in.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(RECORDS[0]))
        table.writeheader()
        table.writerows(RECORDS)
    return tmp_path


def done(finished: Finished) -> Finished:
    assert finished.status == 0, finished.err
    return finished


def texts(found: Iterator[Any]) -> list[str]:
    return [messages[-1].content for messages in found]


def scored(path: Path, prompts: PromptFile | None = None) -> list[str]:
    find = prompts or kept_prompt
    return texts(find(answer) for answer in read_answers(path))


def judged(path: Path) -> list[str]:
    return texts(answer.prompt for answer in read_contestant(path, "a").answers.values())


@pytest.mark.parametrize("form", ["jsonl", "openai-batch"])
@pytest.mark.parametrize("reading", [FIELD, TEMPLATE], ids=["field", "template"])
class TestKept:
    def test_prompts_are_those_that_were_answered(
        self, lalign: Lalign, folder: Path, reading: tuple[str, ...], form: str
    ) -> None:
        done(lalign.generate("in.jsonl", *reading, "--keep", "--output-format", form, "-o", "out.jsonl"))
        assert scored(folder / "out.jsonl") == ASKED
        assert judged(folder / "out.jsonl") == ASKED

    def test_they_are_known_of_what_went_to_stdout_or_it_is_refused(
        self, lalign: Lalign, folder: Path, reading: tuple[str, ...], form: str
    ) -> None:
        written = done(lalign.generate("in.jsonl", *reading, "--keep", "--output-format", form)).out
        (folder / "out.jsonl").write_bytes(written)
        if reading == FIELD:
            assert scored(folder / "out.jsonl") == judged(folder / "out.jsonl") == ASKED
            return
        told = r"out\.jsonl:1: read_by: its prompt is made by --prompt-template, and the header .* is not beside"
        with pytest.raises(InputError, match=told):
            scored(folder / "out.jsonl")
        with pytest.raises(InputError, match=told):
            judged(folder / "out.jsonl")


@pytest.mark.parametrize("name", ["in.jsonl", "in.csv", "in.*l"])
@pytest.mark.parametrize("reading", [FIELD, TEMPLATE], ids=["field", "template"])
def test_the_input_is_read_as_the_job_read_it(
    lalign: Lalign, folder: Path, reading: tuple[str, ...], name: str
) -> None:
    done(lalign.generate(name, *reading, "-o", "out.jsonl"))
    path = folder / name
    assert scored(folder / "out.jsonl", PromptFile(path)) == ASKED
    contestant = read_contestant(folder / "out.jsonl", "a")
    prompts = read_prompts(path, [contestant])
    assert texts(prompts[record_id] for record_id in contestant.answers) == ASKED


def test_a_number_that_was_kept_has_every_digit_in_a_template(lalign: Lalign, folder: Path) -> None:
    (folder / "template.txt").write_text("Of {{ n }}?")
    long = b'{"n": 18446744073709551615, "question": "No?"}\n'
    done(lalign.generate("--prompt-template", "template.txt", "--keep", "-o", "out.jsonl", stdin=long))
    assert scored(folder / "out.jsonl") == ["Of 18446744073709551615?"]


def test_records_of_a_plain_job_say_nothing_of_it(lalign: Lalign) -> None:
    (record,) = done(lalign.generate("--keep", stdin=lines({"prompt": "Hi"}))).records
    assert "read_by" not in record


def test_what_is_made_of_an_output_knows_it_too(lalign: Lalign, folder: Path) -> None:
    done(lalign.generate("in.jsonl", *TEMPLATE, "--keep", "-o", "out.jsonl"))
    records = [orjson.loads(line) for line in (folder / "out.jsonl").read_bytes().splitlines()]
    (folder / "out.jsonl").write_bytes(lines(*(record | {"reward": 1.0} for record in records)))
    done(lalign("best", "out.jsonl", "-o", "best.jsonl"))
    (folder / "out.jsonl.run.json").unlink()
    assert scored(folder / "best.jsonl") == ASKED


@pytest.mark.parametrize(
    ("source", "keep", "given"),
    [("in.jsonl", ("--keep",), ()), ("in.jsonl", (), ("--input", "in.jsonl")), ("in.csv", (), ("--input", "in.csv"))],
)
def test_a_page_shows_the_prompts_that_were_answered(
    lalign: Lalign, folder: Path, source: str, keep: tuple[str, ...], given: tuple[str, ...]
) -> None:
    done(lalign("sweep", *lalign.tiny, source, "--ratios", "0:1", *TEMPLATE, *keep, "-o", "swept.jsonl"))
    done(lalign("plot", "swept.jsonl", *given, "-o", "page.html"))
    assert [sheet["prompt"] for sheet in page_data(folder / "page.html")["prompts"]] == ASKED


def test_prompts_of_jobs_that_read_them_in_different_ways_are_refused(lalign: Lalign, folder: Path) -> None:
    done(lalign.generate("in.jsonl", *FIELD, "-o", "a.jsonl"))
    done(lalign.generate("in.jsonl", "--id-field", "key", "-o", "b.jsonl"))
    contestants = [read_contestant(folder / f"{name}.jsonl", name) for name in "ab"]
    with pytest.raises(InputError, match=r"--prompts: the jobs of .*a\.jsonl, .*b\.jsonl did not read their prompts"):
        read_prompts(folder / "in.jsonl", contestants)


class TestBatchResults:
    """`--output-format openai-batch`, where ids are texts."""

    @pytest.fixture
    def batch(self, lalign: Lalign, folder: Path) -> Path:
        (folder / "plain.jsonl").write_bytes(lines(*({"prompt": text} for text in ASKED), {"prompt": ""}))
        finished = lalign.generate("plain.jsonl", "--output-format", "openai-batch", "-o", "batch.jsonl")
        assert finished.status == 1
        return folder / "batch.jsonl"

    def test_are_answers(self, batch: Path, lalign: Lalign) -> None:
        answers = list(read_answers(batch))
        plain = lalign.generate("plain.jsonl").records
        assert [(answer.id, answer.line, answer.failed) for answer in answers] == [
            (str(record["id"]), record["line"], "error" in record) for record in plain
        ]
        assert [answer.record["response"] for answer in answers[:3]] == [record["response"] for record in plain[:3]]

    def test_meet_the_numbers_of_the_input(self, batch: Path, folder: Path) -> None:
        assert texts(map(PromptFile(folder / "plain.jsonl"), list(read_answers(batch))[:3])) == ASKED
        bare = Answer("out.jsonl", 9, b"{}", {"id": "2", "response": ""})
        assert PromptFile(folder / "plain.jsonl")(bare)[0].content == ASKED[1]

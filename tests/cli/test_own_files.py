"""People's own files, as they run lalign on them: fields, templates, tables, several files, principles forgotten."""

from __future__ import annotations

import csv
import json
import math
import os
from pathlib import Path
from typing import Any

import orjson
import pyarrow
import pyarrow.parquet
import pytest
from browser import page_data
from conftest import Finished, Lalign, Pipe

from lalign.judging.answers import read_contestant
from lalign.records.parsing import Message
from lalign.rewards.answers import read_answers
from lalign.rewards.prompts import kept_prompt

QUESTIONS = [
    {"qid": "a", "question": "One and one?", "context": "sums", "domain": "maths"},
    {"qid": "b", "question": "A fruit?", "context": "food", "domain": "cooking"},
]


def lines(*records: Any) -> bytes:
    return b"".join(orjson.dumps(record) + b"\n" for record in records)


def told(finished: Finished) -> str:
    """The one line of a usage error."""
    assert (finished.status, finished.out) == (2, b"")
    assert finished.err.startswith("lalign: ")
    assert finished.err.count("\n") == 1, finished.err
    return finished.err.removeprefix("lalign: ").rstrip("\n")


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "questions.jsonl"
    path.write_bytes(lines(*QUESTIONS))
    return path


@pytest.fixture
def template(tmp_path: Path) -> Path:
    path = tmp_path / "template.txt"
    path.write_text("Of {{ context }}: {{ question }}\n")
    return path


def responses(finished: Finished) -> list[tuple[Any, str, int, int]]:
    assert finished.status == 0, finished.err
    return [
        (record["id"], record["response"], record["usage"]["prompt_tokens"], record["usage"]["principle_tokens"])
        for record in finished.records
    ]


def test_a_template_answers_as_prompts_written_out_would_be(lalign: Lalign, questions: Path, template: Path) -> None:
    plain = [{"id": one["qid"], "prompt": f"Of {one['context']}: {one['question']}"} for one in QUESTIONS]
    filled = lalign.generate("questions.jsonl", "--prompt-template", "template.txt", "--id-field", "qid")
    assert responses(filled) == responses(lalign.generate(stdin=lines(*plain)))
    piped = lalign.generate("--prompt-template", "template.txt", "--id-field", "qid", stdin=lines(*QUESTIONS))
    assert responses(piped) == responses(filled)


def test_a_principle_may_differ_by_record(lalign: Lalign, tmp_path: Path, tiny_folder: Path, questions: Path) -> None:
    (tmp_path / "expert.txt").write_text("Speak as an expert in {{ domain }}.")
    arguments = ("--model", tiny_folder, "--max-new-tokens", 4, "--prompt-field", "question", "--id-field", "qid")
    own = [one | {"principle": f"Speak as an expert in {one['domain']}."} for one in QUESTIONS]
    together = lalign("generate", "questions.jsonl", "--principle", "expert.txt", *arguments)
    assert responses(together) == responses(lalign("generate", *arguments, stdin=lines(*own)))


def test_a_contrast_may_differ_by_record(lalign: Lalign, tmp_path: Path, questions: Path) -> None:
    (tmp_path / "contrast.txt").write_text("Know nothing of {{ domain }}.")
    arguments = ("--prompt-field", "question", "--id-field", "qid", "--recipe", "opad")
    own = [one | {"contrast": f"Know nothing of {one['domain']}."} for one in QUESTIONS]
    given = lines(*QUESTIONS, {**QUESTIONS[0], "qid": "c", "contrast": "Know it."})
    together = lalign.generate("--contrast", "contrast.txt", *arguments, stdin=given)
    apart = lalign.generate(*arguments, stdin=lines(*own, {**own[0], "qid": "c", "contrast": "Know it."}))
    assert responses(together) == responses(apart)
    assert len({tokens for _, _, tokens, _ in responses(together)}) > 1


def test_a_system_message_may_differ_by_record(lalign: Lalign, tmp_path: Path, questions: Path) -> None:
    (tmp_path / "system.txt").write_text("This is about {{ domain }}.")
    arguments = ("--prompt-field", "question", "--id-field", "qid")
    own = [one | {"system": f"This is about {one['domain']}."} for one in QUESTIONS]
    other = {"question": "Hi?", "qid": "c", "system": "No field."}
    together = lalign.generate("--system", "system.txt", *arguments, stdin=lines(*QUESTIONS, other))
    assert responses(together) == responses(lalign.generate(*arguments, stdin=lines(*own, other)))
    options = ("questions.jsonl", *arguments, "-o", "out.jsonl")
    assert lalign.generate("--system", "system.txt", *options).status == 0
    (tmp_path / "system.txt").write_text("That is about {{ domain }}.")
    assert "system: " in told(lalign.generate("--system", "system.txt", *options, "--resume"))


@pytest.mark.parametrize("option", ["contrast", "system", "against"])
def test_a_field_that_such_a_text_lacks_is_laid_to_its_option(
    lalign: Lalign, tmp_path: Path, questions: Path, option: str
) -> None:
    (tmp_path / "text.txt").write_text("Of {{ tone }}.")
    (tmp_path / "principle.txt").write_text("Be kind.")
    texts = ("--principle", "principle.txt", f"--{option}", "text.txt")
    refused = told(
        lalign("generate", "--model", "/nonexistent", *texts, "questions.jsonl", "--prompt-field", "question")
    )
    said = "principle" if option == "against" else option
    assert refused == f"--{said}: 'tone' is undefined; the fields are qid, question, context, domain"


def test_an_empty_principle_text_is_laid_to_its_option(lalign: Lalign, questions: Path) -> None:
    assert told(lalign("generate", "questions.jsonl", "--principle-text", " ")) == "--principle-text: is empty"


def test_a_principle_with_fields_is_told_by_its_text_when_resumed(
    lalign: Lalign, tmp_path: Path, tiny_folder: Path, questions: Path
) -> None:
    arguments = ["questions.jsonl", "--model", tiny_folder, "--max-new-tokens", 2, "--prompt-field", "question"]
    arguments += ["-o", "out.jsonl", "--principle-text"]
    assert lalign("generate", *arguments, "Know {{ domain }}.").status == 0
    assert lalign("generate", *arguments, "Know {{ domain }}.", "--resume").status == 0
    refused = lalign("generate", *arguments, "Love {{ domain }}.", "--resume")
    assert "principle: " in told(refused)


@pytest.mark.parametrize("command", ["generate", "sweep"])
@pytest.mark.parametrize(
    ("option", "value", "problem"),
    [
        ("--prompt-field", "query", "no field 'query'; the fields are qid, question, context, domain"),
        ("--id-field", "key", "no field 'key'; the fields are qid, question, context, domain"),
        ("--principle-text", "{{ tone }}", "'tone' is undefined; the fields are qid, question, context, domain"),
        ("--principle-text", "{{ [tone] }}", "'tone' is undefined; the fields are qid, question, context, domain"),
        ("--principle-text", "{{ domain | nope }}", "line 1: there is no filter 'nope'"),
    ],
)
def test_a_field_that_no_record_has_is_a_usage_error(
    lalign: Lalign, questions: Path, option: str, value: str, problem: str, command: str
) -> None:
    arguments: tuple[str, ...] = (command, "--model", "/nonexistent", "--principle", "principle.txt", option, value)
    arguments += () if option == "--prompt-field" else ("--prompt-field", "question")
    named = "principle" if option == "--principle-text" else option.removeprefix("--")
    assert told(lalign(*arguments, "questions.jsonl")) == f"--{named}: {problem}"
    assert told(lalign(*arguments, stdin=lines(*QUESTIONS))) == f"--{named}: {problem}"


def test_a_field_that_some_records_lack_is_theirs_to_miss(lalign: Lalign) -> None:
    finished = lalign.generate("--prompt-field", "q", stdin=lines({"q": "Hi"}, {"question": "Hi"}))
    assert finished.status == 1
    assert finished.records[1]["error"] == {
        "type": "missing_field",
        "message": "prompt_field: no field 'q'; the fields are question",
    }


@pytest.mark.parametrize(
    "arguments",
    [
        *((command, "--principle-text", "{{ a }}") for command in ("eval", "bench")),
        *((command, "--principle-text", "a", "--system", "text.txt") for command in ("eval", "bench")),
        *((command, "--principle-text", "a", "--contrast", "text.txt") for command in ("eval", "bench")),
    ],
)
def test_other_commands_fill_nothing(lalign: Lalign, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "text.txt").write_text("{{ a }}")
    (tmp_path / "in.jsonl").write_bytes(lines({"prompt": "Hi"}))
    arguments = (*arguments, "in.jsonl") if arguments[0] == "bench" else arguments
    assert "which records fill in generate and sweep alone" in told(lalign(*arguments))


class TestNoPrinciple:
    @pytest.mark.parametrize("command", ["generate", "sweep"])
    @pytest.mark.parametrize("piped", [True, False])
    def test_is_a_usage_error(self, lalign: Lalign, tmp_path: Path, piped: bool, command: str) -> None:
        data = lines({"prompt": "Hi"}, {"prompt": "Ho"})
        (tmp_path / "in.jsonl").write_bytes(data)
        source = [] if piped else ["in.jsonl"]
        finished = lalign(command, *source, "--model", "/nonexistent", stdin=data if piped else b"")
        name = "the first record of stdin" if piped else "any record of in.jsonl"
        expected = f"--principle: neither the job nor {name} gives one: --principle FILE or --principle-text TEXT"
        assert told(finished) == expected

    @pytest.mark.parametrize(
        ("arguments", "extra"), [(("--ratio", 0), {}), ((), {"ratio": 0}), ((), {"principle": "Be kind."})]
    )
    def test_is_none_where_a_record_can_be_answered(
        self, lalign: Lalign, tmp_path: Path, tiny_folder: Path, arguments: tuple[object, ...], extra: dict[str, Any]
    ) -> None:
        (tmp_path / "in.jsonl").write_bytes(lines({"prompt": "Hi"}, {"prompt": "Ho"} | extra))
        finished = lalign("generate", "in.jsonl", "--model", tiny_folder, "--max-new-tokens", 1, *arguments)
        assert "response" in finished.records[1]

    def test_looks_no_further_than_the_first_record_of_a_pipe(self, lalign: Lalign, tiny_folder: Path) -> None:
        with Pipe() as stdin, Pipe() as stdout, open(os.devnull, "wb") as stderr:
            arguments = ("generate", "--model", tiny_folder, "--max-new-tokens", 1)
            process = lalign.start(*arguments, stdin=stdin.reader, stdout=stdout.writer, stderr=stderr)
            for number in (1, 2):
                stdin.writer.write(b"\nnot json\n" * (number == 1) + lines({"prompt": "Hi", "principle": "Be kind."}))
                record = orjson.loads(stdout.reader.readline())
                if number == 1:
                    assert (record["line"], record["error"]["type"]) == (2, "invalid_json")
                    record = orjson.loads(stdout.reader.readline())
                assert (record["line"], "response" in record) == (2 + number, True)
            stdin.writer.close()
            assert lalign.wait(process) == 1  # for the line that is no JSON


def read_answer(line: bytes) -> tuple[Any, ...]:
    record = orjson.loads(line)
    return record["line"], record.get("response"), record.get("error")


class TestTables:
    @pytest.fixture
    def tables(self, tmp_path: Path) -> list[str]:
        with (tmp_path / "a.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["id", "prompt", "max_new_tokens"], ["c", "Hi\nthere", 2], ["d", " ", ""]])
        pyarrow.parquet.write_table(
            pyarrow.table({"id": ["p"], "prompt": ["Hi"], "ratio": [2.5]}), tmp_path / "b.parquet"
        )
        (tmp_path / "c.jsonl").write_bytes(lines({"prompt": "Ho"}))
        return ["a.csv", "b.parquet", "c.jsonl"]

    def test_are_answered_as_one_input(self, lalign: Lalign, tables: list[str]) -> None:
        finished = lalign.generate(*tables)
        assert [(record["id"], record["line"]) for record in finished.records] == [("c", 2), ("d", 4), ("p", 5), (6, 6)]
        assert finished.records[0]["usage"]["completion_tokens"] == 2
        assert finished.records[2]["alignment"]["ratio"] == 2.5
        assert "lalign: a.csv:4: prompt: must not be blank\n" in finished.err

    def test_a_pattern_may_name_them(self, lalign: Lalign, tables: list[str]) -> None:
        assert lalign.generate("[a-c].*", "--stats", "none").out == lalign.generate(*tables, "--stats", "none").out
        assert told(lalign.generate("*.tsv")) == "*.tsv: no file fits this pattern"

    def test_a_job_over_them_is_resumed(self, lalign: Lalign, tables: list[str], tmp_path: Path) -> None:
        whole = lalign.generate(*tables, "-o", "whole.jsonl")
        assert whole.status == 1
        assert lalign.generate(*tables, "-o", "out.jsonl", "--limit", 2).status == 1
        assert lalign.generate(*tables, "-o", "out.jsonl", "--resume").status == 1
        one, other = ((tmp_path / name).read_bytes().splitlines() for name in ("out.jsonl", "whole.jsonl"))
        assert [read_answer(line) for line in one] == [read_answer(line) for line in other]
        (tmp_path / "a.csv").write_text("id,prompt\nc,other\n")
        refused = lalign.generate(*tables, "-o", "out.jsonl", "--resume")
        assert "input" in refused.err
        assert refused.status == 1

    def test_none_of_them_is_written_to(self, lalign: Lalign, tables: list[str]) -> None:
        assert "is the input" in told(lalign.generate(*tables, "-o", "c.jsonl", "--overwrite"))


class TestArrays:
    """A JSON array, as AlpacaEval's and ShareGPT's files are: as the same objects in JSON Lines would be answered."""

    OBJECTS: tuple[dict[str, Any], ...] = (
        {"id": "a", "prompt": "Hi"},
        {"prompt": "Ho\nho", "n0": 12345678901234567890123},
        {},
        {"prompt": "He"},
    )

    @pytest.fixture
    def arguments(self, tmp_path: Path) -> tuple[str, ...]:
        (tmp_path / "in.json").write_text(json.dumps(self.OBJECTS, indent=2))
        (tmp_path / "in.jsonl").write_text("".join(json.dumps(one) + "\n" for one in self.OBJECTS))
        return ("--keep", "--stats", "none")

    def test_answers_are_those_of_json_lines(self, lalign: Lalign, arguments: tuple[str, ...]) -> None:
        for more in ((), ("--limit", 2), ("--shard", "2/2"), ("--limit", 3, "--shard", "1/2")):
            found = lalign.generate("in.json", *arguments, *more)
            assert found.out == lalign.generate("in.jsonl", *arguments, *more).out
            assert found.out
        assert b"12345678901234567890123" in lalign.generate("in.json", *arguments).out

    def test_a_job_is_resumed(self, lalign: Lalign, arguments: tuple[str, ...], tmp_path: Path) -> None:
        whole = lalign.generate("in.json", *arguments)
        assert lalign.generate("in.json", *arguments, "--limit", 1, "-o", "out.jsonl").status == 0
        assert lalign.generate("in.json", *arguments, "-o", "out.jsonl", "--resume").status == 1
        assert (tmp_path / "out.jsonl").read_bytes() == whole.out
        (tmp_path / "in.json").write_text(json.dumps([{"prompt": "Other"}, *self.OBJECTS[1:]]))
        refused = lalign.generate("in.json", *arguments, "-o", "out.jsonl", "--resume")
        assert "lines of the input are not those the output answers" in refused.err

    def test_what_is_wrong_names_the_element(self, lalign: Lalign, arguments: tuple[str, ...]) -> None:
        finished = lalign.generate("in.json", *arguments)
        assert finished.status == 1
        assert "lalign: in.json: element 3: needs one of: messages, prompt" in finished.err


def test_a_column_that_is_left_out_is_told_once(lalign: Lalign, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(",prompt\n0,Hi\n1,Ho\n")
    for command in (("generate",), ("generate", "--dry-run", 1), ("sweep", "--ratios", "0,1")):
        finished = lalign(*command, *lalign.tiny, "in.csv", "--quiet")
        assert finished.status == 0
        assert finished.err.count("lalign: in.csv: its first column, which has no name, is left out\n") == 1


@pytest.mark.parametrize("name", ["out.jsonl.gz", "out.parquet"])
def test_an_output_that_is_made_at_the_end_says_so_only_where_it_is_not(
    lalign: Lalign, tmp_path: Path, name: str
) -> None:
    (tmp_path / "in.jsonl").write_bytes(lines({"prompt": "Hi"}, {}))
    asked = ("in.jsonl", "-o", name, "--quiet")
    strict = lalign.generate(*asked, "--strict")
    assert (strict.status, f"{name} is made when the job is done" in strict.err) == (1, True)
    done = lalign.generate(*asked, "--resume")
    assert (done.status, "is made when" in done.err) == (1, False)
    assert (tmp_path / name).exists()


class TestPrefill:
    """`--prefill`, and conversations that end with the assistant: the response goes on, and the record says whence."""

    def answered(self, lalign: Lalign, *arguments: object, **asked: Any) -> dict[str, Any]:
        finished = lalign.generate("--ratio", 2, *arguments, stdin=lines(asked))
        assert finished.status == 0, finished.err
        return dict(finished.records[0])

    def test_is_no_part_of_the_response_and_of_the_record(self, lalign: Lalign) -> None:
        given = self.answered(lalign, "--prefill", "Well, ", prompt="Why?")
        turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Well, "}]
        assert given == self.answered(lalign, messages=turns)
        assert given["prefill"] == "Well, "
        bare = self.answered(lalign, prompt="Why?")
        assert "prefill" not in bare
        assert given["usage"]["prompt_tokens"] > bare["usage"]["prompt_tokens"]
        assert given["usage"]["principle_tokens"] == bare["usage"]["principle_tokens"]

    def test_the_model_goes_on_with_its_own_words_as_it_did(self, lalign: Lalign) -> None:
        whole = self.answered(lalign, "--max-new-tokens", 8, prompt="Why?")
        written, ids = whole["steps"]["tokens"], whole["steps"]["token_ids"]
        again = 0
        for place in range(1, 8):
            begun = "".join(written[:place])
            given = ("--prefill", begun, "--max-new-tokens", 8 - place)
            rest = self.answered(lalign, *given, prompt="Why?") if begun.strip() else whole
            # Where it is tokenised as it was written.
            if rest["usage"]["prompt_tokens"] == whole["usage"]["prompt_tokens"] + place:
                again += 1
                assert rest["steps"]["token_ids"] == ids[place:]
                assert begun + rest["response"] == whole["response"]
        assert again

    def test_stands_beside_an_openai_answer(self, lalign: Lalign) -> None:
        line = self.answered(lalign, "--prefill", "Well, ", "--output-format", "openai-batch", prompt="Why?")
        assert line["lalign"]["prefill"] == "Well, "
        content = line["response"]["body"]["choices"][0]["message"]["content"]
        assert content == self.answered(lalign, "--prefill", "Well, ", prompt="Why?")["response"]

    def test_is_shown_before_anything_is_answered(self, lalign: Lalign) -> None:
        finished = lalign.generate("--prefill", "Well, ", "--dry-run", 1, stdin=lines({"prompt": "Why?"}))
        assert finished.out.count(b"Well, ") == 2

    def test_is_shown_on_the_page_of_a_sweep(self, lalign: Lalign, tmp_path: Path) -> None:
        given = ("--ratios", "0,2", "--prefill", "Well, ", "--plot", "page.html")
        assert lalign("sweep", *lalign.tiny, *given, stdin=lines({"prompt": "Why?"})).status == 0
        assert "assistant: Well, " in str(page_data(tmp_path / "page.html")["prompts"])

    def test_a_blank_one_is_refused(self, lalign: Lalign) -> None:
        assert told(lalign.generate("--prefill", " ", stdin=lines({"prompt": "Hi"}))) == "--prefill: is empty"

    def test_is_part_of_what_is_judged_and_scored(self, lalign: Lalign, tmp_path: Path) -> None:
        turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Well, "}]
        for name, form in (("own", "jsonl"), ("openai", "openai-batch")):
            asked = ("--keep", "--output-format", form, "-o", f"{name}.jsonl")
            assert lalign.generate(*asked, stdin=lines({"id": "a", "messages": turns})).status == 0
        contestants = [read_contestant(tmp_path / f"{name}.jsonl", name) for name in ("own", "openai")]
        record = orjson.loads((tmp_path / "own.jsonl").read_bytes())
        for contestant in contestants:
            assert contestant.answers["a"].text == "Well, " + record["response"]
        assert contestants[0].answers["a"].prompt == (Message("user", "Why?"),)
        (answer,) = read_answers(tmp_path / "own.jsonl")
        assert kept_prompt(answer) == (Message("user", "Why?"),)


class TestLogprobs:
    """`--logprobs K`: in lalign's own lines, in OpenAI's, in every kind of job."""

    ASKED = lines({"custom_id": "a", "prompt": "Why?"}, {"custom_id": "b", "prompt": "How?"})

    def test_of_each_token_in_each_distribution(self, lalign: Lalign) -> None:
        bare = lalign.generate(stdin=self.ASKED).records
        records = lalign.generate("--logprobs", 3, stdin=self.ASKED).records
        for record, without in zip(records, bare, strict=True):
            found = record.pop("logprobs")
            assert record == without
            assert found.keys() == {"aligned", "base", "principle"}
            steps = record["steps"]
            for name, tokens in found.items():
                assert [one["token_id"] for one in tokens] == steps["token_ids"]
                assert [one["token"] for one in tokens] == steps["tokens"]
                assert all(1 <= len(one["top_logprobs"]) <= 3 for one in tokens)
                if name != "aligned":  # which is that of the support
                    assert [one["logprob"] for one in tokens] == pytest.approx(steps[f"logprob_{name}"], abs=1e-5)

    def test_without_a_support_the_aligned_one_is_that_of_the_statistics(self, lalign: Lalign) -> None:
        (record, _) = lalign.generate("--logprobs", 300, "--support", "none", stdin=self.ASKED).records
        aligned = record["logprobs"]["aligned"]
        assert [one["logprob"] for one in aligned] == pytest.approx(record["steps"]["logprob_aligned"], abs=1e-5)
        for one in aligned:
            assert sum(math.exp(other["logprob"]) for other in one["top_logprobs"]) == pytest.approx(1, abs=1e-4)

    @pytest.mark.parametrize("stats", ["steps", "summary", "none"])
    def test_in_openai_s_shape(self, lalign: Lalign, stats: str) -> None:
        arguments = ("--logprobs", 2, "--stats", stats)
        own = lalign.generate(*arguments, stdin=self.ASKED).records
        for record, line in zip(
            own, lalign.generate(*arguments, "--output-format", "openai-batch", stdin=self.ASKED).records, strict=True
        ):
            assert ("steps" in record, "summary" in record["alignment"]) == (stats == "steps", stats != "none")
            content = line["response"]["body"]["choices"][0]["logprobs"]["content"]
            for mine, theirs in zip(record["logprobs"]["aligned"], content, strict=True):
                assert (theirs["token"], theirs["logprob"]) == (mine["token"], mine["logprob"])
                tops = [(one["token"], one["logprob"]) for one in mine["top_logprobs"]]
                assert [(one["token"], one["logprob"]) for one in theirs["top_logprobs"]] == tops
            rest = {name: record["logprobs"][name] for name in ("base", "principle")}
            assert line["lalign"]["logprobs"] == rest

    def test_without_a_principle_there_is_none_of_it(self, lalign: Lalign, tiny_folder: Path) -> None:
        arguments = ("--model", tiny_folder, "--max-new-tokens", 2, "--ratio", 0, "--logprobs", 1)
        for record in lalign("generate", *arguments, stdin=self.ASKED).records:
            assert record["logprobs"].keys() == {"aligned", "base"}
            assert record["logprobs"]["aligned"] == record["logprobs"]["base"]

    def test_in_a_sweep_and_of_several_responses(self, lalign: Lalign) -> None:
        swept = lalign("sweep", *lalign.tiny, "--ratios", "0,2", "--logprobs", 1, stdin=self.ASKED).records
        sampled = lalign.generate("--logprobs", 1, "-n", 2, "--temperature", 1, stdin=self.ASKED).records
        assert len(swept) == len(sampled) == 4
        for record in [*swept, *sampled]:
            assert [one["token_id"] for one in record["logprobs"]["base"]] == record["steps"]["token_ids"]
        for record in lalign.generate("--ratio", 2, "--logprobs", 1, stdin=self.ASKED).records:
            (same,) = (one for one in swept if one["id"] == record["id"] and one["alignment"]["ratio"] == 2)
            assert same["logprobs"] == record["logprobs"]

    @pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz", "out.parquet"])
    def test_a_job_is_resumed_with_as_many(self, lalign: Lalign, tmp_path: Path, name: str) -> None:
        (tmp_path / "in.jsonl").write_bytes(self.ASKED)
        arguments = ("in.jsonl", "-o", name, "--logprobs", 2)
        assert lalign.generate(*arguments, "--limit", 1 if name.endswith("l") else 2).status == 0
        if name.endswith("parquet"):
            table = pyarrow.parquet.read_table(tmp_path / name).to_pylist()
            assert table[0]["logprobs"]["aligned"][0]["top_logprobs"][0]["logprob"] < 0
            return
        assert lalign.generate(*arguments, "--resume").status == 0
        refused = lalign.generate("in.jsonl", "-o", name, "--logprobs", 3, "--resume")
        assert "logprobs: 2 in the output, 3 now" in told(refused)

    def test_less_than_one_is_refused(self, lalign: Lalign) -> None:
        assert "at least 1" in told(lalign.generate("--logprobs", 0, stdin=self.ASKED))

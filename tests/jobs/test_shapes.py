"""Lines of OpenAI's batch results: what their tools read, and what a job needs to be resumed."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from conftest import Lalign
from openai.types.chat import ChatCompletion

from lalign.jobs.shapes import Marks, marks, shaped
from lalign.method.linear_alignment import Alignment
from lalign.results import Failure, Result, TokenLogprob, Usage

RESULT = Result("a", 3, "Hi", "stop", Usage(5, 7, 2), Alignment(), input={"prompt": "x"})
FAILURE = Failure(7, 4, "empty_prompt", "prompt: must not be blank")
OF_POINT = Failure("b", 5, "not_finite", "the logits", {"ratio": 1.0})
BATCH: Any = ("--output-format", "openai-batch")


def line(outcome: Result | Failure) -> Any:
    return orjson.loads(shaped(outcome, "openai-batch", "tiny"))


def test_a_response_stands_where_tools_look_for_it() -> None:
    found = line(RESULT)
    body = found["response"]["body"]
    assert (found["custom_id"], found["response"]["status_code"], found["error"]) == ("a", 200, None)
    assert body["choices"][0]["message"] == {"role": "assistant", "content": "Hi"}
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"] == {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    assert body["model"] == "tiny"
    assert found["lalign"].keys() == {"line", "usage", "alignment", "input"}


def test_logprobs_stand_where_tools_look_for_them() -> None:
    taken = TokenLogprob(9, "\ufffd", b"\xc3", -0.5, (TokenLogprob(9, "\ufffd", b"\xc3", -0.5),))
    never = replace(taken, logprob=-math.inf, likeliest=())
    found = line(replace(RESULT, logprobs={"aligned": (taken,), "base": (never,), "principle": (taken,)}))
    (content,) = found["response"]["body"]["choices"][0]["logprobs"]["content"]
    one = {"token": "\ufffd", "logprob": -0.5, "bytes": [0xC3]}
    assert content == {**one, "top_logprobs": [one]}
    assert found["lalign"]["logprobs"].keys() == {"base", "principle"}
    assert found["lalign"]["logprobs"]["base"] == [{"token": "\ufffd", "token_id": 9, "logprob": None}]


@pytest.mark.parametrize("logprobs", [None, {"aligned": (TokenLogprob(9, "a", b"a", -0.5, ()),)}])
def test_the_body_is_a_chat_completion_of_openai_s_own_package(logprobs: Any) -> None:
    body = line(replace(RESULT, logprobs=logprobs))["response"]["body"]
    read = ChatCompletion.model_validate(body, strict=True)
    assert read.choices[0].message.content == "Hi"
    assert read.created == 0
    assert read.model_dump(exclude_unset=True) == body


def test_an_error_has_a_code_and_an_id_of_text() -> None:
    found = line(FAILURE)
    assert (found["custom_id"], found["response"]) == ("7", None)
    assert found["error"] == {"code": "empty_prompt", "message": "prompt: must not be blank"}


@pytest.mark.parametrize(
    ("outcome", "wanted"),
    [(RESULT, Marks(3, False, True)), (FAILURE, Marks(4, True, False)), (OF_POINT, Marks(5, True, True))],
)
@pytest.mark.parametrize("form", ["jsonl", "openai-batch"])
def test_both_shapes_say_the_same_to_who_resumes(outcome: Result | Failure, wanted: Marks, form: Any) -> None:
    assert marks(orjson.loads(shaped(outcome, form, "tiny"))) == wanted


@pytest.mark.parametrize("record", [None, [], 3, {}, {"lalign": 3}, {"lalign": {}}])
def test_what_is_no_record_has_no_line(record: Any) -> None:
    assert marks(record).line is None


class TestCommand:
    def test_a_job_is_resumed_and_its_failures_retried(self, lalign: Lalign, tmp_path: Path) -> None:
        prompts = [{"custom_id": f"n{number}", "prompt": f"{number}?"} for number in range(1, 5)]
        good = b"".join(orjson.dumps(prompt) + b"\n" for prompt in prompts)
        bad = good.replace(b'"2?"', b'" "')
        (tmp_path / "in.jsonl").write_bytes(bad)
        arguments: Any = ("in.jsonl", "-o", "out.jsonl", *BATCH)
        assert lalign.generate(*arguments, "--limit", 3).status == 1
        assert lalign.generate(*arguments, "--resume").status == 1
        (tmp_path / "in.jsonl").write_bytes(good)
        assert lalign.generate(*arguments, "--resume", "--retry-errors").status == 0
        records = [orjson.loads(line) for line in (tmp_path / "out.jsonl").read_bytes().splitlines()]
        assert [record["custom_id"] for record in records] == ["n1", "n2", "n3", "n4"]
        texts = [record["response"]["body"]["choices"][0]["message"]["content"] for record in records]
        assert texts == [record["response"] for record in lalign.generate("in.jsonl").records]

    def test_another_shape_is_not_resumed(self, lalign: Lalign, tmp_path: Path) -> None:
        (tmp_path / "in.jsonl").write_bytes(b'{"prompt": "Hi"}\n')
        assert lalign.generate("in.jsonl", "-o", "out.jsonl").status == 0
        refused = lalign.generate("in.jsonl", "-o", "out.jsonl", "--resume", *BATCH)
        assert (refused.status, "output_format: not set in the output" in refused.err) == (2, True)

    @pytest.mark.parametrize("words", [("sweep",), ("generate", "-n", 2, "--temperature", 1)])
    def test_it_holds_one_response_of_a_record(self, lalign: Lalign, words: tuple[Any, ...]) -> None:
        refused = lalign(*words, "--principle", "principle.txt", *BATCH, stdin=b'{"prompt": "Hi"}\n')
        assert refused.status == 2
        assert "--output-format: openai-batch holds one response of a record" in refused.err

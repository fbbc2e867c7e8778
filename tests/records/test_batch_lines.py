"""Lines of batch results: which they are, whose id they bear, and what lalign's own say in its own shape."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from lalign.jobs.shapes import shaped
from lalign.method.linear_alignment import Alignment
from lalign.records.batch_lines import id_fields, is_batch_line, unpacked
from lalign.results import Failure, Result, Usage, to_line

RESULT = Result(
    7, 3, "Hi", "stop", Usage(1, 2, 3), Alignment(), summary={"a": 1.0}, input={"q": "Hi?"}, prefill="Well, "
)
FAILURE = Failure(7, 3, "missing_prompt", "no")


@pytest.mark.parametrize("outcome", [RESULT, FAILURE])
def test_a_line_of_lalign_s_own_is_what_it_would_have_written(outcome: Result | Failure) -> None:
    plain = orjson.loads(to_line(outcome))
    found = unpacked(orjson.loads(shaped(outcome, "openai-batch", "tiny")))
    if isinstance(outcome, Failure):
        assert (found["id"], found["line"], found["response"]) == ("7", 3, None)
        assert found["error"] == {"code": "missing_prompt", "message": "no"}
        return
    assert found["error"] is None
    assert {key: found.get(key) for key in plain} == plain | {"id": "7", "finish_reason": None}


def test_what_was_added_stays() -> None:
    line = orjson.loads(shaped(RESULT, "openai-batch", "tiny")) | {"reward": 1.5}
    assert unpacked(line)["reward"] == 1.5


@pytest.mark.parametrize(
    ("fields", "is_one"),
    [
        ({"id": "batch_req_1", "custom_id": "a", "response": {"body": {}}, "error": None}, True),
        ({"id": "batch_req_1", "custom_id": "a", "response": None, "error": {"message": "no"}}, True),
        ({"id": 1, "custom_id": "a", "response": "Hi"}, False),
        ({"custom_id": "a", "body": {}}, False),
        ({"id": 1, "response": {}}, False),
    ],
)
def test_are_told_by_their_id_and_response(fields: dict[str, Any], is_one: bool) -> None:
    assert is_batch_line(fields) == is_one
    assert id_fields(fields)[0] == ("custom_id" if is_one else "id")
    assert unpacked(fields) is fields

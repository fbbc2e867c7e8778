"""The shapes of a line of output: lalign's own, and that of OpenAI's batch results.

A line of the latter has what tools read of such results (`custom_id`, `response.status_code`, `response.body`, `error`)
and, under `lalign`, all else that lalign's own would hold, `line` among it, by which a job is resumed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import orjson

from lalign.results import Failure, Result, TokenLogprob, to_line, to_record

OutputFormat = Literal["jsonl", "openai-batch"]
# Keys of lalign's own that an OpenAI line has in another place.
_ELSEWHERE = ("id", "response", "finish_reason", "error")

# OpenAI's tools want a time of each answer. A job that is resumed gives the bytes of one that is not, so it is none.
_CREATED = 0
# What OpenAI writes for a token without a log-probability.
_UNLIKELY = -9999.0


class Marks(NamedTuple):
    """What a job must know of a line of its output again: `line` of the input, and what kind of record it is.

    failed: whether it is an error; of_point: False for the error of a whole line.
    """

    line: Any
    failed: bool
    of_point: bool


def marks(record: Any) -> Marks:
    """Those of a line of either shape; `line` is None where there is none."""
    if not isinstance(record, dict):
        return Marks(None, False, False)
    own = record.get("lalign", record)
    own = own if isinstance(own, dict) else {}
    failed = record.get("error") is not None
    return Marks(own.get("line"), failed, not failed or "alignment" in own)


def shaped(outcome: Result | Failure, form: OutputFormat, model: str, more: Mapping[str, Any] | None = None) -> bytes:
    """One JSON line with its newline, UTF-8. `model` is the name that OpenAI's shape gives, `more` are further keys."""
    if form == "jsonl":
        return to_line(outcome, more)
    own = {name: value for name, value in to_record(outcome, more).items() if name not in _ELSEWHERE}
    if "logprobs" in own:  # those of the answer stand in it
        own["logprobs"] = {name: found for name, found in own["logprobs"].items() if name != "aligned"}
    line = {
        "id": f"batch_req_{outcome.line}",
        "custom_id": str(outcome.id),
        "response": None if isinstance(outcome, Failure) else _response(outcome, model),
        "error": {"code": outcome.type, "message": outcome.message} if isinstance(outcome, Failure) else None,
        "lalign": own,
    }
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY)


def _logprobs(tokens: Iterable[TokenLogprob]) -> Mapping[str, Any]:
    content = [{**_token(one), "top_logprobs": [_token(other) for other in one.likeliest]} for one in tokens]
    return {"content": content, "refusal": None}


def _token(one: TokenLogprob) -> dict[str, Any]:
    return {"token": one.text, "logprob": max(one.logprob, _UNLIKELY), "bytes": list(one.bytes)}


def _response(result: Result, model: str) -> Mapping[str, Any]:
    usage = result.usage
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": result.response},
        "logprobs": None if result.logprobs is None else _logprobs(result.logprobs["aligned"]),
        "finish_reason": result.finish_reason,
    }
    return {
        "status_code": 200,
        "request_id": f"req_{result.line}",
        "body": {
            "id": f"chatcmpl-{result.line}",
            "object": "chat.completion",
            "created": _CREATED,
            "model": model,
            "choices": [choice],
            "usage": {
                "prompt_tokens": usage.prompt_tokens,
                "completion_tokens": usage.completion_tokens,
                "total_tokens": usage.prompt_tokens + usage.completion_tokens,
            },
        },
    }

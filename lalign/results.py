"""What a run gives back: one `Result` or `Failure` a record and point, and how it is written (design section 4)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from lalign.method.recipe import Recipe
from lalign.options import Placement
from lalign.text import json_number

FinishReason = Literal["stop", "length"]
RecordId = str | int | float


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts: of the base prompt, of what the principle adds to it, and of the response with its stop token."""

    prompt_tokens: int
    principle_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token and its log-probability in nats, -inf where a distribution does not have it.

    `bytes` are those that it stands for, which may be part of a character that `text` cannot show.
    `likeliest` are the likeliest tokens in its place, where this is a token that was taken.
    """

    id: int
    text: str
    bytes: bytes
    logprob: float
    likeliest: tuple[TokenLogprob, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        logprob = self.logprob if math.isfinite(self.logprob) else None
        shown: dict[str, Any] = {"token": self.text, "token_id": self.id, "logprob": logprob}
        return {**shown, "top_logprobs": [one.to_dict() for one in self.likeliest]} if self.likeliest else shown


@dataclass(frozen=True, slots=True)
class Result:
    """A response and how it was come by.

    `placement` says where in the prompt the principle stood.
    `prefill` is what the response goes on from, and no part of it; None where it begins anew.
    `token_ids` are those of the response, its stop token too; in JSON they stand under `steps`.
    `summary` and `steps` hold the statistics of design section 3 in nats; either is None where not asked for.
    `steps` has one array per statistic, one entry per generated token: numpy arrays, and `tokens` a list of strings.
    `logprobs` has the tokens of the response with the likeliest in their place, by the names of
    `method.aligned.DISTRIBUTIONS`; None where not asked for.
    `input` is the record as read, with `--keep`.
    `sample` counts the responses of one record from 0, where several are asked for.
    """

    id: RecordId
    line: int
    response: str
    finish_reason: FinishReason
    usage: Usage
    alignment: Recipe
    token_ids: tuple[int, ...] = ()
    summary: dict[str, float] | None = None
    steps: dict[str, Any] | None = None
    input: Any = None
    placement: Placement = "joined"
    sample: int | None = None
    prefill: str | None = None
    logprobs: dict[str, tuple[TokenLogprob, ...]] | None = None

    def to_dict(self) -> dict[str, Any]:
        align = {**self.alignment.to_dict(), "placement": self.placement}
        if self.summary is not None:
            align["summary"] = self.summary
        record: dict[str, Any] = {
            **_named(self),
            **({} if self.prefill is None else {"prefill": self.prefill}),
            "response": self.response,
            "finish_reason": self.finish_reason,
            "usage": {
                "prompt_tokens": self.usage.prompt_tokens,
                "principle_tokens": self.usage.principle_tokens,
                "completion_tokens": self.usage.completion_tokens,
            },
            "alignment": align,
        }
        if self.steps is not None:
            record["steps"] = self.steps
        if self.logprobs is not None:
            record["logprobs"] = {name: [one.to_dict() for one in found] for name, found in self.logprobs.items()}
        if self.input is not None:
            record["input"] = self.input
        return record


@dataclass(frozen=True, slots=True)
class Failure:
    """A line that could not be answered, in the place its answer would have had.

    `type` is a short machine-readable name (`invalid_json`, `missing_prompt`, `invalid_option`, ...); `message`
    one clear sentence naming the field. `point` holds the recipe, the ratio and p where one response of a record
    failed, and `sample` which of several at one point that is.
    """

    id: RecordId
    line: int
    type: str
    message: str
    point: dict[str, str | float] | None = field(default=None)
    sample: int | None = None

    def to_dict(self) -> dict[str, Any]:
        record = _named(self)
        if self.point is not None:
            record["alignment"] = {name: json_number(value) for name, value in self.point.items()}
        record["error"] = {"type": self.type, "message": self.message}
        return record


def _named(outcome: Result | Failure) -> dict[str, Any]:
    named: dict[str, Any] = {"id": outcome.id, "line": outcome.line}
    return named if outcome.sample is None else {**named, "sample": outcome.sample}


def whole_answer(record: Mapping[str, Any], response: str) -> str:
    """The response of a record that was written, behind what it goes on from, which is no part of it there."""
    prefill = record.get("prefill")
    return prefill + response if isinstance(prefill, str) else response


def to_record(outcome: Result | Failure, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The keys of a line; `more` go into that of a result."""
    return {**outcome.to_dict(), **((more or {}) if isinstance(outcome, Result) else {})}


def to_line(outcome: Result | Failure, more: Mapping[str, Any] | None = None) -> bytes:
    """One JSON line with its newline, UTF-8, of the keys that `to_record` gives."""
    return orjson.dumps(to_record(outcome, more), option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY)

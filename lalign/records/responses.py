"""From a sequence that has ended to its result: text, usage, statistics."""

from __future__ import annotations

from typing import Any

import numpy as np

from lalign.engine.interface import Ended
from lalign.method.statistics import columns, summarise
from lalign.options import Prompting, Statistics
from lalign.records.conversations import prefill_of, prefilled
from lalign.records.detokenizer import Detokenizer
from lalign.records.parsing import Record
from lalign.results import Failure, Result, Usage

FAILURES = {
    "not_finite": "logits are not finite, those of the model or of the step",
    "out_of_memory": "out of memory even with this record alone",
}


class ResponseWriter:
    """Makes results of what the engine has generated.

    Args:
        tokenizer: the model's.
        stop_ids: token ids that end a response and are no part of its text.
        statistics: which statistics results carry.
        prompting: how prompts were written, for results to say.
    """

    def __init__(
        self, tokenizer: Any, stop_ids: frozenset[int], statistics: Statistics, prompting: Prompting | None = None
    ) -> None:
        self.detokenizer = Detokenizer(tokenizer, stop_ids)
        self.stops = self.detokenizer.stops
        self.statistics = statistics
        self.prompting = prompting or Prompting()

    def outcome(self, ended: Ended, record: Record) -> Result | Failure:
        """The result of a sequence, or the failure it ended with."""
        sequence, reason = ended.sequence, ended.reason
        alignment = sequence.point.alignment
        if reason in FAILURES:
            message = f"{FAILURES[reason]} (token {len(sequence.tokens)} of the response)"
            return Failure(record.id, record.line, reason, message, alignment.point, sequence.point.sample)
        request = sequence.request
        base = len(request.base)
        table = columns(sequence.steps, alignment.columns) if self.statistics != "none" else None
        return Result(
            id=record.id,
            line=record.line,
            response=self.detokenizer.text(sequence.tokens, sequence.point.sampling.stop),
            finish_reason="stop" if reason == "stop" else "length",
            usage=Usage(base, sum(len(ids) - base for ids in request.principled), len(sequence.tokens)),
            alignment=alignment,
            placement=self.prompting.placement,
            token_ids=tuple(sequence.tokens),
            summary=None if table is None else summarise(table),
            steps=self._steps(sequence.tokens, table) if self.statistics == "steps" and table is not None else None,
            input=record.raw,
            sample=sequence.point.sample,
            prefill=prefill_of(prefilled(record.messages, self.prompting.prefill)),
        )

    def _steps(self, tokens: list[int], table: dict[str, Any]) -> dict[str, Any]:
        return {
            "token_ids": np.asarray(tokens, dtype=np.int64),
            "tokens": [self.detokenizer.token_text(token) for token in tokens],
            **table,
        }

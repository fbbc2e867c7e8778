"""From a sequence that has ended to its result: text, usage, statistics."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lalign.engine.interface import Ended, Sequence
from lalign.method.aligned import DISTRIBUTIONS
from lalign.method.statistics import columns, summarise
from lalign.options import Prompting, Statistics
from lalign.records.conversations import prefill_of, prefilled
from lalign.records.detokenizer import Detokenizer
from lalign.records.parsing import Record
from lalign.results import Failure, Result, TokenLogprob, Usage

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
        rows = np.asarray(sequence.steps, dtype=np.float32) if self.statistics != "none" else None
        known = len(alignment.columns)
        table = None if rows is None else columns(rows[:, :known], alignment.columns)
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
            logprobs=None if rows is None or not sequence.point.logprobs else self._logprobs(sequence, rows[:, known:]),
        )

    def _logprobs(self, sequence: Sequence, rows: NDArray[np.float32]) -> dict[str, tuple[TokenLogprob, ...]]:
        """What `method.likeliest` has found, `[tokens, its columns]`; without a principle there is none of it."""
        asked = DISTRIBUTIONS if sequence.request.principled else DISTRIBUTIONS[:-1]
        parts = np.split(rows, len(DISTRIBUTIONS), axis=1)
        return {
            name: tuple(self._likeliest(token, row) for token, row in zip(sequence.tokens, part, strict=True))
            for name, part in zip(asked, parts, strict=False)
        }

    def _likeliest(self, token: int, row: NDArray[np.float32]) -> TokenLogprob:
        ids, logprobs = np.split(row[1:], 2)
        there = logprobs > -np.inf
        found = (self._token(int(one), logprob) for one, logprob in zip(ids[there], logprobs[there], strict=True))
        return replace(self._token(token, row[0]), likeliest=tuple(found))

    def _token(self, token: int, logprob: np.float32) -> TokenLogprob:
        of = self.detokenizer
        # As short as float32 is, where float would write 17 digits.
        return TokenLogprob(token, of.token_text(token), of.token_bytes(token), float(str(logprob)))

    def _steps(self, tokens: list[int], table: dict[str, Any]) -> dict[str, Any]:
        return {
            "token_ids": np.asarray(tokens, dtype=np.int64),
            "tokens": [self.detokenizer.token_text(token) for token in tokens],
            **table,
        }

"""From a sequence that has ended to its result: text, usage, statistics."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from lalign.engine.interface import Ended
from lalign.method.statistics import columns, summarise
from lalign.options import Statistics
from lalign.records.parsing import Record
from lalign.results import Failure, Result, Usage

FAILURES = {
    "not_finite": "the model's logits are not finite",
    "out_of_memory": "out of memory even with this record alone",
}


class ResponseWriter:
    """Decodes what the engine has generated.

    Args:
        tokenizer: the model's.
        stop_ids: token ids that end a response and are no part of its text.
        statistics: which statistics results carry.
    """

    def __init__(self, tokenizer: Any, stop_ids: frozenset[int], statistics: Statistics) -> None:
        self.tokenizer = tokenizer
        self.stop_ids = stop_ids
        self.statistics = statistics
        self._before = tokenizer("a", add_special_tokens=False)["input_ids"][-1:]
        self._before_text: str = tokenizer.decode(self._before, clean_up_tokenization_spaces=False)
        self.token_text = lru_cache(maxsize=1 << 16)(self._token_text)

    def outcome(self, ended: Ended, record: Record) -> Result | Failure:
        """The result of a sequence, or the failure it ended with."""
        sequence, reason = ended.sequence, ended.reason
        alignment = sequence.point.alignment
        if reason in FAILURES:
            message = f"{FAILURES[reason]} (token {len(sequence.tokens)} of the response)"
            return Failure(record.id, record.line, reason, message, alignment.point)
        request = sequence.request
        base = len(request.base)
        table = columns(sequence.steps, alignment.columns) if self.statistics != "none" else None
        return Result(
            id=record.id,
            line=record.line,
            response=self.text(sequence.tokens, sequence.point.sampling.stop),
            finish_reason="stop" if reason == "stop" else "length",
            usage=Usage(base, sum(len(ids) - base for ids in request.principled), len(sequence.tokens)),
            alignment=alignment,
            token_ids=tuple(sequence.tokens),
            summary=None if table is None else summarise(table),
            steps=self._steps(sequence.tokens, table) if self.statistics == "steps" and table is not None else None,
            input=record.raw,
        )

    def text(self, tokens: list[int], stop: tuple[str, ...] = ()) -> str:
        """The response's text: no stop token, no special tokens, and cut where a stop string begins."""
        kept = tokens[:-1] if tokens and tokens[-1] in self.stop_ids else tokens
        text = self._decode(kept)
        ends = [place for string in stop if (place := text.find(string)) >= 0]
        return text[: min(ends)] if ends else text

    def stops(self, strings: tuple[str, ...]) -> Callable[[list[int]], bool]:
        """A test of whether one of the strings stands in the text of the tokens so far."""
        # Each token holds at least a byte of text, but for special tokens: a tail this long shows any new ending.
        reach = max(len(string.encode()) for string in strings) + 8

        def stops(tokens: list[int]) -> bool:
            tail = self._decode(tokens[-reach:])
            return any(string in tail for string in strings) and any(string in self.text(tokens) for string in strings)

        return stops

    def _steps(self, tokens: list[int], table: dict[str, Any]) -> dict[str, Any]:
        return {
            "token_ids": np.asarray(tokens, dtype=np.int64),
            "tokens": [self.token_text(token) for token in tokens],
            **table,
        }

    def _decode(self, tokens: list[int]) -> str:
        text: str = self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def _token_text(self, token: int) -> str:
        # Behind another token, since many tokenizers drop the space before the first.
        text: str = self.tokenizer.decode([*self._before, token], clean_up_tokenization_spaces=False)
        return text.removeprefix(self._before_text)

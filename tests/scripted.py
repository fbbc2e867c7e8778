"""A backend without a model: what it says next is looked up in a table. The plainest engine for jobs to run on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from lalign.engine.batch import Batch, Group
from lalign.engine.decoding import choose
from lalign.engine.interface import Counters, Ended, Limits, Request, Sequence, Source, Weights
from lalign.options import Execution


class ScriptedBackend:
    """Logits depend on a row's length and last token alone; requests are run one at a time, all points apart."""

    name = "scripted"
    weights = Weights()

    def __init__(self, tokenizer: Any, context_length: int | None = 512) -> None:
        self.tokenizer = tokenizer
        self.stop_ids = frozenset({tokenizer.eos_token_id})
        self.limits = Limits(context_length)
        self.counters = Counters()
        self._table = torch.randn(7, len(tokenizer), len(tokenizer), generator=torch.Generator().manual_seed(0)) * 3

    def fingerprint(self) -> str:
        return "scripted"

    def run(self, source: Source, execution: Execution) -> Iterator[list[Ended]]:
        self.counters = Counters()
        while (requests := source(1, True)) is not None:
            yield []
            for request in requests:
                self.counters.prompts += 1
                for point in request.points:
                    yield [self._answer(Sequence(request, point), execution)]

    def first_logits(self, requests: Iterable[Request]) -> Iterator[tuple[Request, NDArray[np.float32]]]:
        for request in requests:
            yield request, self._logits(request, []).numpy()

    def _answer(self, sequence: Sequence, execution: Execution) -> Ended:
        request = sequence.request
        reason = None
        while reason is None:
            batch = Batch([Group(list(range(1 + len(request.principled))), [sequence])], torch.device("cpu"))
            step = choose(self._logits(request, sequence.tokens), batch, execution.statistics != "none")
            sequence.tokens.append(int(step.tokens))
            if step.statistics is not None:
                sequence.steps.append(step.statistics[0].numpy())
            self.counters.tokens += 1
            reason = sequence.end_reason(self.stop_ids, bool(step.sound))
        return Ended(sequence, reason)

    def _logits(self, request: Request, tokens: list[int]) -> Tensor:
        """`[rows, vocab]` of the twins behind `tokens`."""
        rows = [ids + tokens for ids in (request.base, *request.principled)]
        return torch.stack([self._table[len(row) % 7, row[-1]] for row in rows])


class GivenBackend(ScriptedBackend):
    """Each response is one token, told by the prompt's length: next to nothing, so that the rest of a job is seen."""

    def _answer(self, sequence: Sequence, execution: Execution) -> Ended:
        sequence.tokens.append(len(sequence.request.base) % 256)
        return Ended(sequence, "length")


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Its tokens are bytes."""
    vocabulary = {character: number for number, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)

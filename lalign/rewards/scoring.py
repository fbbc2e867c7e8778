"""`lalign score`: a reward for every answer, in the order of the file, batched by length."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import orjson

from lalign.errors import first_line
from lalign.results import whole_answer
from lalign.rewards.answers import Answer
from lalign.rewards.model import RewardModel
from lalign.rewards.prompts import Conversation

# Answers that are sorted by length at a time.
WINDOW = 512


@dataclass(frozen=True, slots=True)
class Scored:
    """An answer with its reward; None where it has none, and `problem` says why, which is None for an error record."""

    answer: Answer
    reward: float | None = None
    problem: str | None = None

    def to_line(self) -> bytes:
        """The record as it was, to the byte, with its reward at the end; an error record as it was."""
        if self.reward is None and self.problem is None:
            return self.answer.raw + b"\n"
        more: dict[str, object] = {"reward": self.reward}
        if self.problem is not None:
            more["reward_error"] = self.problem
        return self.answer.raw[:-1].rstrip() + b"," + orjson.dumps(more)[1:] + b"\n"


def score(answers: Iterable[tuple[Answer, Conversation]], model: RewardModel, batch_size: int = 16) -> Iterator[Scored]:
    """Score answers, each with its conversation. Errors pass through.

    Raises `InputError` for an answer that has a reward already.
    """
    waiting = iter(answers)
    while window := list(islice(waiting, WINDOW)):
        rows: dict[int, list[int]] = {}
        done: dict[int, Scored] = {}
        for index, (answer, messages) in enumerate(window):
            if "reward" in answer.record:
                raise answer.error("reward: there is one already")
            if answer.failed:
                done[index] = Scored(answer)
                continue
            row = _row(model, answer, messages)
            if isinstance(row, str):
                done[index] = Scored(answer, problem=row)
            else:
                rows[index] = row
        by_length = sorted(rows, key=lambda index: len(rows[index]))
        for start in range(0, len(by_length), batch_size):
            indices = by_length[start : start + batch_size]
            for index, reward in zip(indices, model.rewards([rows[index] for index in indices]), strict=True):
                sound = math.isfinite(reward)
                done[index] = Scored(
                    window[index][0], reward if sound else None, None if sound else "the reward is not finite"
                )
        yield from (done[index] for index in range(len(window)))


def _row(model: RewardModel, answer: Answer, messages: Conversation) -> list[int] | str:
    """The token ids of an answer in its conversation, or why it cannot be scored."""
    try:
        row = model.token_ids(messages, whole_answer(answer.record, answer.record["response"]))
    except Exception as error:  # a chat template may raise anything at a conversation that it does not allow
        return first_line(error)
    if model.context_length is not None and len(row) > model.context_length:
        return f"{len(row)} tokens are more than the reward model's context of {model.context_length}"
    return row

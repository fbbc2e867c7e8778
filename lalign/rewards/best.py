"""`lalign best`: of all answers with an id, the one of the highest reward."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from lalign.errors import InputError
from lalign.rewards.answers import Answer, read_answers


def reward_of(answer: Answer) -> float | None:
    """The reward of an answer, None where it could not be scored. Raises `InputError` where it was not."""
    if "reward" not in answer.record:
        raise answer.error("reward: missing; lalign score adds it")
    reward = answer.record["reward"]
    if reward is None:
        return None
    if isinstance(reward, bool) or not isinstance(reward, (int, float)) or not math.isfinite(reward):
        raise answer.error("reward: must be a finite number or null")
    return float(reward)


def read_rewards(files: Iterable[Path]) -> dict[str, list[float]]:
    """The rewards of each file, by its name without the ending, or by its path where several are called so.

    Raises `InputError` where a file cannot be read, was not scored or holds no rewards.
    """
    found: dict[str, list[float]] = {}
    for file in files:
        source = None if str(file) == "-" else file
        answers = (answer for answer in read_answers(source) if not answer.failed)
        rewards = [reward for answer in answers if (reward := reward_of(answer)) is not None]
        if not rewards:
            raise InputError(f"{file}: holds no rewards")
        found[file.stem if file.stem not in found else str(file)] = rewards
    return found


def best(answers: Iterable[Answer]) -> list[Answer]:
    """The best answer of each id, in the order in which ids come; of equals the first.

    An answer without a reward comes after all that have one, an error after those. Raises `InputError` where an
    answer was not scored, or where one id belongs to several lines of the input, so that what answers different
    prompts would be compared.
    """
    found: dict[object, tuple[tuple[int, float], Answer]] = {}
    for answer in answers:
        rank = _rank(answer)
        standing = found.get(answer.id)
        if standing is not None and standing[1].line != answer.line:
            raise answer.error(f"id: {answer.id!r} is that of lines {standing[1].line} and {answer.line} of the input")
        if standing is None or rank > standing[0]:
            found[answer.id] = rank, answer
    return [answer for _, answer in found.values()]


def _rank(answer: Answer) -> tuple[int, float]:
    if answer.failed:
        return 0, 0.0
    reward = reward_of(answer)
    return (1, 0.0) if reward is None else (2, reward)

"""Choosing whole answers: the one that the aligned distribution gives the least perplexity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from lalign.engine.forced import Forced, token_likelihoods
from lalign.engine.interface import Backend, Point, Request
from lalign.errors import LalignError
from lalign.evaluation.preferences import Item
from lalign.method.recipe import Recipe
from lalign.options import Sampling
from lalign.records.encoding import unused_characters
from lalign.records.parsing import Message
from lalign.records.prompts import PromptTemplate


def likeliest(
    backend: Backend, template: PromptTemplate, items: Sequence[Item], alignments: Sequence[Recipe]
) -> Iterator[tuple[Item, tuple[int, ...]]]:
    """Each item with the place of its likeliest answer at each point, as they are ready.

    The question alone is the user's turn, and each answer in turn the response, read and not generated: what is
    compared is the mean log-probability of an answer's tokens, each given those before it, under the aligned
    distribution (the support aside). Of equals the first is taken.

    Raises `LalignError` for an item longer than the model's context.
    """
    template.check()
    points = tuple(Point(alignment, Sampling(), place=place) for place, alignment in enumerate(alignments))
    texts = (text for number, item in enumerate(items) for text in _texts(backend, template, number, item, points))
    means: dict[int, dict[int, list[float]]] = {}
    for text, likelihoods in token_likelihoods(backend, texts):
        number, place = text.request.key
        found = means.setdefault(number, {})
        found[place] = [float(likelihood.logprobs.mean(dtype=np.float64)) for likelihood in likelihoods]
        if len(found) == len(items[number].order):
            del means[number]
            yield items[number], tuple(_best(found, point) for point in range(len(points)))


def _best(means: dict[int, list[float]], point: int) -> int:
    return max(sorted(means), key=lambda place: means[place][point])


def _texts(
    backend: Backend, template: PromptTemplate, number: int, item: Item, points: tuple[Point, ...]
) -> Iterator[Forced]:
    """Both twins of an item with each of its answers, in the order shown."""
    turn = [Message("user", item.question.question)]
    base, principled = (template.token_ids(turn, text) for text in (None, item.principle))
    longest = backend.limits.context_length
    for place, index in enumerate(item.order):
        request = Request((number, place), base, (principled,), (1.0,), points)
        tokens = answer_tokens(template, item.question.answers[index])
        if longest is not None and request.length + len(tokens) > longest:
            raise LalignError(
                f"the question of line {item.question.line}: {request.length + len(tokens)} tokens with the principle "
                f"and an answer are more than the model's context of {longest}"
            )
        yield Forced(request, tokens)


def answer_tokens(template: PromptTemplate, answer: str) -> list[int]:
    """An answer as the response: behind a line feed where there is no chat template, a space behind a prefill."""
    prefill = template.prompting.prefill
    lead = "\n" if not template.is_chat else " " if prefill and not prefill[-1].isspace() else ""
    (mark,) = unused_characters([answer], 1)
    broken = template.encoder.broken(lead + answer, mark)
    return template.encoder.encode(broken, mark, add_special_tokens=False)

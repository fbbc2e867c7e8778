"""Responses that are given: how likely each of their tokens is under the aligned distribution (design section 9).

Nothing is drawn. An engine that can run a whole text in one pass gives the logits of all its tokens at once
(`GivesLogits`); with any other, each token is looked at where a prompt that ends before it would go on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lalign.engine.interface import Backend, Request
from lalign.errors import ModelError
from lalign.method.aligned import Aligned
from lalign.method.gauge import peaked
from lalign.method.recipe import Recipe

# Steps that are aligned at a time: enough to fill a device, few enough to bound its working memory.
STEPS = 64


@dataclass(frozen=True, slots=True)
class Forced:
    """A prompt with its twins, and the tokens of a response that is given. Of `request.points`, alignments count."""

    request: Request
    tokens: list[int]

    @property
    def rows(self) -> list[list[int]]:
        """The twins that some point looks at, each with the response but for its last token."""
        request = self.request
        base_alone = all(point.alignment.needs(request.weights) == "base" for point in request.points)
        twins = [request.base] if base_alone else [request.base, *request.principled]
        return [twin + self.tokens[:-1] for twin in twins]


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Of each token of a given response, at one point.

    logprobs: in nats, under the aligned distribution at temperature 1, the support aside: what is asked is how likely
        the text is, not whether it may be written. `[tokens]` float32.
    greedy: whether greedy decoding, with the support, would take it. `[tokens]` bool.
    """

    logprobs: NDArray[np.float32]
    greedy: NDArray[np.bool_]


@runtime_checkable
class GivesLogits(Protocol):
    """A backend that runs a whole text in one pass."""

    def forced_logits(self, forced: Iterable[Forced]) -> Iterator[tuple[Forced, Tensor]]:
        """The logits that each token of the responses is drawn from, in any order: `[rows, tokens, vocab]`, any float.

        Raises `LalignError` for a text that does not fit into memory alone.
        """
        ...


def token_likelihoods(backend: Backend, forced: Iterable[Forced]) -> Iterator[tuple[Forced, list[Likelihood]]]:
    """How likely given responses are, a `Likelihood` a point of each, in any order.

    Raises `LalignError` for a text that does not fit into memory alone, `ModelError` for logits that are not finite.
    """
    found = backend.forced_logits(forced) if isinstance(backend, GivesLogits) else forced_one_by_one(backend, forced)
    for each, logits in found:
        request = each.request
        tokens = torch.tensor(each.tokens, device=logits.device)
        yield each, [_likelihood(point.alignment, request.weights, logits, tokens) for point in request.points]


def forced_one_by_one(backend: Backend, forced: Iterable[Forced]) -> Iterator[tuple[Forced, Tensor]]:
    """As `GivesLogits.forced_logits`, with a prompt for each token: for engines that tell but how prompts go on."""
    for each in forced:
        prompts = [
            replace(
                each.request,
                key=index,
                base=each.request.base + each.tokens[:index],
                principled=tuple(twin + each.tokens[:index] for twin in each.request.principled),
            )
            for index in range(len(each.tokens))
        ]
        logits = {request.key: torch.from_numpy(rows) for request, rows in backend.first_logits(prompts)}
        yield each, torch.stack([logits[index] for index in range(len(prompts))], dim=1)


def _likelihood(recipe: Recipe, weights: tuple[float, ...], logits: Tensor, tokens: Tensor) -> Likelihood:
    logprobs, greedy = [], []
    for aligned, taken in _steps(recipe, weights, logits, tokens):
        logprobs.append(aligned.logits.log_softmax(-1).gather(-1, taken.unsqueeze(-1)).squeeze(-1))
        greedy.append(aligned.final().argmax(-1) == taken)
    return Likelihood(torch.cat(logprobs).cpu().numpy(), torch.cat(greedy).cpu().numpy())


@torch.inference_mode()
def _steps(
    recipe: Recipe, weights: tuple[float, ...], logits: Tensor, tokens: Tensor
) -> Iterator[tuple[Aligned, Tensor]]:
    """The steps of a response with the tokens they give, `[steps, vocab]` and `[steps]` at a time.

    What a recipe carries from step to step makes it go one by one; where it carries nothing, many go together.
    """
    state = recipe.opening([len(tokens)], logits.device)
    first = _aligned(recipe, weights, logits[:, :1], state)
    yield first, tokens[:1]
    together = STEPS if state is None and first.state is None else 1
    state = first.state
    for start in range(1, len(tokens), together):
        aligned = _aligned(recipe, weights, logits[:, start : start + together], state)
        state = aligned.state
        yield aligned, tokens[start : start + together]


def _aligned(recipe: Recipe, weights: tuple[float, ...], logits: Tensor, state: Tensor | None) -> Aligned:
    """One step of each column of `logits` `[rows, steps, vocab]`."""
    if not bool(logits.amax(-1).isfinite().all()):
        raise ModelError("the model's logits are not finite")
    base, *twins = (peaked(row.float()) for row in logits)
    ratio = torch.full((len(base),), float(recipe.ratio), dtype=torch.float32, device=base.device)
    if not twins or recipe.is_base:
        return Aligned(base, torch.zeros_like(base), torch.zeros_like(base), ratio)
    aligned = recipe.step(base, recipe.merge(base, twins, weights), ratio, state, merged=True)
    if not bool(aligned.sound(aligned.logits).all()):
        raise ModelError("the aligned logits are not finite")
    return aligned

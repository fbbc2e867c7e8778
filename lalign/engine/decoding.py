"""One step: from the logits of all rows to the next token of every sequence."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lalign.engine.batch import Batch, Partition
from lalign.engine.sampling import draw, greedy, warpers
from lalign.engine.transfer import to_device
from lalign.method.statistics import step_statistics
from lalign.method.update import Aligned, align, combine, restrict_to_nucleus


class Step(NamedTuple):
    """tokens `[sequences]`; sound: False where logits were not finite `[sequences]`; statistics
    `[sequences, 11]` or None."""

    tokens: Tensor
    sound: Tensor
    statistics: Tensor | None


def choose(logits: Tensor, batch: Batch, with_statistics: bool) -> Step:
    """Align and draw for every sequence of the batch. `logits`: `[rows, vocab]`, any float type."""
    logits = logits.float()
    steps = [_choose(logits, partition, with_statistics) for partition in batch.partitions]
    if len(steps) == 1:
        return steps[0]
    order = torch.cat([partition.members for partition in batch.partitions]).argsort()
    tokens, sound = (torch.cat(parts)[order] for parts in list(zip(*steps, strict=True))[:2])
    if not with_statistics:
        return Step(tokens, sound, None)
    return Step(tokens, sound, torch.cat([step.statistics for step in steps if step.statistics is not None])[order])


def _choose(logits: Tensor, partition: Partition, with_statistics: bool) -> Step:
    settings = partition.alignment
    base = logits[partition.rows[0]]
    sound = base.amax(-1).isfinite()  # the maximum carries nan and +inf, and is -inf where nothing is left
    if settings.is_base and not with_statistics:
        return Step(_draw(base, partition), sound, None)
    twins = [logits[rows] for rows in partition.rows[1:]]
    principled = combine(base, twins, partition.weights) if twins else base
    sound = sound & principled.amax(-1).isfinite()
    aligned = Aligned(base, torch.zeros_like(base), torch.zeros_like(base), partition.ratio)
    if twins:
        aligned = align(base, principled, partition.ratio, settings)
    restricted = aligned.logits
    if settings.support == "principle" and not settings.is_base:
        restricted = restrict_to_nucleus(
            aligned.logits, principled, settings.support_top_p, settings.support_temperature
        )
    tokens = _draw(restricted, partition)
    if not with_statistics:
        return Step(tokens, sound, None)
    return Step(tokens, sound, step_statistics(base, principled, aligned, tokens, settings.p))


def _draw(logits: Tensor, partition: Partition) -> Tensor:
    sampling = partition.sampling
    processors = warpers(sampling)
    if processors:
        logits = processors(_context(partition, logits), logits)
    if sampling.temperature == 0:
        return greedy(logits)
    numbers = [sequence.uniforms[len(sequence.tokens)] for sequence in partition.sequences]
    return draw(logits, torch.tensor(numbers, dtype=torch.float64))


def _context(partition: Partition, logits: Tensor) -> Tensor:
    """The conversation and response so far, which the repetition penalty looks at: `[n, longest]`.

    The base twin's conversation: the words of a principle are not a repetition. Shorter rows repeat a token of
    theirs, which changes nothing.
    """
    if partition.sampling.repetition_penalty == 1:
        return torch.empty(len(partition.sequences), 0, dtype=torch.long, device=logits.device)
    rows = [sequence.request.base + sequence.tokens for sequence in partition.sequences]
    longest = max(map(len, rows))
    padded = [row + row[-1:] * (longest - len(row)) for row in rows]
    return to_device(padded, logits.device)

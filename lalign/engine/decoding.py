"""One step: from the logits of all rows to the next token of every sequence."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from lalign.engine.batch import Batch, Partition
from lalign.engine.sampling import draw, greedy, warpers
from lalign.engine.transfer import to_device
from lalign.method.aligned import Aligned


class Step(NamedTuple):
    """tokens `[sequences]`; sound: False where logits were not finite `[sequences]`; statistics: of each sequence those
    of its recipe, `[sequences, most columns]`, or None."""

    tokens: Tensor
    sound: Tensor
    statistics: Tensor | None


def choose(logits: Tensor, batch: Batch, with_statistics: bool) -> Step:
    """Align and draw for every sequence of the batch. `logits`: `[rows, vocab]`, any float type.

    What recipes carry to the next step is left on the sequences.
    """
    logits = logits.float()
    steps = [_choose(logits, partition, with_statistics) for partition in batch.partitions]
    if len(steps) == 1:
        return steps[0]
    order = torch.cat([partition.members for partition in batch.partitions]).argsort()
    tokens, sound = (torch.cat(parts)[order] for parts in list(zip(*steps, strict=True))[:2])
    tables = [step.statistics for step in steps if step.statistics is not None]
    if not tables:
        return Step(tokens, sound, None)
    widest = max(table.shape[-1] for table in tables)
    return Step(tokens, sound, torch.cat([pad(table, (0, widest - table.shape[-1])) for table in tables])[order])


def _choose(logits: Tensor, partition: Partition, with_statistics: bool) -> Step:
    recipe = partition.alignment
    base = logits[partition.rows[0]]
    sound = base.amax(-1).isfinite()  # the maximum carries nan and +inf, and is -inf where nothing is left
    if recipe.is_base and not with_statistics:
        return Step(_draw(base, partition), sound, None)
    twins = [logits[rows] for rows in partition.rows[1:]]
    principled = recipe.merge(base, twins, partition.weights) if twins else base
    sound = sound & principled.amax(-1).isfinite()
    if twins:
        aligned = recipe.step(base, principled, partition.ratio, _states(partition), merged=True)
    else:
        aligned = Aligned(base, torch.zeros_like(base), torch.zeros_like(base), partition.ratio)
    if aligned.state is not None:
        for sequence, state in zip(partition.sequences, aligned.state, strict=True):
            sequence.state = state
    tokens = _draw(aligned.final(), partition)
    if not with_statistics:
        return Step(tokens, sound, None)
    return Step(tokens, sound, recipe.statistics(base, principled, aligned, tokens))


def _states(partition: Partition) -> Tensor | None:
    """What the sequences carry from their last step, `[n, ...]`; the first tells for all whether they do."""
    if partition.sequences[0].state is None:
        return None
    return torch.stack([sequence.state for sequence in partition.sequences])


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

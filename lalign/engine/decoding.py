"""One step: from the logits of all rows to the next token of every sequence."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from lalign.engine.batch import Batch, Partition
from lalign.engine.sampling import draw, greedy, warpers
from lalign.engine.transfer import to_device
from lalign.method.aligned import Aligned
from lalign.method.gauge import peaked
from lalign.method.likeliest import likeliest

# Logits of so many tokens altogether are aligned at a time on a CPU, but of two sequences a thread in any case, and of
# three: pieces are then of two or more, and torch adds up a row alone in another order than rows side by side.
ELEMENTS_AT_A_TIME = 1 << 18
FEWEST_AT_A_TIME = 3
FEWEST_A_THREAD = 2


class Step(NamedTuple):
    """tokens `[sequences]`; sound: False where logits were not finite `[sequences]`; statistics: of each sequence
    `point.width` columns, `[sequences, most columns]`, or None."""

    tokens: Tensor
    sound: Tensor
    statistics: Tensor | None


def choose(logits: Tensor, batch: Batch, with_statistics: bool) -> Step:
    """Align and draw for every sequence of the batch. `logits`: `[rows, vocab]`, any float type.

    What recipes carry to the next step is left on the sequences.
    """
    logits = logits.float()
    partitions = [piece for partition in batch.partitions for piece in _pieces(partition, logits)]
    steps = [_choose(logits, partition, with_statistics) for partition in partitions]
    if len(steps) == 1:
        return steps[0]
    order = torch.cat([partition.members for partition in partitions]).argsort()
    tokens, sound = (torch.cat(parts)[order] for parts in list(zip(*steps, strict=True))[:2])
    tables = [step.statistics for step in steps if step.statistics is not None]
    if not tables:
        return Step(tokens, sound, None)
    widest = max(table.shape[-1] for table in tables)
    return Step(tokens, sound, torch.cat([pad(table, (0, widest - table.shape[-1])) for table in tables])[order])


def _pieces(partition: Partition, logits: Tensor) -> Iterable[Partition]:
    """On a CPU few sequences at a time, so that what is computed of them on the way stays in its caches."""
    if logits.device.type != "cpu":
        return [partition]
    fewest = max(FEWEST_AT_A_TIME, FEWEST_A_THREAD * torch.get_num_threads())
    return partition.pieces(max(fewest, ELEMENTS_AT_A_TIME // logits.shape[-1]))


def _choose(logits: Tensor, partition: Partition, with_statistics: bool) -> Step:
    recipe = partition.alignment
    own = [logits[rows] for rows in partition.rows]
    base, *twins = (peaked(rows) for rows in own)
    sound = base.amax(-1).isfinite()  # the maximum carries nan and +inf, and is -inf where nothing is left
    if recipe.is_base and not with_statistics:
        return Step(_draw(base, own[0], partition), sound, None)
    principled = recipe.merge(base, twins, partition.weights) if twins else base
    sound = sound & principled.amax(-1).isfinite()
    if twins:
        aligned = recipe.step(base, principled, partition.ratio, _states(partition), merged=True)
    else:
        aligned = Aligned(base, torch.zeros_like(base), torch.zeros_like(base), partition.ratio)
    if aligned.state is not None:
        for sequence, state in zip(partition.sequences, aligned.state, strict=True):
            sequence.state = state
    final = aligned.final()
    sound = sound & aligned.sound(final)
    tokens = _draw(final, own[0] if recipe.is_base or not twins else own[1], partition)
    if not with_statistics:
        return Step(tokens, sound, None)
    statistics = recipe.statistics(base, principled, aligned, tokens)
    if partition.logprobs:
        likely = likeliest((final, base, principled), tokens, partition.logprobs)
        statistics = torch.cat([statistics, likely], dim=-1)
    return Step(tokens, sound, statistics)


def _states(partition: Partition) -> Tensor | None:
    """What the sequences carry from their last step, `[n, ...]`; the first tells for all whether they do."""
    if partition.sequences[0].state is None:
        most = [sequence.point.sampling.max_new_tokens for sequence in partition.sequences]
        return partition.alignment.opening(most, partition.members.device)
    return torch.stack([sequence.state for sequence in partition.sequences])


def _draw(logits: Tensor, twin: Tensor, partition: Partition) -> Tensor:
    """The next tokens `[n]`. `twin`: logits of the model's own, whose zero the repetition penalty counts from."""
    sampling = partition.sampling
    processors = list(warpers(sampling))
    if sampling.repetition_penalty != 1:
        logits = peaked(logits) + twin.amax(-1, keepdim=True)
        logits = processors.pop(0)(_context(partition, logits), logits)
    if sampling.temperature == 0:
        return greedy(logits)
    logits = peaked(logits)  # so that no temperature, however small, makes it overflow
    for process in processors:
        logits = process(None, logits)
    numbers = [sequence.uniforms[len(sequence.tokens)] for sequence in partition.sequences]
    return draw(logits, torch.tensor(numbers, dtype=torch.float64))


def _context(partition: Partition, logits: Tensor) -> Tensor:
    """The conversation and response so far, which the repetition penalty looks at: `[n, longest]`.

    The base twin's conversation: the words of a principle are not a repetition. Shorter rows repeat a token of
    theirs, which changes nothing.
    """
    rows = [sequence.request.base + sequence.tokens for sequence in partition.sequences]
    longest = max(map(len, rows))
    padded = [row + row[-1:] * (longest - len(row)) for row in rows]
    return to_device(padded, logits.device)

"""The sequences being generated, and which rows of the batch serve them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from lalign.engine.interface import Sequence
from lalign.engine.transfer import to_device
from lalign.method.recipe import Recipe
from lalign.options import Sampling


@dataclass(slots=True)
class Group:
    """Sequences of one request with the same tokens so far, served by one set of rows.

    `rows` holds the base row, then one row per principle. Where a twin is not needed its place names a row that is,
    which makes the shift zero or the base row's logits the principled ones.
    """

    rows: list[int]
    sequences: list[Sequence]


@dataclass(frozen=True, slots=True)
class Partition:
    """Sequences that one vectorised update and draw can serve.

    members: their places among the batch's sequences `[n]`.
    rows: the base row of each, then its row per principle: `[1 + principles, n]`.
    ratio: `[n]`.
    """

    sequences: list[Sequence]
    members: Tensor
    rows: Tensor
    ratio: Tensor
    alignment: Recipe
    sampling: Sampling
    weights: tuple[float, ...]
    logprobs: int

    def pieces(self, most: int) -> Iterator[Partition]:
        """The partition in pieces of about the same size, of `most` sequences at the most."""
        count = -(-len(self.sequences) // most)
        ends = [len(self.sequences) * number // count for number in range(count + 1)]
        for some in (slice(start, end) for start, end in pairwise(ends)):
            yield replace(
                self,
                sequences=self.sequences[some],
                members=self.members[some],
                rows=self.rows[:, some],
                ratio=self.ratio[some],
            )


class Batch:
    """All groups in flight. Index tensors are made anew only when membership has changed.

    tokens: the last token of each sequence, on the device `[sequences]`.
    """

    def __init__(self, groups: Iterable[Group], device: torch.device) -> None:
        self.groups = list(groups)
        self.device = device
        self.refresh()

    def refresh(self) -> None:
        """Recompute the index tensors after a change of `groups` or of their rows."""
        self.sequences = [sequence for group in self.groups for sequence in group.sequences]
        rows = sorted((row, place) for place, group in enumerate(self.groups) for row in set(group.rows))
        leaders, place = [], 0
        for group in self.groups:
            leaders.append(place)
            place += len(group.sequences)
        # Where each row's next token is found: at the first sequence of its group.
        self.row_sequence = to_device([leaders[group] for _, group in rows], self.device)
        self.partitions = self._partitions()
        last = [sequence.tokens[-1] if sequence.tokens else 0 for sequence in self.sequences]
        self.tokens = to_device(last, self.device)

    @property
    def input_ids(self) -> Tensor:
        """The token each row takes next: `[rows, 1]`."""
        return self.tokens[self.row_sequence].unsqueeze(-1)

    def _partitions(self) -> list[Partition]:
        members: dict[Hashable, list[tuple[int, Group, Sequence]]] = {}
        place = 0
        for group in self.groups:
            for sequence in group.sequences:
                members.setdefault(_likeness(sequence), []).append((place, group, sequence))
                place += 1
        return [self._partition(likes) for likes in members.values()]

    def _partition(self, likes: list[tuple[int, Group, Sequence]]) -> Partition:
        _, _, model = likes[0]
        ratios = [sequence.point.alignment.ratio for _, _, sequence in likes]
        return Partition(
            sequences=[sequence for _, _, sequence in likes],
            members=to_device([place for place, _, _ in likes], self.device),
            rows=to_device([group.rows for _, group, _ in likes], self.device).T.contiguous(),
            ratio=to_device(ratios, self.device, torch.float32),
            alignment=model.point.alignment,
            sampling=model.point.sampling,
            weights=model.request.weights,
            logprobs=model.point.logprobs,
        )


def _likeness(sequence: Sequence) -> Hashable:
    """What two sequences must have in common to be updated and sampled in one call."""
    point = sequence.point
    return (
        point.alignment.likeness(),
        replace(point.sampling, max_new_tokens=1, stop=(), seed=0),
        sequence.request.weights,
        point.logprobs,
        # A first step has no state to go on from.
        bool(sequence.tokens),
    )

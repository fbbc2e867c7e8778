"""Which rows of vLLM's batch belong together, and what is written into them (design section 9). Knows no vLLM.

A processor of logits cannot hold a row back, so rows that do not stand where their twins do are told, not mended: what
vLLM draws in them is for the driver to throw away.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lalign.engine.batch import Batch, Group
from lalign.engine.decoding import choose
from lalign.engine.interface import Point, Request, Sequence

# Under this name a vLLM request carries its twin, in `extra_args`.
KEY = "lalign"


@dataclass(frozen=True, slots=True)
class Twin:
    """What a vLLM request is to lalign.

    pair: a number of the pair it belongs to, of this try. role: which of the pair's rows it is. places: of the base
    and of each principle, the role that serves it. sequence: what to make one of, on the side of the rows.
    """

    pair: int
    role: int
    places: tuple[int, ...]
    sequence: tuple[Request, Point]
    with_statistics: bool

    @property
    def size(self) -> int:
        """Rows of the pair."""
        return max(self.places) + 1


@dataclass(frozen=True, slots=True)
class Lookout:
    """A vLLM request whose first logits are wanted, and no token."""

    name: int


def twins(sequence: Sequence, pair: int, places: Iterable[int], with_statistics: bool) -> list[Twin]:
    """One twin per row of a pair. They carry what a choice needs: no stop strings, and ids only for the penalty."""
    request, point = sequence.request, sequence.point
    base = request.base if point.sampling.repetition_penalty != 1 else []
    bare = replace(request, key=None, base=base, principled=(), points=()), replace(point, stops=None)
    spots = tuple(places)
    return [Twin(pair, role, spots, bare, with_statistics) for role in range(max(spots) + 1)]


@dataclass(frozen=True, slots=True)
class Row:
    """A row of logits of which vLLM will keep what it draws.

    number: in the tensor of logits. asked: what its request carries. taken: how many tokens its response has; last:
    the last of them, None where that is not known on the host.
    """

    number: int
    asked: Twin | Lookout
    taken: int
    last: int | None = None


class Choice(NamedTuple):
    """What a pair takes next: the token, whether its logits were finite, and the statistics of its recipe."""

    token: int
    sound: bool
    statistics: NDArray[np.float32]


@dataclass(slots=True)
class Report:
    """What rows have come to since the last report.

    choices: of each pair that stepped. parted: pairs that came apart, and how. logits: of those looked out for.
    """

    choices: dict[int, Choice] = field(default_factory=dict)
    parted: dict[int, str] = field(default_factory=dict)
    logits: dict[int, NDArray[np.float32]] = field(default_factory=dict)


class Pairing:
    """Steps complete pairs with `decoding.choose`, and keeps count of what each has taken."""

    def __init__(self) -> None:
        self._sequences: dict[int, Sequence] = {}
        self._parted: dict[int, str] = {}
        self._report = Report()

    def report(self, done: Iterable[int]) -> Report:
        """What has come to pass since the last call. Pairs that are `done` are not looked at again."""
        report, self._report = self._report, Report()
        for pair in done:
            self._sequences.pop(pair, None)
            self._parted.pop(pair, None)
        return report

    def step(self, logits: Tensor, rows: Iterable[Row]) -> Tensor:
        """Write into each row of a complete pair logits that leave one token. `logits`: `[rows, vocab]`, in place."""
        pairs: dict[int, dict[int, Row]] = {}
        for row in rows:
            if isinstance(row.asked, Lookout):
                self._report.logits.setdefault(row.asked.name, logits[row.number].float().cpu().numpy().copy())
            elif row.asked.role in pairs.setdefault(row.asked.pair, {}):
                self._part(row.asked.pair, f"two rows of role {row.asked.role}")
            else:
                pairs[row.asked.pair][row.asked.role] = row
        for with_statistics in (True, False):
            chosen = {
                pair: roles
                for pair, roles in pairs.items()
                if _any(roles).with_statistics is with_statistics and self._is_whole(pair, roles)
            }
            if chosen:
                self._choose(logits, chosen, with_statistics)
        return logits

    def _is_whole(self, pair: int, roles: Mapping[int, Row]) -> bool:
        """Whether all twins are there, each with as many tokens as the pair has taken, and the same last one."""
        if pair in self._parted:
            return False
        size = _any(roles).size
        sequence = self._sequences.get(pair)
        taken = len(sequence.tokens) if sequence else 0
        stand = {role: row.taken for role, row in sorted(roles.items())}
        if sorted(roles) != list(range(size)):
            self._part(pair, f"rows {sorted(roles)} of {size} after {taken} tokens")
        elif set(stand.values()) != {taken}:
            self._part(pair, f"rows with {stand} tokens after {taken}")
        elif sequence and any(row.last not in (None, sequence.tokens[-1]) for row in roles.values() if taken):
            self._part(pair, f"a row took another token than the {taken}th")
        else:
            return True
        return False

    def _part(self, pair: int, how: str) -> None:
        self._parted[pair] = self._report.parted[pair] = how

    def _choose(self, logits: Tensor, chosen: Mapping[int, Mapping[int, Row]], with_statistics: bool) -> None:
        groups = []
        for pair, roles in chosen.items():
            sequence = self._sequences.setdefault(pair, Sequence(*_any(roles).sequence))
            groups.append(Group([roles[place].number for place in _any(roles).places], [sequence]))
        step = choose(logits, Batch(groups, logits.device), with_statistics)
        counts = torch.tensor([len(roles) for roles in chosen.values()], device=logits.device)
        numbers = [row.number for roles in chosen.values() for row in roles.values()]
        rows = torch.tensor(numbers, device=logits.device)
        logits[rows] = -torch.inf
        logits[rows, step.tokens.repeat_interleave(counts)] = 0.0
        columns = [step.tokens.unsqueeze(-1).float(), step.sound.unsqueeze(-1).float()]
        if step.statistics is not None:
            columns.append(step.statistics)
        # The one transfer to the host of a step; float32 holds token ids up to 2**24 exactly.
        table = torch.cat(columns, dim=-1).cpu().numpy()
        for pair, group, line in zip(chosen, groups, table, strict=True):
            (sequence,) = group.sequences
            sequence.tokens.append(int(line[0]))
            self._report.choices[pair] = Choice(int(line[0]), bool(line[1]), line[2 : 2 + sequence.point.width])


def _any(roles: Mapping[int, Row]) -> Any:
    """The twin of one of the rows: what it says of the pair is the same in all."""
    return next(iter(roles.values())).asked

"""The loop: prompts join, all rows take a step, what has ended leaves at once (design section 6)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from lalign.engine.batch import Batch, Group
from lalign.engine.decoding import choose
from lalign.engine.interface import Counters, Ended, Point, Request, Sequence
from lalign.engine.memory import is_out_of_memory
from lalign.engine.rows import Prefix, RowModel, RowStore, rest_length
from lalign.options import Statistics

# Requests done without running out of memory, as a multiple of the batch size, after which a halved batch grows again.
RECOVERY = 4


class Engine:
    """Generates for requests as they come, `batch_size` pairs of rows at a time.

    Args:
        forward: runs the model.
        stop_ids: token ids that end a response.
        batch_size: pairs in flight.
        points: how many points each request has at the most. Points of a request share rows until they part; so
            requests of several points are admitted while there are at most `most_points` in flight.
        statistics: which statistics are wanted; with "none", twins that change nothing are not run.
        prefixes: what many prompts begin with, run already.
    """

    def __init__(
        self,
        forward: RowModel,
        stop_ids: frozenset[int],
        batch_size: int,
        statistics: Statistics,
        points: int = 1,
        prefixes: Iterable[Prefix] = (),
    ) -> None:
        self.forward = forward
        self.stop_ids = stop_ids
        self.batch_size = batch_size
        self.wanted_batch_size = batch_size
        self.recovery = RECOVERY
        self.done_since_change = 0
        self.has_grown = False
        self.statistics = statistics
        self.points = points
        self.prefixes = list(prefixes)
        self.put_back: list[Request] = []
        self.counters = Counters()
        self._clear()

    def _clear(self) -> None:
        self.store: RowStore = self.forward.store()
        self.batch = Batch([], self.forward.device)

    def run(self, source: Callable[[int, bool], list[Request] | None]) -> Iterator[list[Ended]]:
        """Generate until `source` gives None and all is done; yields after every step what ended in it.

        `source(room, wait)` is as `interface.Source` says.
        """
        exhausted = False
        while not exhausted or self.put_back or self.batch.groups:
            while room := self.room():
                requests: list[Request] | None = self.put_back[:room]
                del self.put_back[:room]
                if not requests and not exhausted:
                    requests = source(room, not self.batch.groups)
                    exhausted = requests is None
                joining = self._within_room(requests or [])
                if not joining:
                    break
                yield self.admit(joining)
            yield self.step() if self.batch.groups else []

    @property
    def most_points(self) -> int:
        """How many sequences may be in flight: a pair each, where none shares rows, is twice the batch size."""
        return 2 * self.batch_size if self.points > 1 and self.batch_size > 1 else self.batch_size

    def room(self) -> int:
        """How many more requests may join now."""
        points = min(self.points, self.most_points)
        room = min(self.batch_size - len(self.batch.groups), (self.most_points - len(self.batch.sequences)) // points)
        return max(room, 0 if self.batch.groups else 1)

    def _within_room(self, requests: list[Request]) -> list[Request]:
        """Requests that may join, of no more points than may; what is over goes to the front of those put back.

        They come in their order: one that has no room yet is not passed by. One that has none even alone joins alone,
        and is out of memory.
        """
        now: list[Request] = []
        later: list[Request] = []
        for request in requests:
            points = 0 if later else min(len(request.points), self.most_points)
            least = 0 if now or self.batch.groups else 1
            while not self._fits([*now, _of_points(request, 0, points)]) and points > least:
                points //= 2
            parts = _of_points(request, 0, points), _of_points(request, points, None)
            now += [part for part in parts[:1] if part.points]
            later += [part for part in parts[1:] if part.points]
        self.put_back = later + self.put_back
        return now

    def _fits(self, requests: list[Request]) -> bool:
        """Whether requests fit beside what is in flight, whatever the length of the responses."""
        rows = tokens = 0
        for twins, points in [*self._held(), *((self._twins(request), request.points) for request in requests)]:
            rows += len(twins) * len(points)
            tokens += sum(map(self._rest_length, twins))
            tokens += len(twins) * sum(point.sampling.max_new_tokens for point in points)
        return self.store.fits(rows, tokens)

    def _rest_length(self, row: list[int]) -> int:
        return rest_length(row, self.prefixes, whole=self.forward.shares)

    def _twins(self, request: Request) -> list[list[int]]:
        return twins_needed(request, self.statistics)[0]

    def _held(self) -> Iterator[tuple[list[list[int]], list[Point]]]:
        """For each request in flight its longest twins, as many as it has rows, and the points it still has."""
        rows = {id(group.sequences[0].request): len(set(group.rows)) for group in self.batch.groups}
        for sequences in self._flying():
            request = sequences[0].request
            twins = sorted([request.base, *request.principled], key=len)[-rows[id(request)] :]
            yield twins, [sequence.point for sequence in sequences]

    def _flying(self) -> Iterable[list[Sequence]]:
        """The sequences in flight, those of a request together."""
        flying: dict[int, list[Sequence]] = {}
        for sequence in self.batch.sequences:
            flying.setdefault(id(sequence.request), []).append(sequence)
        return flying.values()

    def admit(self, requests: list[Request]) -> list[Ended]:
        """Run prompts, draw their first tokens, and let them join the batch."""
        ended: list[Ended] = []
        twins = [twins_needed(request, self.statistics) for request in requests]
        rests = [(len(rows), max(self._rest_length(row) for row in rows)) for rows, _ in twins]
        lengths = [rest for _, rest in rests] if self.forward.shares else [request.length for request in requests]
        self.store.expect(self.store.rows + sum(rows for rows, _ in rests), max(lengths))
        for chosen in self.forward.passes(rests):
            try:
                ended += self._prefill([(requests[index], *twins[index]) for index in chosen])
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                ended += self._back_off([requests[index] for index in chosen])
        return ended

    @torch.inference_mode()
    def _prefill(self, chosen: list[tuple[Request, list[list[int]], list[int]]]) -> list[Ended]:
        began = time.perf_counter()
        logits, opened = self.forward.prompts([row for _, rows, _ in chosen for row in rows], self.prefixes, self.store)
        groups, offset = [], 0
        for request, rows, places in chosen:
            sequences = [Sequence(request, point) for point in request.points]
            groups.append(Group([offset + place for place in places], sequences))
            offset += len(rows)
        ended = self._take(logits, Batch(groups, self.forward.device))
        numbers = self.store.admit(opened)
        for group in groups:
            group.rows = [numbers[row] for row in group.rows]
        self._regroup(self.batch.groups + groups, ended)
        self.counters.prompts += len(chosen)
        self.counters.prefill_seconds += time.perf_counter() - began
        return ended

    def step(self) -> list[Ended]:
        """One decoding step of all rows."""
        try:
            ended = self._decode()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return self._back_off([])
        self._recover(len(ended))
        return ended

    @torch.inference_mode()
    def _decode(self) -> list[Ended]:
        began = time.perf_counter()
        self.counters.steps += 1
        self.counters.step_rows += self.store.rows
        logits = self.forward.step(self.batch.input_ids, self.store)
        ended = self._take(logits, self.batch)
        if ended or any(len(group.sequences) > 1 for group in self.batch.groups):
            self._regroup(self.batch.groups, ended)
        self.counters.decode_seconds += time.perf_counter() - began
        return ended

    def _take(self, logits: Tensor, batch: Batch) -> list[Ended]:
        """Give every sequence of a batch its next token; returns those that end with it."""
        step = choose(logits, batch, self.statistics != "none")
        columns = [step.tokens.unsqueeze(-1).float(), step.sound.unsqueeze(-1).float()]
        if step.statistics is not None:
            columns.append(step.statistics)
        # The one transfer to the host of a step; float32 holds token ids up to 2**24 exactly.
        table = torch.cat(columns, dim=-1).cpu().numpy()
        ended = []
        for sequence, row in zip(batch.sequences, table, strict=True):
            sequence.tokens.append(int(row[0]))
            sequence.steps.append(row[2 : 2 + sequence.point.width])
            if reason := sequence.end_reason(self.stop_ids, sound=bool(row[1])):
                ended.append(Ended(sequence, reason))
        self.counters.tokens += len(table)
        batch.tokens = step.tokens
        return ended

    def _regroup(self, groups: list[Group], ended: list[Ended]) -> None:
        """Drop ended sequences; give sequences of a group that took different tokens rows of their own."""
        done = {id(end.sequence) for end in ended}
        stays: list[Group] = []
        parted: list[Group] = []
        gone: list[int] = []
        for group in groups:
            by_token: dict[int, list[Sequence]] = {}
            for sequence in group.sequences:
                if id(sequence) not in done:
                    by_token.setdefault(sequence.tokens[-1], []).append(sequence)
            parts = [Group(group.rows, sequences) for sequences in by_token.values()]
            stays += parts[:1]
            parted += parts[1:]
            if not parts:
                gone += set(group.rows)
        if not ended and not parted and len(groups) == len(self.batch.groups):
            return
        sources = [row for group in parted for row in dict.fromkeys(group.rows)]
        copies = iter(self.store.fork(sources))
        for group in parted:
            names = {row: next(copies) for row in dict.fromkeys(group.rows)}
            group.rows = [names[row] for row in group.rows]
        moved = self.store.remove(gone)
        for group in stays + parted:
            group.rows = [moved.get(row, row) for row in group.rows]
        self.batch.groups = stays + parted
        self.batch.refresh()

    def _recover(self, done: int) -> None:
        """Let a halved batch grow again, as prompts too large for others to share memory with may be past.

        Where growing leads to a halving, twice as many responses must come before the next try.
        """
        self.done_since_change += done
        if self.batch_size < self.wanted_batch_size and self.done_since_change >= self.recovery * self.batch_size:
            self._resize(2 * self.batch_size)
            self.has_grown = True

    def _resize(self, batch_size: int) -> None:
        self.batch_size = max(1, min(batch_size, self.wanted_batch_size))
        self.done_since_change = 0

    def _back_off(self, requests: list[Request]) -> list[Ended]:
        """After running out of memory: halve the batch and put back what was in flight, to be begun anew.

        A point that was alone, and so cannot be run at all, ends with "out_of_memory".
        """
        requests = [
            replace(some[0].request, points=tuple(sequence.point for sequence in some)) for some in self._flying()
        ] + requests
        self._clear()
        self.counters.batch_halvings += 1
        if self.batch_size == 1 and len(requests) == 1 and len(requests[0].points) == 1:
            # What could not run alone is what the others had no room beside.
            self._resize(self.wanted_batch_size)
            return [Ended(Sequence(requests[0], requests[0].points[0]), "out_of_memory")]
        self.recovery *= 1 + self.has_grown
        self.has_grown = False
        self._resize(min(self.batch_size, len(requests)) // 2)
        self.put_back = requests + self.put_back
        return []


def _of_points(request: Request, start: int, end: int | None) -> Request:
    return replace(request, points=request.points[start:end])


def twins_needed(request: Request, statistics: Statistics) -> tuple[list[list[int]], list[int]]:
    """The prompts to run for a request, and which of them is the base and each principle.

    Without statistics, a twin that no point looks at is not run.
    """
    twins = [request.base, *request.principled]
    if statistics == "none" and request.principled:
        needs = {point.alignment.needs(request.weights) for point in request.points}
        if needs == {"base"}:
            return twins[:1], [0] * len(twins)
        if needs == {"principled"}:
            return twins[1:], [0, *range(len(twins) - 1)]
    return twins, list(range(len(twins)))

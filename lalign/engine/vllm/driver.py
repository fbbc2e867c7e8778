"""The loop: whole pairs are let in, vLLM steps, what has ended leaves, what has come apart begins anew."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol

from lalign.engine.engine import twins_needed
from lalign.engine.interface import Counters, Ended, Request, Sequence, Source
from lalign.engine.vllm.admission import Capacity, Load, joining, staying
from lalign.engine.vllm.pairing import Choice, Lookout, Report, Twin, twins
from lalign.errors import LalignError, OptionError
from lalign.options import Statistics

# A pair that has come apart so often, the later times with nothing else in flight, would do so for ever.
MOST_TRIES = 4
# More steps than any prompt takes, and soon over where nothing is run in them.
MOST_IDLE_STEPS = 10_000


class Steps(Protocol):
    """What is asked of vLLM: `process.VllmProcess` has it."""

    def add(self, name: str, token_ids: list[int], new_tokens: int, asked: Twin | Lookout | None) -> None:
        """A request for so many tokens, whatever they are."""
        ...

    def abort(self, names: list[str]) -> None:
        """Give requests up, if they are still there."""
        ...

    def step(self) -> tuple[dict[str, list[int]], set[str]]:
        """One step: the tokens that requests have taken in it, and those that are finished."""
        ...

    def report(self, done: list[int]) -> Report:
        """As `Pairing.report`."""
        ...


@dataclass(slots=True)
class Pair:
    """One response in the making: its sequence, and a request of vLLM's per row.

    tries: how often it has come apart. warm: its prompts have been run. number: of this try, 0 before it joins.
    """

    sequence: Sequence
    prompts: list[list[int]]
    places: list[int]
    tries: int = 0
    warm: bool = False
    number: int = 0
    load: Load = field(default_factory=Load)

    @property
    def names(self) -> list[str]:
        """The requests of this try."""
        return [f"{self.number}/{role}" for role in range(len(self.prompts))]

    @property
    def new_tokens(self) -> int:
        return self.sequence.point.sampling.max_new_tokens

    def joining(self, capacity: Capacity, *, warm: bool) -> Load:
        """What it takes in the step that it joins in."""
        return joining([len(ids) for ids in self.prompts], self.new_tokens, capacity, warm=warm)


class Idle:
    """Counts steps in a row in which nothing has moved: a prompt of many steps takes some, none takes all."""

    def __init__(self) -> None:
        self.steps = 0

    def count(self, is_moving: bool) -> None:
        """One step. Raises `LalignError` where there have been too many."""
        self.steps = 0 if is_moving else self.steps + 1
        if self.steps > MOST_IDLE_STEPS:
            raise LalignError(f"vLLM has done nothing in {MOST_IDLE_STEPS} steps; its engine options stand against it")


class Driver:
    """Generates for requests as they come.

    Args:
        process: vLLM.
        capacity: what it has.
        stop_ids: token ids that end a response.
        batch_size: pairs in flight; None for as many as there is room for.
        statistics: which statistics are wanted; with "none", twins that change nothing are not run.
        numbers: gives each try of a pair a number of its own.
    """

    def __init__(
        self,
        process: Steps,
        capacity: Capacity,
        stop_ids: frozenset[int],
        batch_size: int | None,
        statistics: Statistics,
        numbers: Iterator[int] | None = None,
    ) -> None:
        self.process = process
        self.capacity = capacity
        self.stop_ids = stop_ids
        self.batch_size = batch_size or capacity.rows
        self.statistics: Statistics = statistics
        self.counters = Counters()
        self._numbers = numbers or itertools.count(1)
        self._waiting: deque[Pair] = deque()
        self._flying: dict[int, Pair] = {}
        # The requests that run the prompts of the pair that is first in the queue, one token each.
        self._warming: set[str] = set()
        self._done: list[int] = []
        self._idle = Idle()

    def run(self, source: Source) -> Iterator[list[Ended]]:
        """As `Backend.run`. What is in flight when the caller leaves is given up."""
        exhausted = False
        try:
            while True:
                while not exhausted and not self._waiting and (room := self._room(source.points)):
                    requests = source(room, not self._flying)
                    exhausted = requests is None
                    if not requests:
                        break
                    self._take(requests)
                    yield []
                if self._waiting or self._flying:
                    yield self.step()
                elif exhausted:
                    return
                else:
                    yield []
        finally:
            self._give_up()

    def _room(self, points: int) -> int:
        room = self.batch_size - len(self._flying)
        return max(room // points, 1) if room > 0 else 0

    def _take(self, requests: list[Request]) -> None:
        for request in requests:
            self.counters.prompts += 1
            for point in request.points:
                prompts, places = twins_needed(replace(request, points=(point,)), self.statistics)
                self._waiting.append(Pair(Sequence(request, point), prompts, places))

    def step(self) -> list[Ended]:
        """Let in what there is room for, and step once."""
        began = time.perf_counter()
        ended, joined = self._admit()
        if not self._flying and not self._warming:
            return ended
        taken, finished = self.process.step()
        report = self.process.report(self._done)
        self._done = []
        self._idle.count(bool(report.choices or report.parted or taken))
        rows = sum(len(pair.prompts) for pair in self._flying.values())
        for number, pair in list(self._flying.items()):
            pair.load = staying(pair.load)
            choice = report.choices.get(number)
            if number in report.parted or not _agreed(pair, choice, taken):
                self._begin_anew(number)
            elif choice is not None:
                ended += self._token(number, choice, finished)
        if self._warming:
            self._warming -= finished
            self._waiting[0].warm = not self._warming
        seconds = time.perf_counter() - began
        if joined or self._warming:
            self.counters.prefill_seconds += seconds
        else:
            self.counters.decode_seconds += seconds
            self.counters.steps += 1
            self.counters.step_rows += rows
        return ended

    def _admit(self) -> tuple[list[Ended], int]:
        """Pairs join in their order while there is room; how many have. What a step cannot take is run before."""
        ended: list[Ended] = []
        joined = 0
        flying = sum((pair.load for pair in self._flying.values()), Load())
        used = flying
        while self._waiting and not self._warming and len(self._flying) < self.batch_size:
            pair = self._waiting[0]
            if self._flying and (pair.tries or any(other.tries for other in self._flying.values())):
                break  # what has come apart runs alone
            if pair.joining(self.capacity, warm=False).blocks > self.capacity.blocks:
                ended.append(Ended(self._waiting.popleft().sequence, "out_of_memory"))
                continue
            self._check(pair)
            load = pair.joining(self.capacity, warm=pair.warm)
            is_long = load.tokens + flying.rows > self.capacity.tokens
            if self.capacity.caches and not pair.warm and (is_long or pair.tries):
                self._warm(pair, used)
                break
            if not (used + load).within(self.capacity):
                break
            self._join(self._waiting.popleft(), load)
            used += load
            joined += 1
        return ended, joined

    def _check(self, pair: Pair) -> None:
        """Raise `OptionError` where the engine's options hold no such pair even alone."""
        least = pair.joining(self.capacity, warm=True)
        for option, needed, given in (
            (self.capacity.rows_by, least.rows, self.capacity.rows),
            (self.capacity.tokens_by, least.tokens, self.capacity.tokens),
        ):
            if needed > given:
                raise OptionError("engine_option", f"{option}={given} is too little: a prompt here takes {needed}")

    def _warm(self, pair: Pair, used: Load) -> None:
        """Run the prompts of a pair, in as many steps as it takes, for the prefix cache to hold them when it joins."""
        load = pair.joining(self.capacity, warm=True)
        if (used + replace(load, tokens=0)).within(self.capacity):
            number = next(self._numbers)
            for role, token_ids in enumerate(pair.prompts):
                self.process.add(f"{number}/{role}", token_ids, 1, None)
                self._warming.add(f"{number}/{role}")

    def _join(self, pair: Pair, load: Load) -> None:
        pair.number, pair.load = next(self._numbers), load
        self._flying[pair.number] = pair
        asked = twins(pair.sequence, pair.number, pair.places, self.statistics != "none")
        for name, token_ids, twin in zip(pair.names, pair.prompts, asked, strict=True):
            self.process.add(name, token_ids, pair.new_tokens, twin)

    def _token(self, number: int, choice: Choice, finished: set[str]) -> list[Ended]:
        pair = self._flying[number]
        pair.sequence.tokens.append(choice.token)
        pair.sequence.steps.append(choice.statistics)
        self.counters.tokens += 1
        reason = pair.sequence.end_reason(self.stop_ids, choice.sound)
        if reason is not None:
            self._leave(number)
            return [Ended(pair.sequence, reason)]
        if not finished.isdisjoint(pair.names):
            self._begin_anew(number)
        return []

    def _begin_anew(self, number: int) -> None:
        pair = self._leave(number)
        self.counters.pairs_parted += 1
        if pair.tries + 1 == MOST_TRIES:
            raise LalignError(
                f"vLLM does not run the twins of a prompt in the same steps, tried {MOST_TRIES} times; its engine "
                "options stand against it"
            )
        sequence = Sequence(pair.sequence.request, pair.sequence.point)
        self._waiting.append(Pair(sequence, pair.prompts, pair.places, pair.tries + 1))

    def _leave(self, number: int) -> Pair:
        pair = self._flying.pop(number)
        self.process.abort(pair.names)
        self._done.append(number)
        return pair

    def _give_up(self) -> None:
        for number in list(self._flying):
            self._leave(number)
        self.process.abort(sorted(self._warming))
        self._warming.clear()
        self._waiting.clear()
        self.process.report(self._done)
        self._done = []


def _agreed(pair: Pair, choice: Choice | None, taken: dict[str, list[int]]) -> bool:
    """Whether every row of a pair took in this step what was chosen for it, and nothing where nothing was."""
    expected = [] if choice is None else [choice.token]
    return all(taken.get(name, []) == expected for name in pair.names)

"""What vLLM does with requests, without a model: its scheduler's rules, its two interfaces for processors of logits.

Running requests go first, in their order, then waiting ones; prompts are split where a step has no more tokens; who
needs a block when there is none puts the last that runs out. Blocks of prompts are found again until another takes
them, the one that has been free the longest first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lalign.engine.vllm.admission import Capacity
from lalign.engine.vllm.pairing import KEY, Lookout, Report, Twin
from lalign.engine.vllm.processors import PairsV1, PairsV2

Model = Callable[[list[int]], Tensor]


@dataclass
class Running:
    """A request. computed: tokens that the cache has of it; blocks: those it holds."""

    name: str
    prompt: list[int]
    most: int
    params: Any
    output: list[int] = field(default_factory=list)
    computed: int = 0
    blocks: list[int] = field(default_factory=list)

    @property
    def tokens(self) -> list[int]:
        return self.prompt + self.output


class Blocks:
    """A pool of blocks that remembers what was in those that are free."""

    def __init__(self, capacity: Capacity) -> None:
        self.size, self.caches = capacity.block_size, capacity.caches
        self.free: OrderedDict[int, None] = OrderedDict.fromkeys(range(capacity.blocks))
        self.users = [0] * capacity.blocks
        self.content: dict[int, tuple[int, ...]] = {}

    def cached(self, prompt: list[int]) -> list[int]:
        """The blocks that hold a prompt's beginning, short of its last token."""
        places = {content: block for block, content in self.content.items()}
        found: list[int] = []
        while self.caches and (end := self.size * (len(found) + 1)) < len(prompt) and tuple(prompt[:end]) in places:
            found.append(places[tuple(prompt[:end])])
        return found

    def hold(self, blocks: list[int]) -> None:
        for block in blocks:
            self.users[block] += 1
            self.free.pop(block, None)

    def new(self, number: int) -> list[int] | None:
        """Blocks of one's own, or None where there are not so many."""
        if number > len(self.free):
            return None
        blocks = [self.free.popitem(last=False)[0] for _ in range(number)]
        for block in blocks:
            self.users[block] = 1
            self.content.pop(block, None)
        return blocks

    def release(self, request: Running) -> None:
        for block in reversed(request.blocks):
            self.users[block] -= 1
            if not self.users[block]:
                self.free[block] = None
        request.blocks = []

    def fill(self, request: Running) -> None:
        """Whole blocks become known by what is in them."""
        for place, block in enumerate(request.blocks[: request.computed // self.size]):
            content = tuple(request.tokens[: self.size * (place + 1)])
            if content not in self.content.values():
                self.content[block] = content


class SimulatedVllm:
    """`driver.Steps` on a function from token ids to logits.

    Attributes:
        holds_back: names of requests, and how many steps each waits before the scheduler sees it.
        put_out: how many requests were put out for want of blocks.
    """

    def __init__(self, capacity: Capacity, model: Model, interface: str = "v1") -> None:
        self.capacity, self.model = capacity, model
        self.blocks = Blocks(capacity)
        self.holds_back: dict[str, int] = {}
        self.put_out = 0
        self.steps = 0
        self.waiting: list[Running] = []
        self.running: list[Running] = []
        self.processor = V1(capacity) if interface == "v1" else V2(capacity)

    def add(self, name: str, token_ids: list[int], new_tokens: int, asked: Twin | Lookout | None) -> None:
        assert token_ids
        assert name not in {request.name for request in self.waiting + self.running}
        params = SimpleNamespace(extra_args=None if asked is None else {KEY: asked})
        self.waiting.append(Running(name, token_ids, new_tokens, params))

    def abort(self, names: list[str]) -> None:
        for request in self.waiting + self.running:
            if request.name in names:
                self.blocks.release(request)
        self.waiting = [request for request in self.waiting if request.name not in names]
        self.running = [request for request in self.running if request.name not in names]

    def report(self, done: list[int]) -> Report:
        return self.processor.pairs.pairing.report(done)

    def step(self) -> tuple[dict[str, list[int]], set[str]]:
        self.steps += 1
        scheduled = self._schedule()
        for request, tokens in scheduled:
            request.computed += tokens
            self.blocks.fill(request)
        logits = torch.stack([self.model(r.tokens[: r.computed]) for r, _ in scheduled]) if scheduled else None
        taken, finished = {}, set()
        if logits is not None:
            drawn = self.processor.draw([request for request, _ in scheduled], logits)
            for (request, _), token in zip(scheduled, drawn, strict=True):
                if request.computed == len(request.tokens):
                    request.output.append(token)
                    taken[request.name] = [token]
                    if len(request.output) == request.most:
                        finished.add(request.name)
        self.abort(sorted(finished))
        return taken, finished

    def _schedule(self) -> list[tuple[Running, int]]:
        budget = self.capacity.tokens
        scheduled: list[tuple[Running, int]] = []
        for request in list(self.running):
            tokens = min(len(request.tokens) - request.computed, budget)
            if not tokens or request not in self.running:
                continue
            while not self._allocate(request, tokens):
                budget += self._put_out(self.running[-1], scheduled)
                if request not in self.running:
                    break
            else:
                scheduled.append((request, tokens))
                budget -= tokens
        for request in list(self.waiting):
            if self.holds_back.get(request.name, 0) > 0:
                self.holds_back[request.name] -= 1
                continue
            if not budget or len(self.running) == self.capacity.rows:
                break
            known = self.blocks.cached(request.tokens)
            self.blocks.hold(known)
            request.blocks, request.computed = list(known), len(known) * self.blocks.size
            tokens = min(len(request.tokens) - request.computed, budget)
            if not self._allocate(request, tokens):
                self.blocks.release(request)
                break
            self.waiting.remove(request)
            self.running.append(request)
            scheduled.append((request, tokens))
            budget -= tokens
        return scheduled

    def _allocate(self, request: Running, tokens: int) -> bool:
        needed = -(-(request.computed + tokens) // self.blocks.size) - len(request.blocks)
        blocks = self.blocks.new(max(needed, 0))
        request.blocks += blocks or []
        return blocks is not None

    def _put_out(self, request: Running, scheduled: list[tuple[Running, int]]) -> int:
        self.put_out += 1
        self.blocks.release(request)
        request.computed = 0
        self.running.remove(request)
        self.waiting.insert(0, request)
        back = sum(tokens for other, tokens in scheduled if other is request)
        scheduled[:] = [(other, tokens) for other, tokens in scheduled if other is not request]
        return back


class V1:
    """Rows stay where they are; what leaves makes room for what comes, and the last move into what is left open."""

    def __init__(self, capacity: Capacity) -> None:
        self.pairs = PairsV1(None, torch.device("cpu"), False)
        self.mask = np.zeros(capacity.rows, dtype=bool)
        self.pairs.runner = SimpleNamespace(discard_request_mask=SimpleNamespace(np=self.mask))
        self.batch: list[Running | None] = []

    def draw(self, scheduled: list[Running], logits: Tensor) -> list[int]:
        removed = [place for place, held in enumerate(self.batch) if held not in scheduled]
        for place in removed:
            self.batch[place] = None
        open_places, added, moved = list(removed), [], []
        for request in scheduled:
            if request not in self.batch:
                place = open_places.pop(0) if open_places else len(self.batch)
                self.batch[place : place + 1] = [request]
                added.append((place, request.params, request.prompt, request.output))
        while None in self.batch:
            if (last := self.batch.pop()) is not None:
                place = self.batch.index(None)
                self.batch[place] = last
                moved.append((len(self.batch), place, SimpleNamespace(name="UNIDIRECTIONAL")))
        gone = [place for place in removed if place not in {place for place, *_ in added}]
        self.pairs.update_state(SimpleNamespace(removed=gone, added=added, moved=moved))
        rows = [held for held in self.batch if held is not None]
        order = [scheduled.index(held) for held in rows]
        for place, held in enumerate(rows):
            self.mask[place] = held.computed < len(held.tokens)
        drawn = self.pairs.apply(logits[order].clone()).argmax(-1).tolist()
        return [drawn[self.batch.index(request)] for request in scheduled]


class V2:
    """Requests have slots; rows come in any order, and name their slot."""

    def __init__(self, capacity: Capacity) -> None:
        self.states = SimpleNamespace(
            prefill_len=SimpleNamespace(np=np.zeros(capacity.rows, dtype=np.int32)),
            prompt_len=SimpleNamespace(np=np.zeros(capacity.rows, dtype=np.int32)),
        )
        self.pairs = PairsV2(None, self.states)
        self.slots: list[Running | None] = [None] * capacity.rows

    def draw(self, scheduled: list[Running], logits: Tensor) -> list[int]:
        self.slots = [held if held in scheduled else None for held in self.slots]
        for request in scheduled:
            if request not in self.slots:
                slot = self.slots.index(None)
                self.slots[slot] = request
                self.states.prompt_len.np[slot] = len(request.prompt)
                self.states.prefill_len.np[slot] = len(request.tokens)
                self.pairs.add_request(slot, request.params)
        order = sorted(range(len(scheduled)), key=lambda place: -len(scheduled[place].name))
        ctx = SimpleNamespace(
            idx_mapping_np=np.array([self.slots.index(scheduled[place]) for place in order]),
            seq_lens_upper_bound_np=np.array([scheduled[place].computed for place in order]),
        )
        drawn = self.pairs.apply(logits[order].clone(), ctx).argmax(-1).tolist()
        return [drawn[order.index(place)] for place in range(len(scheduled))]

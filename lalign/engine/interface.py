"""The seam for engines: what is asked of one, and what it gives back (design section 9). Loads no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from collections.abc import Sequence as ManyOf
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from lalign.engine.randomness import uniforms
from lalign.method.aligned import likeliest_width
from lalign.method.recipe import Recipe
from lalign.options import Execution, Sampling

Stops = Callable[[list[int]], bool]
EndReason = Literal["stop", "length", "not_finite", "out_of_memory"]


@dataclass(frozen=True, slots=True)
class Point:
    """One answer wanted of a prompt: how it is aligned, sampled and ended.

    seed: the run's seed and the record's position, or the record's own.
    stops: tells of the tokens so far whether a stop string has come.
    place: which of its request's answers this is.
    sample: which of several answers at one point this is; None where there is but one.
    logprobs: how many of the likeliest tokens of each distribution go with the statistics of a step.
    """

    alignment: Recipe
    sampling: Sampling
    seed: tuple[int, ...] = (0,)
    stops: Stops | None = None
    place: int = 0
    sample: int | None = None
    logprobs: int = 0

    @property
    def width(self) -> int:
        """Columns of the statistics of a step: those of the recipe, then `method.likeliest`'s."""
        return len(self.alignment.columns) + likeliest_width(self.logprobs)


@dataclass(frozen=True, slots=True)
class Request:
    """A tokenised prompt, its twins and the points wanted of it. `key` is the caller's own name for it.

    principled: the token ids of one twin per principle, `weights` long; none where only the base model is asked.
    """

    key: Any
    base: list[int]
    principled: tuple[list[int], ...]
    weights: tuple[float, ...]
    points: tuple[Point, ...]

    @property
    def length(self) -> int:
        """Tokens of the longest twin."""
        return max(len(ids) for ids in (self.base, *self.principled))

    @property
    def most_tokens(self) -> int:
        """Tokens of the longest twin with the longest response that it may get."""
        return self.length + max((point.sampling.max_new_tokens for point in self.points), default=0)


@dataclass(slots=True)
class Sequence:
    """One response in the making.

    tokens: those taken so far.
    steps: the statistics of each, `[point.width]`.
    state: what its recipe carries to the next step; None before the first, and for recipes that carry nothing.
    """

    request: Request
    point: Point
    tokens: list[int] = field(default_factory=list)
    steps: list[NDArray[np.float32]] = field(default_factory=list)
    uniforms: list[float] = field(default_factory=list)
    state: Any = None

    def __post_init__(self) -> None:
        if self.point.sampling.temperature > 0:
            self.uniforms = uniforms(self.point.seed, self.point.sampling.max_new_tokens)

    def end_reason(self, stop_ids: frozenset[int], sound: bool = True) -> EndReason | None:
        """Why the response ends with its last token, None where it goes on; `sound`: its logits were finite."""
        if not sound:
            return "not_finite"
        if self.tokens[-1] in stop_ids or (self.point.stops is not None and self.point.stops(self.tokens)):
            return "stop"
        return "length" if len(self.tokens) >= self.point.sampling.max_new_tokens else None


@dataclass(frozen=True, slots=True)
class Ended:
    """A sequence that is done, and why: a stop token or string, the length wanted, or a failure of its own."""

    sequence: Sequence
    reason: EndReason


@dataclass(slots=True)
class Counters:
    """What an engine has done in one run. Times are seconds of wall clock.

    pairs_parted: pairs whose rows an engine that is not lalign's own has not stepped together, and which began anew.
    """

    prompts: int = 0
    tokens: int = 0
    steps: int = 0
    step_rows: int = 0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    batch_halvings: int = 0
    pairs_parted: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """What no prompt may pass.

    context_length: the most tokens of prompt and response together; None for no limit.
    context_reason: why that is less than the model states, where it is.
    vocabulary: token ids are below this; None where any may be.
    """

    context_length: int | None = None
    context_reason: str = ""
    vocabulary: int | None = None


@dataclass(frozen=True, slots=True)
class Weights:
    """What a decoding step multiplies with, for who measures it; None for what an engine does not tell.

    device, dtype: as torch names them; the type of a quantised file by its own name. parameters: without an embedding
    that is only looked up, but of llama.cpp all that are in the file. size: of all of them, in bytes.
    """

    device: str | None = None
    dtype: str | None = None
    parameters: int | None = None
    size: int | None = None


class Source(Protocol):
    """Where an engine's requests come from.

    points: how many points a request has at the most.
    prefixes: token ids that many of the prompts begin with, which an engine may run once for all.
    """

    points: int
    prefixes: ManyOf[list[int]]

    def __call__(self, room: int, wait: bool) -> list[Request] | None:
        """Up to `room` requests; none where none is at hand, None when there will be no more. May block if `wait`."""
        ...

    def at_hand(self) -> list[Request]:
        """Requests that wait to be taken, for an engine to judge by what is to come."""
        ...


class Backend(Protocol):
    """An engine with its model. It outlives calls: what it has run of shared prefixes serves the next one too."""

    @property
    def name(self) -> str:
        """The model's name, for people."""
        ...

    @property
    def tokenizer(self) -> Any:
        """A tokenizer with the call, `decode` and `apply_chat_template` of transformers' own."""
        ...

    @property
    def stop_ids(self) -> frozenset[int]:
        """Token ids that end a response."""
        ...

    @property
    def limits(self) -> Limits:
        """What no prompt may pass."""
        ...

    @property
    def weights(self) -> Weights:
        """What it multiplies with."""
        ...

    @property
    def counters(self) -> Counters:
        """What the latest run has done so far."""
        ...

    def fingerprint(self) -> str:
        """Equal for models that compute the same."""
        ...

    def run(self, source: Source, execution: Execution) -> Iterator[list[Ended]]:
        """Generate until the source gives None and all is done; yields after every step what ended in it."""
        ...

    def first_logits(self, requests: Iterable[Request]) -> Iterator[tuple[Request, NDArray[np.float32]]]:
        """The logits where each response would begin, in any order: `[1 + principles, vocab]`, the base row first.

        Raises `LalignError` for a prompt that does not fit into memory alone.
        """
        ...

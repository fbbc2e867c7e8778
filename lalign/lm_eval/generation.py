"""What lm-evaluation-harness asks to be generated, by lalign's engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

from lalign.engine.interface import Backend, Request
from lalign.errors import LalignError, OptionError
from lalign.options import Execution, Sampling

FAILURES = {
    "not_finite": "logits are not finite, those of the model or of the step",
    "out_of_memory": "out of memory even with one prompt alone",
}
# Read from a model's generation config where a task says nothing, as `generate` of transformers does; all but the last
# only where tokens are drawn.
STATED = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


def sampling_of(given: Mapping[str, Any], config: Any) -> Sampling:
    """How tokens are drawn, of a task's generation arguments, normalised, without `until`.

    Raises `OptionError` for one that lalign has not, or out of range.
    """
    asked = dict(given)
    drawn = bool(asked.pop("do_sample", False))
    chosen: dict[str, Any] = {"max_new_tokens": asked.pop("max_gen_toks")}
    for name in STATED if drawn else STATED[-1:]:
        value = asked[name] if asked.get(name) is not None else getattr(config, name, None)
        if value is not None:
            chosen[name] = float(value) if name != "top_k" else int(value)
    known = {option.name for option in fields(Sampling)}
    for name in asked.keys() - {*STATED, *known}:
        raise OptionError("gen_kwargs", f"{name} is no option of lalign's")
    if "seed" in asked:
        chosen["seed"] = asked["seed"]
    return Sampling(**chosen)


class Listed:
    """Requests that are all at hand; see `lalign.engine.interface.Source`."""

    points = 1
    prefixes: Sequence[list[int]] = ()

    def __init__(self, requests: Sequence[Request]) -> None:
        self._left = list(reversed(requests))

    def __call__(self, room: int, wait: bool) -> list[Request] | None:
        """The next of them."""
        taken = [self._left.pop() for _ in range(min(room, len(self._left)))]
        return taken if taken or room < 1 else None

    def at_hand(self) -> list[Request]:
        """All that are left."""
        return self._left


def generated(backend: Backend, requests: Sequence[Request], execution: Execution) -> Iterator[tuple[Any, list[int]]]:
    """The key of each request and the tokens of its response, as they end. Raises `LalignError` where one fails."""
    for ended in backend.run(Listed(requests), execution):
        for end in ended:
            if end.reason in FAILURES:
                raise LalignError(f"{FAILURES[end.reason]} (request {end.sequence.request.key})")
            yield end.sequence.request.key, end.sequence.tokens

"""By hand: how the time of a decoding step grows, for docs/cost.md.

python tests/bench/benchmark_growth.py [SHARE]      SHARE of the steps, 1 by default; below it, a trial that writes
to /tmp. With rows, with the length of a principle that pairs share, with the length of responses, and with vocabulary
(random weights in the default model's shape). Draws docs/cost.png, and fills in docs/cost.md.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from pages import DOCS, fill_in

from lalign.bench.measuring import Machine, measure_machine
from lalign.engine.interface import Point, Request
from lalign.engine.torch_backend import TorchBackend
from lalign.method.linear_alignment import Alignment
from lalign.models.linear import settle_weights
from lalign.models.loading import LoadedModel, ModelOptions, load
from lalign.options import Execution, Sampling

PROMPT = 32
ROWS = (1, 2, 4, 8, 16, 32, 64)
PRINCIPLES = (16, 64, 256, 1024, 4096)
RESPONSES = (16, 64, 256, 512, 1000)
VOCABULARIES = (8192, 16384, 49152, 131072, 262144)
PAIRS = 16


class Endless(LoadedModel):
    """A model at whose end tokens nothing ends."""

    @property
    def stop_ids(self) -> frozenset[int]:
        return frozenset()


@dataclass(frozen=True)
class Reading:
    """The median time of a step in seconds, and the least that there could be."""

    curve: str
    x: int
    seconds: float
    floor: float


class Given:
    """Requests at hand, for an engine."""

    points = 1

    def __init__(self, requests: list[Request], prefixes: list[list[int]]) -> None:
        self.waiting = requests
        self.prefixes: Sequence[list[int]] = prefixes

    def __call__(self, room: int, wait: bool) -> list[Request] | None:
        taken, self.waiting = self.waiting[:room], self.waiting[room:]
        return taken or None

    def at_hand(self) -> list[Request]:
        return self.waiting


def endless(loaded: LoadedModel) -> TorchBackend:
    return TorchBackend(Endless(**{field.name: getattr(loaded, field.name) for field in fields(loaded)}))


def steps(backend: TorchBackend, count: int, tokens: int, principle: int | None = None) -> list[float]:
    """The seconds of each step of `count` prompts: plain rows, or pairs behind a principle of that many tokens."""
    drawn = np.random.default_rng(0)
    vocabulary = backend.limits.vocabulary or 8192

    def ids(length: int) -> list[int]:
        return [int(token) for token in drawn.integers(100, min(vocabulary, 8192), length)]

    shared = ids(principle or 0)
    point = Point(Alignment(ratio=0 if principle is None else 2), Sampling(max_new_tokens=tokens))
    requests = []
    for key in range(count):
        own = ids(PROMPT)
        twins = () if principle is None else ([*shared, *own],)
        requests.append(Request(key, own, twins, (1.0,) * len(twins), (point,)))
    source = Given(requests, [shared] if shared else [])
    found: list[float] = []
    before = 0, 0.0
    for _ in backend.run(source, Execution(count, statistics="none" if principle is None else "steps")):
        counters = backend.counters
        if counters.steps > before[0]:
            found.append(counters.decode_seconds - before[1])
        before = counters.steps, counters.decode_seconds
    return found


def floor(backend: TorchBackend, machine: Machine, rows: int, cached: float) -> float:
    """Weights, and keys and values of so many tokens, read once; or the products of the rows, if those take longer."""
    loaded = _loaded(backend)
    config, size = loaded.model.config, loaded.model.dtype.itemsize
    width = config.num_key_value_heads * config.hidden_size // config.num_attention_heads
    read: float = (loaded.parameters + cached * 2 * config.num_hidden_layers * width) * size / machine.read_bandwidth
    return max(read, 2.0 * loaded.parameters * rows / machine.product_rate)


def _loaded(backend: TorchBackend) -> LoadedModel:
    assert isinstance(backend.loaded, LoadedModel)
    return backend.loaded


def readings(share: float) -> Iterator[Reading]:
    """All that is measured, one after the other."""

    def some(count: int) -> int:
        return max(3, round(count * share))

    backend = endless(load(ModelOptions()))
    machine = measure_machine(torch.device("cpu"), torch.float32)
    print(f"{machine.read_bandwidth / 1e9:.1f} GB/s, {machine.product_rate / 1e9:.0f} GFLOP/s", flush=True)
    steps(backend, 4, 4)
    tokens = some(24)
    reach = PROMPT + tokens / 2
    for rows in ROWS:
        found = steps(backend, rows, tokens)
        yield Reading("rows", rows, statistics.median(found), floor(backend, machine, rows, rows * reach))
        if rows > 1:
            found = steps(backend, rows // 2, tokens, 0)
            yield Reading("rows, in pairs", rows, statistics.median(found), floor(backend, machine, rows, rows * reach))
    tokens = some(16)
    for length in PRINCIPLES if share >= 1 else PRINCIPLES[:3]:
        found = steps(backend, PAIRS, tokens, length)
        least = floor(backend, machine, 2 * PAIRS, length + 2 * PAIRS * (PROMPT + tokens / 2))
        yield Reading("tokens of the principle", length, statistics.median(found), least)
    longest = some(1024)
    found = steps(backend, 4, longest, 0)
    for length in RESPONSES:
        near = found[max(0, length - 9) : length + 8]
        if length < longest:
            least = floor(backend, machine, 8, 8 * (PROMPT + length))
            yield Reading("tokens of the response", length, statistics.median(near), least)
    tokens = some(12)
    for size in VOCABULARIES if share >= 1 else VOCABULARIES[:2]:
        other = endless(with_vocabulary(_loaded(backend), size))
        found = steps(other, PAIRS, tokens, 0)
        least = floor(other, machine, 2 * PAIRS, 2 * PAIRS * (PROMPT + tokens / 2))
        yield Reading("tokens of the vocabulary", size, statistics.median(found), least)


def with_vocabulary(loaded: LoadedModel, size: int) -> LoadedModel:
    """A model in the shape of another but for its vocabulary, of random weights."""
    from transformers import LlamaForCausalLM

    config = type(loaded.model.config).from_dict({**loaded.model.config.to_dict(), "vocab_size": size})
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    parameters = model.num_parameters()
    return replace(loaded, model=settle_weights(model), parameters=parameters)


def table(found: list[Reading]) -> str:
    lines = ["| grows with | | step, ms | floor, ms | times the floor |", "|:--|--:|--:|--:|--:|"]
    for one in found:
        cells = (f"{1000 * one.seconds:.0f}", f"{1000 * one.floor:.0f}", f"{one.seconds / one.floor:.1f}")
        lines.append(f"| {one.curve} | {one.x} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(found: list[Reading], path: Path) -> None:
    """A panel for each thing that a step grows with; the floor is dashed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

    panels = {"rows": ("rows", "rows, in pairs")} | {
        name: (name,) for name in dict.fromkeys(one.curve for one in found) if not name.startswith("rows")
    }
    figure, axes = pyplot.subplots(1, len(panels), figsize=(12, 3), sharey=True, layout="constrained")
    for axis, (title, curves) in zip(np.atleast_1d(axes), panels.items(), strict=True):
        for curve, marker in zip(curves, "os", strict=False):
            points = [one for one in found if one.curve == curve]
            places = [one.x for one in points]
            axis.plot(places, [1000 * one.seconds for one in points], marker=marker, label=curve)
        axis.plot(places, [1000 * one.floor for one in points], "--", color="#777777", label="floor")
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        for side, ticks in ((axis.xaxis, places), (axis.yaxis, [20, 50, 100, 200, 500])):
            side.set_major_locator(FixedLocator(ticks))
            side.set_minor_locator(NullLocator())
            side.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axis.tick_params(labelsize=8)
        axis.set_xlabel(title)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(fontsize=7, frameon=False)
    np.atleast_1d(axes)[0].set_ylabel("a decoding step, ms")
    figure.savefig(path, dpi=150)


def main(share: float) -> None:
    found = []
    for one in readings(share):
        found.append(one)
        print(f"{one.curve} {one.x}: {1000 * one.seconds:.0f} ms, floor {1000 * one.floor:.0f}", flush=True)
    draw(found, DOCS / "cost.png" if share >= 1 else Path("/tmp/cost.png"))
    print(table(found))
    if share >= 1:
        picture = "![time of a step against rows, principle, response and vocabulary](cost.png)"
        fill_in("cost.md", "growth", f"{picture}\n\n{table(found)}")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0)

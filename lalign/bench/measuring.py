"""What a benchmark run is measured by: time, tokens, memory, and the limits of the machine."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import psutil
import torch

SAMPLING_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Measurement:
    """One run of one way of generating. Times are seconds, memory is bytes.

    first_token_seconds: from the start to the first tokens. mean_memory, peak_memory: resident memory of the process
    meanwhile. device_memory: the most that was allocated on the accelerator, 0 without one. streams: the tokens of
    each response, in input order.
    """

    seconds: float
    tokens: int
    first_token_seconds: float
    prefill_seconds: float
    decode_seconds: float
    steps: int
    step_rows: int
    mean_memory: int
    peak_memory: int
    device_memory: int
    streams: tuple[tuple[int, ...], ...]

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds

    @property
    def step_seconds(self) -> float:
        """Mean time of a decoding step."""
        return self.decode_seconds / self.steps if self.steps else 0.0


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, lowest and highest of repeated measurements."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))


class MemoryWatch:
    """Samples the resident memory of this process while entered; `mean`, `peak` and `device` are in bytes."""

    def __init__(self) -> None:
        self.samples: list[int] = []
        self._done = threading.Event()
        self._process = psutil.Process()

    def __enter__(self) -> MemoryWatch:
        if _on_cuda():
            torch.cuda.reset_peak_memory_stats()
        self.samples.append(self._process.memory_info().rss)
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    @property
    def mean(self) -> int:
        return int(statistics.fmean(self.samples))

    @property
    def peak(self) -> int:
        return max(self.samples)

    @property
    def device(self) -> int:
        return torch.cuda.max_memory_allocated() if _on_cuda() else 0

    def _watch(self) -> None:
        while not self._done.wait(SAMPLING_SECONDS):
            self.samples.append(self._process.memory_info().rss)


def _on_cuda() -> bool:
    """Whether this process has begun to use a CUDA device; asking for its memory would begin it."""
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class Machine:
    """What the machine can do at best: bytes read a second, and floating-point operations a second of a product."""

    read_bandwidth: float
    product_rate: float

    def floor_seconds(self, parameters: int, size: int, rows: float) -> float:
        """The least time of a decoding step: weights of `size` bytes read once, or multiplied with rows, if longer."""
        return max(size / self.read_bandwidth, 2 * parameters * rows / self.product_rate)


def measure_machine(device: torch.device, dtype: torch.dtype, repeats: int = 7) -> Machine:
    """Read bandwidth by a sum over 256 MB, product rate by square products of 2048: the best of `repeats`."""
    block = torch.ones(1 << 26, device=device, dtype=torch.float32)
    square = torch.randn(2048, 2048, device=device).to(dtype)
    read = min(_timed(block.sum, device) for _ in range(repeats))
    product = min(_timed(lambda: square @ square, device) for _ in range(repeats))
    return Machine(block.numel() * 4 / read, 2 * 2048**3 / product)


def _timed(work: Callable[[], Any], device: torch.device) -> float:
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began

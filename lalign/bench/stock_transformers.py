"""Stock transformers doing the same work, for `lalign bench --peers`."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from lalign.bench.measuring import Measurement, MemoryWatch
from lalign.bench.side import Prompts


class _Clock:
    """A logits processor that changes nothing and notes when each step's logits are there."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.times.append(time.perf_counter())
        return scores


def run_stock(model: Any, prompts: Prompts, batch_size: int, guidance: float | None) -> Measurement:
    """Stock `generate`, greedy: of the bare prompts, or guided from the base to the principled prompt by `guidance`.

    Prompts go in input order, in batches padded on the left, as stock batch jobs do.
    """
    from transformers import LogitsProcessorList

    streams: list[tuple[int, ...]] = []
    prefill = decode = first = 0.0
    steps = step_rows = 0
    rows_per_prompt = 1 if guidance is None else 2
    began = time.perf_counter()
    with MemoryWatch() as memory, torch.inference_mode():
        for start in range(0, len(prompts.base), batch_size):
            chunk = slice(start, start + batch_size)
            clock = _Clock()
            inputs = _padded((prompts.base if guidance is None else prompts.principled)[chunk], model)
            if guidance is not None:
                base = _padded(prompts.base[chunk], model)
                inputs |= {
                    "guidance_scale": guidance,
                    "negative_prompt_ids": base["input_ids"],
                    "negative_prompt_attention_mask": base["attention_mask"],
                }
            entered = time.perf_counter()
            output = model.generate(
                **inputs,
                max_new_tokens=prompts.max_new_tokens,
                do_sample=False,
                logits_processor=LogitsProcessorList([clock]),
            )
            left = time.perf_counter()
            first = first or clock.times[0] - began
            prefill += clock.times[0] - entered
            decode += left - clock.times[0]
            steps += len(clock.times) - 1
            step_rows += (len(clock.times) - 1) * len(prompts.base[chunk]) * rows_per_prompt
            stops = _stop_ids(model)
            streams += [_ended(row, stops) for row in output[:, inputs["input_ids"].shape[1] :].tolist()]
    seconds = time.perf_counter() - began
    tokens = sum(map(len, streams))
    return Measurement(
        seconds=seconds,
        tokens=tokens,
        first_token_seconds=first,
        prefill_seconds=prefill,
        decode_seconds=decode,
        steps=steps,
        step_rows=step_rows,
        mean_memory=memory.mean,
        peak_memory=memory.peak,
        device_memory=memory.device,
        streams=tuple(streams),
    )


def _padded(rows: tuple[list[int], ...], model: Any) -> dict[str, Any]:
    longest = max(map(len, rows))
    pad = min(_stop_ids(model), default=0)
    ids = [[pad] * (longest - len(row)) + row for row in rows]
    mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
    return {
        "input_ids": torch.tensor(ids, device=model.device),
        "attention_mask": torch.tensor(mask, device=model.device),
    }


def _stop_ids(model: Any) -> frozenset[int]:
    ids = model.generation_config.eos_token_id
    return frozenset([ids] if isinstance(ids, int) else ids or [])


def _ended(row: list[int], stops: frozenset[int]) -> tuple[int, ...]:
    """A row up to its first stop token, with it."""
    for place, token in enumerate(row):
        if token in stops:
            return tuple(row[: place + 1])
    return tuple(row)

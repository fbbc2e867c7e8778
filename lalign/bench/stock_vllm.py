"""vLLM by itself doing the same work, for `lalign bench --peers`."""

from __future__ import annotations

import os
import time
from typing import Any

import torch

from lalign.bench.measuring import Measurement, MemoryWatch
from lalign.bench.side import Prompts
from lalign.errors import ModelError, first_line
from lalign.models.description import describe
from lalign.models.loading import ModelOptions

# As lalign starts it, for the memory to be comparable: `engine.vllm.process`.
MOST_CPU_BYTES = 4 << 30


class StockVllm:
    """vLLM's engine in this process, without lalign's processor. Raises `ModelError` where it does not start."""

    def __init__(self, model: ModelOptions) -> None:
        os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1"}
        dtype = "bfloat16" if torch.cuda.is_available() else "float32"
        described = describe(model, "vllm", dtype)
        self.name = described.name
        try:
            from vllm.engine.arg_utils import EngineArgs
            from vllm.v1.engine.llm_engine import LLMEngine

            own = {} if torch.cuda.is_available() else _on_cpu()
            arguments = EngineArgs(
                model=described.location,
                dtype=dtype,
                trust_remote_code=model.trust_remote_code,
                skip_tokenizer_init=True,
                disable_log_stats=True,
                **own,
            )
            self._engine: Any = LLMEngine.from_engine_args(arguments)
        except Exception as error:
            raise ModelError(f"{self.name}: vLLM does not take it: {first_line(error)}") from error

    def run(self, prompts: Prompts, batch_size: int) -> Measurement:
        """Answer prompts, greedy, as many at a time as the batch size says; a prompt joins as soon as one leaves."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        params = SamplingParams(
            temperature=0.0,
            max_tokens=prompts.max_new_tokens,
            stop_token_ids=sorted(prompts.stop_ids),
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )
        streams: list[list[int]] = [[] for _ in prompts.base]
        waiting = list(range(len(streams)))
        running = 0
        prefill = decode = first = 0.0
        steps = step_rows = 0
        began = time.perf_counter()
        with MemoryWatch() as memory:
            while waiting or running:
                joined = waiting[: batch_size - running]
                del waiting[: len(joined)]
                for place in joined:
                    self._engine.add_request(str(place), {"prompt_token_ids": prompts.base[place]}, params)
                running += len(joined)
                entered = time.perf_counter()
                for output in self._engine.step():
                    streams[int(output.request_id)] += output.outputs[0].token_ids
                    running -= output.finished
                seconds = time.perf_counter() - entered
                first = first or time.perf_counter() - began
                if joined:
                    prefill += seconds
                else:
                    decode += seconds
                    steps += 1
                    step_rows += running
        return Measurement(
            seconds=time.perf_counter() - began,
            tokens=sum(map(len, streams)),
            first_token_seconds=first,
            prefill_seconds=prefill,
            decode_seconds=decode,
            steps=steps,
            step_rows=step_rows,
            mean_memory=memory.mean,
            peak_memory=memory.peak,
            device_memory=memory.device,
            streams=tuple(map(tuple, streams)),
        )


def _on_cpu() -> dict[str, Any]:
    import psutil

    return {
        "enforce_eager": True,
        "kv_cache_memory_bytes": min(MOST_CPU_BYTES, psutil.virtual_memory().available // 4),
    }

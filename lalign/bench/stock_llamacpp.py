"""llama-cpp-python by itself doing the same work, for `lalign bench --peers`."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from lalign.bench.measuring import Measurement, MemoryWatch
from lalign.bench.side import Prompts
from lalign.errors import ModelError, first_line
from lalign.models.loading import ModelOptions
from lalign.models.location import default_model, gguf_file


class StockLlama:
    """The package's own `Llama`, greedy, one prompt at a time, which is all that it does.

    Raises `ModelError` where it cannot load the model.
    """

    def __init__(self, model: ModelOptions, prompts: Prompts) -> None:
        from llama_cpp import Llama

        file = gguf_file(model.name or default_model())
        if file is None:
            raise ModelError(f"{model.name}: is no .gguf file, which is what llama.cpp runs")
        longest = max(map(len, prompts.base), default=0) + prompts.max_new_tokens
        threads = torch.get_num_threads()
        try:
            self._llama = Llama(
                str(file), n_ctx=longest, n_threads=threads, n_threads_batch=threads, n_gpu_layers=-1, verbose=False
            )
        except Exception as error:
            raise ModelError(f"{file}: llama-cpp-python does not take it: {first_line(error)}") from error
        self.name = Path(file).name

    def run(self, prompts: Prompts, batch_size: int) -> Measurement:
        """Answer prompts one by one, whatever the batch size; it keeps what a prompt shares with the one before."""
        streams: list[tuple[int, ...]] = []
        prefill = decode = first = 0.0
        began = time.perf_counter()
        with MemoryWatch() as memory:
            for ids in prompts.base:
                entered = time.perf_counter()
                taken: list[int] = []
                for token in self._llama.generate(ids, temp=0.0, repeat_penalty=1.0):
                    taken.append(token)
                    if len(taken) == 1:
                        prompt_done = time.perf_counter()
                    if token in prompts.stop_ids or len(taken) == prompts.max_new_tokens:
                        break
                first = first or prompt_done - began
                prefill += prompt_done - entered
                decode += time.perf_counter() - prompt_done
                streams.append(tuple(taken))
        tokens = sum(map(len, streams))
        steps = tokens - len(streams)
        return Measurement(
            seconds=time.perf_counter() - began,
            tokens=tokens,
            first_token_seconds=first,
            prefill_seconds=prefill,
            decode_seconds=decode,
            steps=steps,
            step_rows=steps,
            mean_memory=memory.mean,
            peak_memory=memory.peak,
            device_memory=memory.device,
            streams=tuple(streams),
        )

"""An unmodified vLLM in this process: started, asked for steps, its errors as ours."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import psutil

from lalign.engine.vllm.admission import Capacity
from lalign.engine.vllm.engine_args import parsed
from lalign.engine.vllm.pairing import KEY, Lookout, Report, Twin
from lalign.errors import LalignError, ModelError, OptionError, first_line

# What vLLM is told by its environment: this in any case, that where the user does not say otherwise.
FIXED = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
ENVIRONMENT = {
    "VLLM_LOGGING_LEVEL": "CRITICAL",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}
PROCESSORS = {True: "lalign.engine.vllm.registered_v2:Registered", False: "lalign.engine.vllm.registered_v1:Registered"}
WORKER = "lalign.engine.vllm.worker.LalignWorker"
# On a CPU vLLM would take nearly all memory for keys and values: this much at the most, and a quarter of what is free.
MOST_CPU_BYTES = 4 << 30


class VllmProcess:
    """What `driver.Steps` asks for. Raises `LalignError` where vLLM fails.

    Attributes:
        capacity: what it can step at once. context_length: the most tokens of prompt and response together. interface:
        which of vLLM's two the processor has been loaded by. quantization: as vLLM calls it, None for none. device,
        dtype: as torch calls them. version: of vLLM.
    """

    def __init__(self, engine: Any) -> None:
        from vllm import __version__

        self.version: str = __version__
        self._engine = engine
        self.interface: str = self._call("lalign_attach")[0]
        config = engine.vllm_config
        self.capacity = _capacity(config, engine.engine_core.engine_core.scheduler.kv_cache_config.kv_cache_groups)
        self.context_length: int = config.model_config.max_model_len
        self.quantization: str | None = config.model_config.quantization
        self.dtype: str = str(config.model_config.dtype)
        self.device: str = str(config.device_config.device)

    def add(self, name: str, token_ids: list[int], new_tokens: int, asked: Twin | Lookout | None) -> None:
        """As `Steps.add`. Greedy, which takes the one token that the processor leaves."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        params = SamplingParams(
            temperature=0.0,
            max_tokens=new_tokens,
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
            extra_args=None if asked is None else {KEY: asked},
            skip_clone=True,
        )
        with _as_ours():
            self._engine.add_request(name, {"prompt_token_ids": token_ids}, params)

    def abort(self, names: list[str]) -> None:
        """As `Steps.abort`."""
        if names:
            with _as_ours():
                self._engine.abort_request(names)

    def step(self) -> tuple[dict[str, list[int]], set[str]]:
        """As `Steps.step`."""
        with _as_ours():
            outputs = self._engine.step()
        taken = {output.request_id: list(output.outputs[0].token_ids) for output in outputs}
        return taken, {output.request_id for output in outputs if output.finished}

    def report(self, done: list[int]) -> Report:
        """As `Steps.report`; with several workers each tells the same."""
        report: Report = self._call("lalign_report", done)[0]
        return report

    def _call(self, method: str, *arguments: Any) -> list[Any]:
        with _as_ours():
            answers: list[Any] = self._engine.collective_rpc(method, args=arguments)
        return answers


def _capacity(config: Any, kinds: Sequence[Any]) -> Capacity:
    """What an engine of this configuration has, by the limits that its scheduler heeds."""
    scheduler, cache = config.scheduler_config, config.cache_config
    rows, rows_by = _least(scheduler, "max_num_seqs", "max_num_active_seqs")
    tokens, tokens_by = _least(scheduler, "max_num_batched_tokens", "max_num_scheduled_tokens")
    return Capacity(
        rows=rows,
        tokens=tokens,
        # One block is vLLM's own, and some are kept free where a watermark is set.
        blocks=int(cache.num_gpu_blocks * (1 - scheduler.watermark)) - 1,
        block_size=min(kind.kv_cache_spec.block_size for kind in kinds),
        kinds=len(kinds),
        caches=bool(cache.enable_prefix_caching),
        rows_by=rows_by,
        tokens_by=tokens_by,
    )


def _least(config: Any, *names: str) -> tuple[int, str]:
    """The least of some limits, of which not all are set, and its name."""
    found = [(getattr(config, name), name) for name in names]
    return min(((value, name) for value, name in found if value is not None), key=lambda limit: limit[0])


@contextlib.contextmanager
def _as_ours() -> Iterator[None]:
    try:
        yield
    except LalignError:
        raise
    except Exception as error:
        raise LalignError(f"vLLM: {first_line(error)}") from error


def start(location: str, given: Mapping[str, Any], options: Mapping[str, Any], name: str) -> VllmProcess:
    """Start vLLM.

    Args:
        location: the model's folder or hub id.
        given: the engine arguments that lalign sets.
        options: those of the user, by the names of vLLM's `EngineArgs`; text as on vLLM's command line.
        name: what the model is called in errors.

    Raises `OptionError` for an option that vLLM does not have or take, `ModelError` where it does not start.
    """
    is_silent = "VLLM_LOGGING_LEVEL" not in os.environ
    os.environ |= {**ENVIRONMENT, **os.environ, **FIXED}
    with _silenced(is_silent):
        try:
            from vllm.engine.arg_utils import EngineArgs
        except Exception as error:  # what it imports may not go together, and says so in many ways
            raise OptionError("engine", f"vllm cannot be imported: {first_line(error)}; see docs/engines.md") from error
        wanted = {**given, **_defaults(options), **parsed(options, EngineArgs)}
        try:
            return VllmProcess(_engine(location, wanted, EngineArgs))
        except LalignError:
            raise
        except Exception as error:
            raise ModelError(f"{name}: vLLM does not take it: {_reason(error)}") from error


def _engine(location: str, wanted: Mapping[str, Any], engine_args: Any) -> Any:
    from vllm.v1.engine.llm_engine import LLMEngine

    config = engine_args(
        model=location,
        skip_tokenizer_init=True,
        async_scheduling=False,
        disable_log_stats=True,
        worker_extension_cls=WORKER,
        **wanted,
    ).create_engine_config()
    config.model_config.logits_processors = [PROCESSORS[bool(config.use_v2_model_runner)]]
    return LLMEngine.from_vllm_config(config, disable_log_stats=True)


def _defaults(options: Mapping[str, Any]) -> dict[str, Any]:
    """What is another default here than vLLM's, on a CPU: no minutes of compiling, and not all memory."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return {}
    found: dict[str, Any] = {"enforce_eager": True}
    if "gpu_memory_utilization" not in options and "VLLM_CPU_KVCACHE_SPACE" not in os.environ:
        found["kv_cache_memory_bytes"] = min(MOST_CPU_BYTES, psutil.virtual_memory().available // 4)
    return found


def _reason(error: BaseException) -> str:
    """The line of an error of vLLM that says what is wrong: pydantic puts it behind one that counts the errors."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 2 and "validation error" in lines[0]:
        return next((line for line in lines[1:] if " " in line), lines[0]).split(" [type=")[0]
    return lines[0] if lines else type(error).__name__


@contextlib.contextmanager
def _silenced(is_silent: bool) -> Iterator[None]:
    """As vLLM starts, its libraries write to the process's stdout, where records go, and to stderr.

    is_silent: stderr is left alone where False.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    with contextlib.ExitStack() as stack:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        stack.callback(os.close, nowhere)
        for number, target in ((1, nowhere if is_silent else 2), (2, nowhere))[: 1 + is_silent]:
            with contextlib.suppress(OSError):  # closed
                kept = os.dup(number)
                stack.callback(os.close, kept)
                stack.callback(os.dup2, kept, number)
                os.dup2(target, number)
        stack.callback(sys.stdout.flush)
        stack.callback(sys.stderr.flush)
        yield

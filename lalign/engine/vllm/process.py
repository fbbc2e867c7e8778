"""An unmodified vLLM in this process: started, asked for steps, its errors as ours."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import os
import sys
from argparse import BooleanOptionalAction
from collections.abc import Iterator, Mapping
from typing import Any

import psutil

from lalign.engine.vllm.admission import Capacity
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
# Options that lalign gives itself, or with which rows would not step as it needs them to.
RESERVED = frozenset(
    {"model", "tokenizer", "dtype", "trust_remote_code", "skip_tokenizer_init", "logits_processors", "load_format"}
    | {"worker_extension_cls", "worker_cls", "scheduler_cls", "async_scheduling", "speculative_config", "runner"}
    | {"pipeline_parallel_size", "data_parallel_size", "stream_interval", "long_prefill_token_threshold", "seed"}
)
PROCESSORS = {True: "lalign.engine.vllm.registered_v2:Registered", False: "lalign.engine.vllm.registered_v1:Registered"}
WORKER = "lalign.engine.vllm.worker.LalignWorker"
# On a CPU vLLM would take nearly all memory for keys and values: this much at the most, and a quarter of what is free.
MOST_CPU_BYTES = 4 << 30


class VllmProcess:
    """What `driver.Steps` asks for. Raises `LalignError` where vLLM fails.

    Attributes:
        capacity: what it can step at once. context_length: the most tokens of prompt and response together. interface:
        which of vLLM's two the processor has been loaded by. quantization: as vLLM calls it, None for none. device,
        dtype: as torch calls them.
    """

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.interface: str = self._call("lalign_attach")[0]
        config = engine.vllm_config
        core = engine.engine_core.engine_core
        kinds = core.scheduler.kv_cache_config.kv_cache_groups
        self.capacity = Capacity(
            rows=config.scheduler_config.max_num_seqs,
            tokens=config.scheduler_config.max_num_batched_tokens,
            # One block is vLLM's own, and some are kept free where a watermark is set.
            blocks=int(config.cache_config.num_gpu_blocks * (1 - config.scheduler_config.watermark)) - 1,
            block_size=min(kind.kv_cache_spec.block_size for kind in kinds),
            kinds=len(kinds),
            caches=bool(config.cache_config.enable_prefix_caching),
        )
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
        wanted = {**given, **_defaults(options), **_parsed(options, EngineArgs)}
        try:
            return VllmProcess(_engine(location, wanted, EngineArgs))
        except LalignError:
            raise
        except Exception as error:
            raise ModelError(f"{name}: vLLM does not take it: {_reason(error)}") from error


def is_installed() -> bool:
    """Whether there is a vLLM to import: a folder of that name, which Python would also take, is none."""
    spec = importlib.util.find_spec("vllm")
    return spec is not None and spec.origin is not None


def check(options: Mapping[str, Any]) -> None:
    """Raise `OptionError` where vLLM is not installed, and for an option that is not the user's to set."""
    if not is_installed():
        raise OptionError("engine", "vllm takes the package vllm, which is not installed here; see docs/engines.md")
    for option in options:
        if option in RESERVED:
            raise OptionError("engine_option", f"{option} is set by lalign itself")


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


def _parsed(options: Mapping[str, Any], engine_args: Any) -> dict[str, Any]:
    """Options as vLLM's own parser reads them. Raises `OptionError` with what it says."""
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    class Parser(FlexibleArgumentParser):  # type: ignore[misc, unused-ignore]
        def error(self, message: str) -> Any:
            raise OptionError("engine_option", f"vLLM: {' '.join(message.split())}")

    known = {field.name for field in dataclasses.fields(engine_args)}
    parser = engine_args.add_cli_args(Parser(prog="vllm", add_help=False))
    flags = {action.dest for action in parser._actions if isinstance(action, BooleanOptionalAction)}
    words = []
    for option, value in options.items():
        if option not in known:
            raise OptionError("engine_option", f"vLLM has no option {option!r}")
        flag = option.replace("_", "-")
        if option in flags:
            words.append(f"--{flag}" if _truth(option, value) else f"--no-{flag}")
        else:
            words.append(f"--{flag}={value if isinstance(value, str) else json.dumps(value)}")
    found = vars(parser.parse_args(words))
    return {option: found[option] for option in options}


def _truth(option: str, value: Any) -> bool:
    text = str(value).lower()
    if text not in ("true", "false"):
        raise OptionError("engine_option", f"{option} must be true or false, not {value!r}")
    return text == "true"


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

"""What a user may set of vLLM: `--engine-option max_num_seqs=64`, by the names of its `EngineArgs`."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from argparse import BooleanOptionalAction
from collections.abc import Mapping
from typing import Any

from lalign.errors import OptionError

# What lalign sets itself.
OWN = frozenset(
    (
        *("model", "tokenizer", "skip_tokenizer_init", "dtype", "trust_remote_code", "load_format", "seed", "runner"),
        *("logits_processors", "worker_extension_cls", "worker_cls", "scheduler_cls", "async_scheduling", "convert"),
        *("disable_log_stats", "stream_interval"),
    )
)
# With these another model would run than the one whose tokenizer, context and end tokens lalign reads.
OTHER_MODEL = frozenset(
    (
        *("model_weights", "revision", "code_revision", "tokenizer_revision", "tokenizer_mode", "hf_config_path"),
        "config_format",
    )
)
# With these the twins of a pair would not step together, or not be sampled as lalign chooses.
PARTING = frozenset(
    (
        *("pipeline_parallel_size", "prefill_context_parallel_size", "decode_context_parallel_size", "nnodes"),
        *("node_rank", "enable_batch_sharded_sampling", "speculative_config", "long_prefill_token_threshold"),
        *("diffusion_config", "watermark_config", "enable_trace_replay", "kv_transfer_config", "kv_offloading_size"),
    )
)
PARTING_PREFIXES = ("data_parallel_", "spec_")
# Where and how fast a model runs, in how much memory, and who is told of it: what it computes is the same but for
# rounding. A token is nobody's to read in the header of an output.
HARMLESS = frozenset(
    (
        *("max_model_len", "max_num_seqs", "max_num_active_seqs", "max_num_batched_tokens", "max_num_scheduled_tokens"),
        *("max_num_queued_reqs", "max_num_queued_tokens", "enable_chunked_prefill", "scheduler_reserve_full_isl"),
        *("scheduling_policy", "watermark", "gpu_memory_utilization", "kv_cache_memory_bytes", "block_size"),
        *("num_gpu_blocks_override", "enable_prefix_caching", "prefix_caching_hash_algo", "tensor_parallel_size"),
        *("device_ids", "distributed_executor_backend", "max_parallel_loading_workers", "disable_custom_all_reduce"),
        *("cpu_offload_gb", "enforce_eager", "cudagraph_capture_sizes", "max_cudagraph_capture_size"),
        *("safetensors_load_strategy", "download_dir", "use_tqdm_on_load", "log_level", "hf_token"),
    )
)


def is_installed() -> bool:
    """Whether there is a vLLM to import: a folder of that name, which Python would also take, is none."""
    spec = importlib.util.find_spec("vllm")
    return spec is not None and spec.origin is not None


def check(options: Mapping[str, Any]) -> None:
    """Raise `OptionError` where vLLM is not installed, and for an option that is not the user's to set."""
    if not is_installed():
        raise OptionError("engine", "vllm takes the package vllm, which is not installed here; see docs/engines.md")
    for option in options:
        if option in OWN:
            raise OptionError("engine_option", f"{option} is set by lalign itself")
        if option in OTHER_MODEL:
            raise OptionError("engine_option", f"{option} is refused: the model is all of what --model names")
        if option in PARTING or option.startswith(PARTING_PREFIXES):
            raise OptionError(
                "engine_option", f"{option} is refused: with it pairs come apart, or are sampled otherwise"
            )


def changing(options: Mapping[str, Any]) -> str:
    """The options that change what is computed, by name: equal where the same is computed, but for rounding."""
    return " ".join(f"{name}={_text(value)}" for name, value in sorted(options.items()) if name not in HARMLESS)


def parsed(options: Mapping[str, Any], engine_args: Any) -> dict[str, Any]:
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
            words.append(f"--{flag}={_text(value)}")
    found = vars(parser.parse_args(words))
    return {option: found[option] for option in options}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _truth(option: str, value: Any) -> bool:
    text = str(value).lower()
    if text not in ("true", "false"):
        raise OptionError("engine_option", f"{option} must be true or false, not {value!r}")
    return text == "true"

"""What of vLLM a user may set, and which of it makes another output."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from lalign.backends import open_backend
from lalign.engine.vllm import engine_args
from lalign.engine.vllm.engine_args import HARMLESS, OTHER_MODEL, OWN, PARTING, PARTING_PREFIXES, _truth, changing
from lalign.errors import OptionError
from lalign.models.loading import ModelOptions

OWN_PROBLEM = "is set by lalign itself"
MODEL_PROBLEM = "is refused: the model is all of what --model names"
PARTING_PROBLEM = "is refused: with it pairs come apart, or are sampled otherwise"


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        *((option, OWN_PROBLEM) for option in ("async_scheduling", "logits_processors", "dtype", "disable_log_stats")),
        *((option, MODEL_PROBLEM) for option in ("revision", "tokenizer_revision", "model_weights")),
        *((option, PARTING_PROBLEM) for option in ("speculative_config", "spec_method", "spec_model", "spec_tokens")),
        *((option, PARTING_PROBLEM) for option in ("data_parallel_size", "data_parallel_rank", "nnodes")),
        *((f"{kind}_context_parallel_size", PARTING_PROBLEM) for kind in ("prefill", "decode")),
        *((option, PARTING_PROBLEM) for option in ("watermark_config", "diffusion_config", "enable_trace_replay")),
        *((option, PARTING_PROBLEM) for option in ("enable_batch_sharded_sampling", "kv_transfer_config")),
    ],
)
def test_some_options_are_not_the_users(monkeypatch: pytest.MonkeyPatch, option: str, problem: str) -> None:
    monkeypatch.setattr(engine_args, "is_installed", lambda: True)
    with pytest.raises(OptionError) as caught:
        open_backend(ModelOptions("nowhere"), "vllm", {"max_num_seqs": "4", option: "1"})
    assert str(caught.value) == f"engine_option: {option} {problem}"


def test_every_option_that_is_named_is_one_of_vllm() -> None:
    """Where another vLLM calls one otherwise, it must be looked at again."""
    if not engine_args.is_installed():
        pytest.skip("vllm is not installed here")
    from vllm.engine.arg_utils import EngineArgs

    known = {field.name for field in dataclasses.fields(EngineArgs)}
    assert known >= OWN | OTHER_MODEL | PARTING | HARMLESS
    assert all(any(name.startswith(prefix) for name in known) for prefix in PARTING_PREFIXES)


def test_no_option_is_of_two_kinds() -> None:
    kinds = (OWN, OTHER_MODEL, PARTING, HARMLESS)
    assert len(frozenset().union(*kinds)) == sum(map(len, kinds))


@pytest.mark.parametrize(
    ("given", "mark"),
    [
        ({}, ""),
        ({"max_num_seqs": "4", "gpu_memory_utilization": "0.5", "hf_token": "secret"}, ""),
        ({"max_num_seqs": "4", "kv_cache_dtype": "fp8"}, "kv_cache_dtype=fp8"),
        ({"quantization": "fp8", "attention_backend": "TRITON"}, "attention_backend=TRITON quantization=fp8"),
        ({"hf_overrides": {"b": 1, "a": 2}}, 'hf_overrides={"a": 2, "b": 1}'),
    ],
)
def test_what_changes_results_is_told_and_nothing_else(given: dict[str, Any], mark: str) -> None:
    assert changing(given) == mark


def test_torch_takes_no_engine_options() -> None:
    with pytest.raises(OptionError, match=r"^engine_option: --engine torch takes none$"):
        open_backend(ModelOptions(), "torch", {"max_num_seqs": "4"})


@pytest.mark.parametrize(("value", "truth"), [("true", True), ("False", False), (True, True), (False, False)])
def test_flags_are_true_or_false(value: Any, truth: bool) -> None:
    assert _truth("enforce_eager", value) is truth

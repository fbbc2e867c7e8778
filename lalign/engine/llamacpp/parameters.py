"""The fields of llama.cpp's parameters that a user may set: `--engine-option n_gpu_layers=20`."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lalign.engine.llamacpp.library import Library
from lalign.errors import OptionError

# What lalign decides itself, and what makes no model that generates.
WITHHELD = frozenset(
    (
        *("vocab_only", "no_alloc", "load_mtp", "n_seq_max", "n_rs_seq", "n_outputs_max", "n_outputs_max_per_seq"),
        *("ctx_type", "pooling_type", "attention_type", "embeddings", "kv_unified", "n_samplers", "no_perf"),
        "defrag_thold",
    )
)
# Fields whose values have names, and what these begin with.
NAMED = {
    "split_mode": "LLAMA_SPLIT_MODE_",
    "load_mode": "LLAMA_LOAD_MODE_",
    "lazy_mode": "LLAMA_LAZY_MODE_",
    "rope_scaling_type": "LLAMA_ROPE_SCALING_TYPE_",
    "flash_attn_type": "LLAMA_FLASH_ATTN_TYPE_",
    "type_k": "GGML_TYPE_",
    "type_v": "GGML_TYPE_",
}
# Types that llama.cpp can keep keys and values in.
CACHE_TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "IQ4_NL", "Q5_0", "Q5_1")
# Fields that change what is computed; the others change where, how fast and in how much memory.
CHANGING = ("flash_attn_type", "type_k", "type_v")
CHANGING_PREFIXES = ("rope_", "yarn_")
COUNTS = ("n_ctx", "n_batch", "n_ubatch", "n_threads", "n_threads_batch")
TRUTH = {"true": True, "on": True, "1": True, "false": False, "off": False, "0": False}


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a user has set, by field, for the model and for its context."""

    model: dict[str, Any]
    context: dict[str, Any]

    def fingerprint(self) -> str:
        """Equal for parameters with which the same is computed, but for rounding."""
        return " ".join(
            f"{name}={value}"
            for name, value in sorted({**self.model, **self.context}.items())
            if name in CHANGING or name.startswith(CHANGING_PREFIXES)
        )


def parse(options: Mapping[str, str], library: Library) -> Parameters:
    """Parameters from texts. Raises `OptionError` for a name there is not, with those there are, and for a value."""
    api = library.api
    of_model, of_context = _fields(api.llama_model_params), _fields(api.llama_context_params)
    model: dict[str, Any] = {}
    context: dict[str, Any] = {}
    for name, text in options.items():
        if name not in of_model and name not in of_context:
            raise OptionError("engine_option", f"llamacpp has no {name!r}, but {', '.join([*of_model, *of_context])}")
        into, kinds = (model, of_model) if name in of_model else (context, of_context)
        into[name] = _value(name, text, kinds[name], api)
    if context.get("n_ubatch", 0) > context.get("n_batch", api.llama_context_default_params().n_batch):
        raise OptionError("engine_option", "n_ubatch must not be above n_batch")
    return Parameters(model, context)


def filled(struct: Any, *values: Mapping[str, Any]) -> Any:
    """A struct of parameters with fields set."""
    for fields in values:
        for name, value in fields.items():
            setattr(struct, name, value)
    return struct


def _fields(struct: Any) -> dict[str, Any]:
    numbers = (ctypes.c_bool, ctypes.c_float, ctypes.c_int, ctypes.c_int32, ctypes.c_uint32)
    return {name: kind for name, kind in struct._fields_ if kind in numbers and name not in WITHHELD}


def _value(name: str, text: str, kind: Any, api: Any) -> Any:
    if name in NAMED:
        return _named(name, text, api)
    try:
        if kind is ctypes.c_bool:
            return TRUTH[text.lower()]
        if kind is ctypes.c_float:
            return float(text)
        number = int(text)
    except (KeyError, ValueError):
        wanted = {ctypes.c_bool: "on or off", ctypes.c_float: "a number"}.get(kind, "a whole number")
        raise OptionError("engine_option", f"{name} must be {wanted}, not {text!r}") from None
    least = 1 if name in COUNTS else 0 if kind is ctypes.c_uint32 else -1
    if not least <= number < 2**31:
        raise OptionError("engine_option", f"{name} must be a whole number of at least {least}, not {text}")
    return number


def _named(name: str, text: str, api: Any) -> int:
    begins = NAMED[name]
    names: Iterable[str] = (known.removeprefix(begins) for known in dir(api) if known.startswith(begins))
    names = CACHE_TYPES if begins == "GGML_TYPE_" else [known for known in names if known != "MAX_VALUE"]
    values = {known.lower(): int(getattr(api, begins + known)) for known in names if hasattr(api, begins + known)}
    if text.lower() not in values:
        raise OptionError("engine_option", f"{name} must be one of {', '.join(sorted(values))}, not {text!r}")
    return values[text.lower()]

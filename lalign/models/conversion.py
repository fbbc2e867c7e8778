"""GGUF files converted once to safetensors, in the user's cache folder (design section 7).

transformers takes half a minute to load a GGUF of 100 MB, at every start; the converted copy loads in seconds.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from platformdirs import user_cache_path

CACHE_VARIABLE = "LALIGN_CACHE"
CHUNK = 1 << 20


def cache_folder() -> Path:
    """Where converted models are kept: `$LALIGN_CACHE`, else the platform's user cache folder for lalign."""
    given = os.environ.get(CACHE_VARIABLE)
    return Path(given) if given else user_cache_path("lalign")


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's content, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def converted(gguf: Path, dtype: torch.dtype) -> Path:
    """The folder with a GGUF's weights and tokenizer as transformers saves them; made if it is not there.

    The folder's name is a digest of the file's content, the weights' type and the versions of what converts them.
    It is written aside and renamed, so that it is whole or absent, and by one process at a time.
    """
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("transformers", "gguf", "torch")]
    key = hashlib.sha256("\n".join([file_digest(gguf), str(dtype), *versions]).encode()).hexdigest()[:24]
    folder = cache_folder() / f"{gguf.stem}-{key}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            aside = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
            try:
                _convert(gguf, dtype, aside)
                aside.rename(folder)
            finally:
                shutil.rmtree(aside, ignore_errors=True)
    return folder


def _convert(gguf: Path, dtype: torch.dtype, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=dtype)
    # The weights are plain tensors by now; transformers refuses to save what still says it is quantised.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)

"""GGUF files converted once to safetensors, in the user's cache folder (design section 7).

transformers takes half a minute to load a GGUF of 100 MB, at every start; the converted copy loads in seconds.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from platformdirs import user_cache_path

from lalign.errors import ModelError
from lalign.models.completeness import refuse_incomplete

CACHE_VARIABLE = "LALIGN_CACHE"
CHUNK = 1 << 20
# In a finished folder, the sizes of its files.
CONTENTS = "contents"
# What a finished folder is called, and what it is called while it is written.
CONVERTED = re.compile(r".+-[0-9a-f]{24}")
ASIDE = re.compile(r"(.+-[0-9a-f]{24})\.[a-z0-9_]{8}")


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


def converted(gguf: Path, dtype: torch.dtype, *, anew: bool = False) -> Path:
    """The folder with a GGUF's weights and tokenizer as transformers saves them; made if it is not there, or damaged.

    The folder's name is a digest of the file's content, the weights' type and the versions of what converts them.
    It is written aside and renamed, so that it is whole or absent, and by one process at a time. What processes that
    were killed meanwhile have left is removed.

    Args:
        gguf: the file.
        dtype: of the weights.
        anew: do not take the folder that is there, because it does not load.

    Raises `ModelError` for a file that lacks part of its model, `OSError` where the folder cannot be written.
    """
    folder = _folder(gguf, dtype)
    if _whole(folder) and not anew:
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    _clean_up(folder.parent)
    with _lock(folder):
        if anew or not _whole(folder):
            aside = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
            try:
                _convert(gguf, dtype, aside)
                sizes = {path.name: path.stat().st_size for path in aside.iterdir()}
                (aside / CONTENTS).write_text(json.dumps(sizes))
                shutil.rmtree(folder, ignore_errors=True)
                aside.rename(folder)
            finally:
                shutil.rmtree(aside, ignore_errors=True)
    return folder


def already_converted(gguf: Path, dtype: torch.dtype) -> Path | None:
    """The folder that `converted` has made, if it is there and whole. Raises `OSError`."""
    folder = _folder(gguf, dtype)
    return folder if _whole(folder) else None


def _folder(gguf: Path, dtype: torch.dtype) -> Path:
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("transformers", "gguf", "torch")]
    key = hashlib.sha256("\n".join([file_digest(gguf), str(dtype), *versions]).encode()).hexdigest()[:24]
    return cache_folder() / f"{gguf.stem}-{key}"


def _whole(folder: Path) -> bool:
    """Whether a folder holds what it did when it was finished."""
    try:
        sizes = json.loads((folder / CONTENTS).read_bytes())
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False


def _clean_up(cache: Path) -> None:
    """Remove what conversions that were killed have left: a running one holds its folder's lock."""
    for aside in list(cache.iterdir()):
        if (named := ASIDE.fullmatch(aside.name)) and aside.is_dir():
            with contextlib.suppress(Timeout), _lock(cache / named[1], timeout=0):
                shutil.rmtree(aside, ignore_errors=True)


def _lock(folder: Path, timeout: float = -1) -> FileLock:
    return FileLock(f"{folder}.lock", timeout=timeout)


def _convert(gguf: Path, dtype: torch.dtype, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    refuse_incomplete(gguf)
    model: Any
    model, report = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=dtype, output_loading_info=True
    )
    if missing := sorted(report["missing_keys"]):
        raise ModelError(f"{gguf}: lacks {len(missing)} of the model's tensors, such as {missing[0]}")
    # The weights are plain tensors by now; transformers refuses to save what still says it is quantised.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)

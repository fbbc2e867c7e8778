"""What the cache folder holds, and how it is emptied: converted models, each in a folder of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from lalign.models.conversion import ASIDE, CONVERTED, cache_folder


@dataclass(frozen=True, slots=True)
class Cached:
    """A converted model, or what a conversion that was cut short has left, and its size in bytes."""

    path: Path
    size: int


def cached() -> list[Cached]:
    """Everything in the cache folder that lalign put there, by name; empty where there is no such folder."""
    return [Cached(folder, _size(folder)) for folder in sorted(_own())]


def clear() -> tuple[list[Cached], list[Cached]]:
    """Remove all of it. Returns what was removed, and what stays since another process is making it.

    Nothing is touched that lalign did not put there. Raises `OSError`.
    """
    removed, kept = [], []
    for entry in cached():
        lock = entry.path.with_name(f"{_model_of(entry.path)}.lock")
        try:
            with FileLock(lock, timeout=0):
                shutil.rmtree(entry.path)
                lock.unlink(missing_ok=True)
        except Timeout:
            kept.append(entry)
        else:
            removed.append(entry)
    return removed, kept


def _own() -> Iterator[Path]:
    with suppress(FileNotFoundError, NotADirectoryError):
        for path in cache_folder().iterdir():
            if path.is_dir() and not path.is_symlink() and CONVERTED.fullmatch(_model_of(path)):
                yield path


def _model_of(path: Path) -> str:
    """The name of the folder that a folder is, or is to become."""
    aside = ASIDE.fullmatch(path.name)
    return aside[1] if aside else path.name


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):  # as it is removed meanwhile
            total += path.stat().st_size if path.is_file() else 0
    return total

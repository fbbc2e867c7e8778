"""Folders of Parquet files, as the hub of Hugging Face gives a data set: the files of its one split, in order."""

from __future__ import annotations

import re
import shlex
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from lalign.errors import InputError

# A data set's files lie in its folder, in `data` or that of a configuration, or in one of a split within that.
_DEPTHS = ("*.parquet", "*/*.parquet", "*/*/*.parquet")
_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}(-\w+)?")
_SPLIT = re.compile(r"(?<![a-z])(train|training|test|testing|validation|valid|val|dev|eval|evaluation)(?![a-z])")
# Splits are named in a message up to this many.
_NAMED = 5


def parquet_files(folder: Path) -> list[Path]:
    """All Parquet files of a folder, by name; hidden ones are none of them."""
    found = (path for depth in _DEPTHS for path in folder.glob(depth))
    return sorted(path for path in found if not _hidden(path.relative_to(folder)) and path.is_file())


def only_split(folder: Path) -> list[Path]:
    """The files of the one split that a folder holds. Raises `InputError`, which names them, where it holds several."""
    splits: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    for path in parquet_files(folder):
        splits[path.parent, _split(path)].append(path)
    if len(splits) == 1:
        return next(iter(splits.values()))
    named = [shlex.quote(_pattern(files)) for files in splits.values()]
    listed = ", ".join(named[:_NAMED]) + (f" and {len(named) - _NAMED} more" if len(named) > _NAMED else "")
    raise InputError(f"{folder}: holds several splits; name one: {listed}")


def _hidden(path: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)


def _split(path: Path) -> str:
    """The split that a file's name tells, as that of `train-00000-of-00002.parquet`; empty where it tells none."""
    if shard := _SHARD.fullmatch(path.stem):
        return shard[1]
    word = _SPLIT.search(path.stem.lower())
    return word[1] if word else ""


def _pattern(files: Sequence[Path]) -> str:
    """What names these files of one folder, and none else: a pattern, or the file where it is one."""
    first = files[0]
    if len(files) > 1:
        for pattern in ("*.parquet", f"{_split(first)}-*.parquet", f"*{_split(first)}*.parquet"):
            if sorted(first.parent.glob(pattern)) == sorted(files):
                return str(first.parent / pattern)
    return str(first)

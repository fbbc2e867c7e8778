"""No file that a job writes may be one that it reads, or another that it writes: by name, or by a link of any kind."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from lalign.errors import InputError, OptionError, OutputError
from lalign.jobs.header import beside
from lalign.records.inputs import named as fitting

# What goes with an output, while a job runs or for good.
BESIDE = (".run.json", ".run.json.tmp", ".lock", ".retry", ".retry.tmp", ".replies", ".part")
_OF_A_MODEL = (".bin", ".gguf", ".jinja", ".json", ".model", ".py", ".safetensors", ".txt")


@dataclass(frozen=True, slots=True)
class Named:
    """A file as its user names it: the option (or "input"), and the path; None for stdin, or stdout."""

    option: str
    path: Path | None


def check_paths(reads: Iterable[Named], output: Named | None = None, plot: Named | None = None) -> None:
    """Nothing is touched.

    Args:
        reads: every file the job reads; a folder stands for the model in it, a pattern for all that fit.
        output: where records go; what goes beside it is looked at too.
        plot: another file that is written.

    Raises `OptionError` where a file that is written is one that is read, or the other that is written.
    """
    read = [(named, file) for named in reads for file in _read(named)]
    written = [(output, file) for file in _written(output)] if output is not None else []
    for named, file in written:
        _check(named, file, read)
    if plot is not None and plot.path is not None:
        _check(plot, plot.path, read + written)


def may_replace(option: str, path: Path, *, overwrite: bool) -> None:
    """Raises `OptionError` where a file would be replaced without having been asked for."""
    if os.path.lexists(path) and not overwrite and not path.is_char_device():
        raise OptionError(option, f"{path}: exists; --overwrite replaces it")


def check_replaceable(name: str, *, overwrite: bool, resume: bool | None) -> None:
    """Raises `OutputError` where neither is wanted for an output that exists; `resume` is None where it is not had."""
    if not (overwrite or resume):
        raise OutputError(
            f"{name}: exists; --overwrite replaces it{'' if resume is None else ', --resume continues it'}"
        )


def _check(written: Named, file: Path | int, others: Iterable[tuple[Named, Path | int]]) -> None:
    for other, its in others:
        if _same(file, its):
            what = "the input" if other.option == "input" else f"the file of --{other.option.replace('_', '-')}"
            raise OptionError(written.option, f"{_shown(file)}: is {what}")


def _read(named: Named) -> Iterator[Path | int]:
    if named.path is None:
        yield from _descriptor(sys.stdin)
        return
    yield named.path
    with suppress(InputError):
        yield from fitting([named.path])
    with suppress(OSError):
        if named.path.is_dir():
            yield from (file for file in named.path.iterdir() if file.suffix in _OF_A_MODEL and not _is_beside(file))


def _written(named: Named) -> Iterator[Path | int]:
    if named.path is None:
        yield from _descriptor(sys.stdout)
        return
    yield named.path
    real = Path(_real(named.path))
    if real.name:
        yield from (beside(real, suffix) for suffix in BESIDE)


def _is_beside(file: Path) -> bool:
    return file.name.endswith(BESIDE)


def _descriptor(stream: IO[Any] | None) -> Iterator[int]:
    with suppress(OSError, ValueError, AttributeError):
        yield stream.fileno()  # type: ignore[union-attr]


def _same(first: Path | int, second: Path | int) -> bool:
    try:
        one, other = os.stat(first), os.stat(second)
    except (OSError, ValueError):
        # Of two files that are not there yet, the paths tell.
        return not isinstance(first, int) and not isinstance(second, int) and _real(first) == _real(second)
    # A terminal or a pipe may well be read and written.
    return os.path.samestat(one, other) and stat.S_ISREG(one.st_mode)


def _real(path: Path) -> str:
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):
        return str(path)


def _shown(file: Path | int) -> str:
    return "stdout" if isinstance(file, int) else str(file)

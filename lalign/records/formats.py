"""What is given for JSON Lines and is something else: told by how it begins, with the command that mends it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath
from typing import BinaryIO

from lalign.errors import InputError

_BOM = b"\xef\xbb\xbf"
_CSV = 'import csv, json, sys; [print(json.dumps(row)) for row in csv.DictReader(sys.stdin, dialect="{}")]'
# Read whole first: pyarrow's threads, where they read from Python, may end the process with an error.
_PARQUET = (
    "import json, sys, pyarrow, pyarrow.parquet as p; data = pyarrow.BufferReader(sys.stdin.buffer.read()); "
    "[print(json.dumps(row, default=str)) for row in p.read_table(data).to_pylist()]"
)


@dataclass(frozen=True, slots=True)
class Format:
    """A format that is no JSON Lines: its name, how a file of it begins, and the command that makes JSON Lines of it.

    The command reads the file as its last argument, or as stdin where it ends in `<`.
    """

    name: str
    start: re.Pattern[bytes]
    command: str


def _format(name: str, start: bytes, command: str) -> Format:
    return Format(name, re.compile(start), command)


# The first that fits counts. A character of UTF-16 without a mark is told by the zero byte of an ASCII one.
_FORMATS = (
    _format("UTF-32", rb"\xff\xfe\0\0|\0\0\xfe\xff", "iconv -f UTF-32 -t UTF-8"),
    _format("UTF-16", rb"\xff\xfe|\xfe\xff", "iconv -f UTF-16 -t UTF-8"),
    _format("UTF-16 without a byte order mark", rb"([\t-~]\0){2}", "iconv -f UTF-16LE -t UTF-8"),
    _format("UTF-16 without a byte order mark", rb"(\0[\t-~]){2}", "iconv -f UTF-16BE -t UTF-8"),
    _format("a Parquet file", rb"PAR1", f"python -c {shlex.quote(_PARQUET)} <"),
    _format("a zip archive", rb"PK\x03\x04", "unzip -p"),
    _format("gzip data", rb"\x1f\x8b", "gzip -dc <"),
    _format("zstd data", rb"\x28\xb5\x2f\xfd", "zstd -dc <"),
    _format("xz data", rb"\xfd7zXZ\0", "xz -dc <"),
    _format("bzip2 data", rb"BZh[1-9]", "bzip2 -dc <"),
    _format("a pointer to a file of Git LFS", rb"version https://git-lfs", "git lfs smudge <"),
    _format("a JSON array", rb"\s*\[\s*(\{|\Z)", "jq -c '.[]'"),
    _format("JSON of several lines a record", rb"\s*\{[^\S\n]*\n", "jq -c ."),
)
# These begin as any text does, and go by their name.
_TABLES = {
    ".csv": _format("a table of values between commas", rb"[^{]", f"python -c {shlex.quote(_CSV.format('excel'))} <"),
    ".tsv": _format("a table of values between tabs", rb"[^{]", f"python -c {shlex.quote(_CSV.format('excel-tab'))} <"),
}
_UNPACK = {".gz": "gzip -dc", ".zst": "zstd -dc"}


def refuse_other_formats(stream: BinaryIO, name: str) -> None:
    """Raise `InputError` where what `stream` gives next, which is not consumed, begins as another format does.

    Waits until there is something to look at. A stream that cannot be looked into, and one that ends or fails there,
    is left to whoever reads it.
    """
    peek: Callable[[int], bytes] | None = getattr(stream, "peek", None)
    if peek is None:
        return
    try:
        head = peek(1)
    except EOFError:
        return
    if (found := _recognised(head.removeprefix(_BOM), name)) is not None:
        command = _command(found, name)
        raise InputError(f"{name}: is {found.name}, not JSON Lines; this makes JSON Lines of it: {command}")


def plain_suffix(path: PurePath) -> str:
    """The suffix that tells the format, in small letters: the one before .gz or .zst."""
    return (path.with_suffix("") if path.suffix.lower() in _UNPACK else path).suffix.lower()


def _recognised(head: bytes, name: str) -> Format | None:
    table = _TABLES.get(plain_suffix(PurePath(name)))
    return next((known for known in (*_FORMATS, *([table] if table else [])) if known.start.match(head)), None)


def _command(found: Format, name: str) -> str:
    as_filter, file = found.command.removesuffix(" <"), shlex.quote(name)
    if name == "stdin":
        return as_filter
    unpack = _UNPACK.get(PurePath(name).suffix.lower())
    return f"{unpack} < {file} | {as_filter}" if unpack else f"{found.command} {file}"

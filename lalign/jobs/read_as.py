"""How the prompts in an output were read, going by its header and by what its records say themselves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lalign.jobs.header import read_header
from lalign.records.batch_lines import unpacked
from lalign.records.json_line import exact_json
from lalign.records.parsing import Record, parse_fields
from lalign.records.problems import Unusable
from lalign.records.reading import READ_BY, Reading
from lalign.results import Failure


def reading_of(output: Path | None) -> Reading | None:
    """How a job read its records, as the header beside its output or beside the folder of it says; None without one.

    Raises `OutputError` where that cannot be read.
    """
    if output is None or str(output) == "-":
        return None
    real = output.resolve()
    for path in (real, real.parent):
        if path.name and (header := read_header(path)) is not None:
            return Reading.of(header.fingerprint)
    return None


def read_as(record: Mapping[str, Any], said: Reading | None) -> Reading | None:
    """How a record's prompt was read: as the record says, else as `said`, by the header; None where neither tells.

    Raises `Unusable` where the record names a template, which stands in the header alone, and that is not there.
    """
    mark = record.get(READ_BY)
    if mark is None or (said is not None and said.mark() == mark):
        return said
    if not isinstance(mark, Mapping) or "prompt_template" in mark:
        raise Unusable(
            "missing_prompt",
            f"{READ_BY}: its prompt is made by --prompt-template, and the header with the template is not beside the "
            "file (.run.json)",
        )
    return Reading.of(mark)


def read_kept(text: str, record: Mapping[str, Any], line: int, reading: Reading | None) -> Record | Failure:
    """What `input` in a record asks for, with the line of JSON that the record was read from."""
    exact = unpacked(exact_json(text))["input"] if reading is not None and reading.fills else None
    return parse_fields(record["input"], line, reading=reading, exact=exact)

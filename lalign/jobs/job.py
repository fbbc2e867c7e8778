"""A batch job: lines of a file in, records out, whatever happens on the way (design sections 4 and 6)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

import lalign
from lalign.aligner import Aligner
from lalign.errors import LalignError
from lalign.jobs.journal import Journal
from lalign.jobs.resume import Resumed
from lalign.jobs.signals import Interruption
from lalign.jobs.stream import StreamJournal
from lalign.options import Execution, Statistics
from lalign.records.parsing import Record, parse_record
from lalign.records.requests import Settings
from lalign.records.source import InputDigest, RawLine, count_lines, open_source, read_lines
from lalign.results import Failure, Result, to_line
from lalign.text import json_number


class BadLine(LalignError):
    """With `strict`: a line that cannot be answered; all lines before it are written."""


@dataclass(frozen=True, slots=True)
class JobInput:
    """What is read: the path (None is stdin), whether objects are kept for the output, and how many at the most."""

    path: Path | None = None
    keep: bool = False
    limit: int | None = None
    strict: bool = False

    @property
    def name(self) -> str:
        return str(self.path) if self.path is not None else "stdin"

    def total(self) -> int | None:
        """How many records there are to come, None where only reading would tell."""
        total = count_lines(self.path)
        if total is None or self.limit is None:
            return total if total is not None else self.limit
        return min(total, self.limit)


@dataclass(slots=True)
class Tally:
    """What a job has done: records written, failures among them, tokens, and sums over them for the summary."""

    records: int = 0
    failures: int = 0
    tokens: int = 0
    kl_sum: float = 0.0
    flipped: float = 0.0
    skipped: int = 0
    _ids: set[int] = field(default_factory=set)
    duplicate: str | None = None

    def count(self, outcome: Result | Failure) -> None:
        """Take one written record into account."""
        self.records += 1
        if isinstance(outcome, Failure):
            self.failures += 1
            return
        self.tokens += outcome.usage.completion_tokens
        if outcome.summary:
            self.kl_sum += outcome.summary["kl_aligned_base_sum"]
            self.flipped += outcome.summary["flipped_share"] * outcome.usage.completion_tokens


class Job:
    """One run of `generate` or `sweep` over a file.

    Args:
        source: what is read.
        settings: of every record; `system` and `execution` likewise.
        journal: an output opened already.
        written: the statistics that records are written with, where that is less than `execution` computes.
        hear_record: called with each record that is read, in the thread that reads.
    """

    def __init__(
        self,
        source: JobInput,
        settings: Settings,
        journal: Journal | StreamJournal,
        *,
        system: str | None = None,
        execution: Execution | None = None,
        written: Statistics | None = None,
        hear_record: Callable[[Record], None] | None = None,
    ) -> None:
        self.source = source
        self.settings = settings
        self.journal = journal
        self.system = system
        self.execution = execution or Execution()
        self.written = written or self.execution.statistics
        self.hear_record = hear_record
        self.tally = Tally()
        self.resumed = Resumed()
        self.stream = open_source(source.path)

    def fingerprint(self, model: str) -> dict[str, Any]:
        """Everything that a response depends on, for a resumed run to compare: flat, JSON values."""
        settings = self.settings
        marks: dict[str, Any] = {
            "lalign": lalign.__version__,
            "torch": version("torch"),
            "transformers": version("transformers"),
            "model": model,
            "system": self.system,
            "stats": self.written,
            "keep": self.source.keep,
            "principle": list(settings.principles.texts),
            "weight": list(settings.principles.weights),
            "contrast": settings.principles.contrast,
            **asdict(settings.sampling),
        }
        points = [{name: json_number(value) for name, value in asdict(point).items()} for point in settings.alignments]
        marks |= points[0] if not settings.sweep else {"points": points}
        return marks | {"stop": list(settings.sampling.stop)}

    def start(self, aligner: Aligner) -> None:
        """Begin the output, or go on with it. Raises `OutputError` where it belongs to a run of other settings."""
        fingerprint = self.fingerprint(aligner.backend.fingerprint())
        self.resumed = self.journal.start(fingerprint)

    def remaining(self) -> int | None:
        """How many lines are left to answer; None where only reading would tell."""
        total = self.source.total()
        return None if total is None else max(0, total - self.resumed.records // len(self.settings.alignments))

    def run(
        self,
        aligner: Aligner,
        interruption: Interruption,
        watch: Callable[[list[Result | Failure]], None] = lambda outcomes: None,
    ) -> None:
        """Answer every line, after `start`; `watch` hears after each step what was written.

        Raises `OutputError` or `InputError` where writing or reading fails, `BadLine` with `strict`; what came before
        is written. Returns early, in good order, on an interruption.
        """
        ticks = aligner.ticks(self._records(), self.settings, system=self.system, execution=self.execution)
        try:
            for outcomes in ticks:
                watch(self._write(outcomes))
                if interruption:
                    break
            else:
                if self.source.limit is None:
                    self.journal.end_input()
        finally:
            ticks.close()
        self.journal.sync()

    def _write(self, outcomes: list[Result | Failure]) -> list[Result | Failure]:
        """Write what does not stand already; returns what was written."""
        written: list[Result | Failure] = []
        for line, group in groupby(outcomes, key=lambda outcome: outcome.line):
            records = list(group)
            for item, outcome in enumerate(records):
                if self.resumed.stands(line, item):
                    continue
                if isinstance(outcome, Failure) and self.source.strict:
                    raise BadLine(f"{self.source.name}:{line}: {outcome.message}")
                self.journal.write(to_line(self._reduced(outcome)), line=line, last=item == len(records) - 1)
                self.tally.count(outcome)
                written.append(outcome)
        return written

    def _reduced(self, outcome: Result | Failure) -> Result | Failure:
        """An outcome with no more statistics than are to be written."""
        if isinstance(outcome, Failure) or self.written == "steps":
            return outcome
        return replace(outcome, steps=None, summary=outcome.summary if self.written == "summary" else None)

    def _records(self) -> Iterator[Record | Failure]:
        """The records to run, in order; lines that an earlier run has answered are read, and passed over."""
        digest = InputDigest()
        for raw in itertools.islice(read_lines(self.stream, self.source.name), self.source.limit):
            digest.update(raw)
            self.journal.mark_input(raw.number, digest.hexdigest())
            if self._answered(raw):
                self.tally.skipped += 1
                continue
            record = parse_record(raw, keep=self.source.keep)
            self._note_duplicate(record)
            if self.hear_record is not None and isinstance(record, Record):
                self.hear_record(record)
            yield record

    def _answered(self, raw: RawLine) -> bool:
        """Whether all of a line's records stand; of the last line of a sweep some may be missing."""
        return self.resumed.stands(raw.number, len(self.settings.alignments) - 1)

    def _note_duplicate(self, record: Record | Failure) -> None:
        if self.tally.duplicate is not None or record.id == record.line:
            return
        mark = hash(repr(record.id))  # -1 and -2 have one hash
        if mark in self.tally._ids:
            self.tally.duplicate = f"{self.source.name}:{record.line}: id {record.id!r} was given before; all are kept"
            self.tally._ids.clear()
        else:
            self.tally._ids.add(mark)

"""From outcomes to the lines of an output, less what stands there already."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import groupby

from lalign.errors import InputError, LalignError
from lalign.jobs.output import Output
from lalign.jobs.reader import Read
from lalign.jobs.resume import Resumed
from lalign.options import Statistics
from lalign.results import Failure, Result, to_line


class BadLine(LalignError):
    """With `strict`: a line that cannot be answered; all lines before it are written."""


class Writer:
    """Writes outcomes, in the order of their lines.

    Args:
        output: started already.
        resumed: what stands in it.
        statistics: that records are written with, where that is less than they come with.
        strict: whether a failure ends it.
        place: where a line of the input stands, for messages.
        shape: makes the line of an outcome.
    """

    def __init__(
        self,
        output: Output,
        resumed: Resumed,
        statistics: Statistics,
        *,
        strict: bool,
        place: Callable[[int], str],
        shape: Callable[[Result | Failure], bytes] = to_line,
    ) -> None:
        self._output = output
        self._resumed = resumed
        self._statistics = statistics
        self._strict = strict
        self._place = place
        self._shape = shape

    def note(self, read: Iterable[Read]) -> None:
        """Lines that were read, before their outcomes come."""
        for line in read:
            self._output.mark(line.line, line.digest)

    def write(self, outcomes: Iterable[Result | Failure]) -> list[Result | Failure]:
        """Write what does not stand; returns what was written.

        Raises `OutputError`, `BadLine` with `strict`, and `InputError` where a line of which some records stand fails
        as a whole, which that line could not have done when they were made.
        """
        written: list[Result | Failure] = []
        for line, group in groupby(outcomes, key=lambda outcome: outcome.line):
            records = list(group)
            if self._resumed.stands(line, len(records) - 1):
                raise InputError(f"line {line} of the input is not the one that the output answers in part")
            for item, outcome in enumerate(records):
                if self._resumed.stands(line, item):
                    continue
                if isinstance(outcome, Failure) and self._strict:
                    raise BadLine(f"{self._place(line)}: {outcome.message}")
                record, last = self._shape(self._reduced(outcome)), item == len(records) - 1
                self._output.write(record, line=line, last=last, failed=isinstance(outcome, Failure))
                written.append(outcome)
        return written

    def _reduced(self, outcome: Result | Failure) -> Result | Failure:
        """An outcome with no more statistics than are to be written."""
        if isinstance(outcome, Failure) or self._statistics == "steps":
            return outcome
        return replace(outcome, steps=None, summary=outcome.summary if self._statistics == "summary" else None)

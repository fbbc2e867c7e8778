"""What is told of an input as a whole, once: what its records ask for in vain, and where their prompts come from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from lalign.records.conversations import prefill_of
from lalign.records.parsing import Record
from lalign.records.problems import shown

# Names come from data: so many are counted one by one, and so many of these are told.
_COUNTED = 1000
_TOLD = 10


class Notices:
    """Counts, record by record, what `lines` then says in a line or two."""

    def __init__(self) -> None:
        self._ignored: Counter[str] = Counter()
        self._read_from: Counter[str] = Counter()
        self._continued = 0

    def count(self, record: Record) -> None:
        """Take one record into account."""
        self.add(record.ignored, record.read_from, is_continued(record))

    def add(self, ignored: Iterable[str], read_from: str | None, continued: bool) -> None:
        """As `count`, by what is told of a record."""
        for given in ignored:
            self._count_ignored(given if len(given) <= 60 else shown(given), 1)
        if read_from is not None:
            self._read_from[read_from] += 1
        self._continued += continued

    def merge(self, other: Notices) -> None:
        """Take into account what another has counted."""
        for name, count in other._ignored.items():
            self._count_ignored(name, count)
        self._read_from += other._read_from
        self._continued += other._continued

    def _count_ignored(self, name: str, count: int) -> None:
        if name in self._ignored or len(self._ignored) < _COUNTED:
            self._ignored[name] += count

    def lines(self, name: str) -> list[str]:
        """What is to be told of the input called `name`; nothing where there is nothing."""
        told = []
        if self._read_from:
            told.append(f"{name}: prompts were read from {_listed(self._read_from)}")
        if self._continued:
            records = "1 record ends" if self._continued == 1 else f"{self._continued} records end"
            told.append(f"{name}: {records} with an assistant's turn, which the response goes on from")
        if self._ignored:
            told.append(f"{name}: ignored {_listed(self._ignored)}")
        return told


def is_continued(record: Record) -> bool:
    """Whether the response goes on from an assistant's turn."""
    return prefill_of(record.messages) is not None


def _listed(counts: Counter[str]) -> str:
    (first, count), *others = counts.most_common(_TOLD)
    listed = f"{first} in {count} record{'s' if count != 1 else ''}"
    listed += "".join(f", {name} in {count}" for name, count in others)
    more = len(counts) - 1 - len(others)
    return f"{listed}, and {more} more" if more else listed

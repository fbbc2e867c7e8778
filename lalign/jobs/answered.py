"""Which lines of the input an output answers, as a sum of digests that grows with the answers."""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left

from lalign.jobs.header import InputMark
from lalign.records.source import RawLine

_MODULUS = 1 << 256


def line_digest(raw: RawLine) -> int:
    """A digest of a line and its number, below 2**256. Line endings, blank lines and compression do not count."""
    start = b"%d:%d:" % (raw.number, raw.too_long)
    return int.from_bytes(hashlib.sha256(start + raw.data).digest(), "big")


def summed(first: int, second: int) -> int:
    """The digest of two sets of lines together. A sum, as lines that failed join it later than those around them."""
    return (first + second) % _MODULUS


def holds(numbers: array[int], number: int) -> bool:
    """Whether `number` is among `numbers`, which are in order."""
    index = bisect_left(numbers, number)
    return index < len(numbers) and numbers[index] == number


class AnsweredInput:
    """The mark of the lines that are answered, brought up with each answer."""

    def __init__(self, mark: InputMark | None = None) -> None:
        mark = mark or InputMark()
        self.lines = mark.lines
        self._digest = mark.digest
        self._failed = array("q", mark.failed)

    def mark(self) -> InputMark:
        """As it is now."""
        return InputMark(self.lines, self._digest, self._failed[:])

    def answer(self, line: int, digest: int, *, failed: bool) -> None:
        """A line is answered: one beyond those so far, all before it being answered too, or one of them anew."""
        if line > self.lines:
            self.lines = line
            if failed:
                self._failed.append(line)
            else:
                self._digest = summed(self._digest, digest)
        elif failed != holds(self._failed, line):
            if failed:
                self._failed.insert(bisect_left(self._failed, line), line)
            else:
                self._failed.remove(line)
            self._digest = summed(self._digest, -digest if failed else digest)

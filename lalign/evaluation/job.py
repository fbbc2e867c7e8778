"""An evaluation as a job: what each item was answered goes to an output in order, from which it is resumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from lalign.evaluation.asked import as_line, read_scores, to_record
from lalign.evaluation.preferences import Item
from lalign.evaluation.scoring import Score
from lalign.jobs.answered import line_digest
from lalign.jobs.output import Output
from lalign.jobs.reader import Comparison
from lalign.method.recipe import Recipe


class AskedItems:
    """The output of one evaluation.

    Args:
        output: opened already, at `path`.
        items: all that is to be asked, and `alignments` at which points.
        fingerprint: the settings that must be the same for the output to be gone on with.

    Attributes:
        standing: the scores of the first items, that an earlier run has left.

    Raises `OutputError` where the output belongs to a run of other settings, `InputError` to one of other questions.
    """

    def __init__(
        self,
        output: Output,
        path: Path,
        items: Sequence[Item],
        alignments: Sequence[Recipe],
        fingerprint: Mapping[str, Any],
    ) -> None:
        self._output = output
        self._alignments = alignments
        self._lines = [as_line(number, item) for number, item in enumerate(items, start=1)]
        self._numbers = {item: number for number, item in enumerate(items, start=1)}
        self._held: dict[int, Score] = {}
        resumed = output.start(fingerprint)
        if resumed.input is not None:
            comparison = Comparison(resumed)
            for line in self._lines[: comparison.last]:
                comparison.compare(line)
            comparison.end()
            for line in self._lines[comparison.covered : resumed.last_line]:
                output.mark(line.number, line_digest(line))
        count = resumed.last_line
        self.standing = list(read_scores(path, items, len(alignments), count)) if count else []
        self._written = len(self.standing)

    def put(self, score: Score) -> None:
        """Take a score, and write all that may leave now. Raises `OutputError`."""
        self._held[self._numbers[score.item]] = score
        while (held := self._held.pop(self._written + 1, None)) is not None:
            self._written += 1
            line = self._lines[self._written - 1]
            self._output.mark(line.number, line_digest(line))
            record = to_record(line.number, held, self._alignments)
            self._output.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE), line=line.number)

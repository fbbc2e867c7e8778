"""What people see on stderr: plain lines, tables, progress. No text from data can command the terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lalign.results import Failure, Result
from lalign.text import printable

if TYPE_CHECKING:
    from lalign.jobs.job import Tally


# Of failed lines, this many are named on the terminal; all of them are in the output.
NAMED_FAILURES = 20


def say(message: str) -> None:
    """One line on stderr."""
    sys.stderr.write(f"lalign: {printable(message)}\n")
    sys.stderr.flush()


def show(table: Table) -> None:
    """A table on stderr, as wide as the terminal."""
    Console(stderr=True).print(table)


class Progress:
    """tqdm on stderr: records done of the total where that is known, tokens a second, mean divergence.

    Silent when stderr is no terminal, or when told to be.
    """

    def __init__(self, total: int | None, *, quiet: bool, source: str, unit: str = "rec") -> None:
        from tqdm import tqdm

        hidden = quiet or not sys.stderr.isatty()
        # stdout is never touched: it holds records alone.
        self.bar: Any = tqdm(total=total, unit=unit, disable=hidden, file=sys.stderr, dynamic_ncols=True)
        self.source = source
        self.named = 0
        self.began = time.monotonic()

    def update(self, written: list[Result | Failure], tally: Tally) -> None:
        """Show what was written since the last call; name lines that failed."""
        for outcome in written:
            if isinstance(outcome, Failure):
                self._name(outcome)
        seconds = max(time.monotonic() - self.began, 1e-9)
        shown = {"tok/s": f"{tally.tokens / seconds:.1f}"}
        if tally.tokens and tally.kl_sum:
            shown["KL"] = f"{tally.kl_sum / tally.tokens:.3f}"
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update(len(written))

    def _name(self, failure: Failure) -> None:
        self.named += 1
        if self.named <= NAMED_FAILURES:
            self.write(f"{self.source}:{failure.line}: {failure.message}")
        elif self.named == NAMED_FAILURES + 1:
            self.write("more lines failed; each has an error record in the output")

    def reach(self, done: int, total: int) -> None:
        """Show that `done` of `total` are done."""
        self.bar.total = total
        self.bar.update(done - self.bar.n)

    def note(self, doing: str) -> None:
        """What is being done, beside the bar."""
        self.bar.set_description(printable(doing))

    def write(self, message: str) -> None:
        """A line above the bar."""
        self.bar.write(f"lalign: {printable(message)}", file=sys.stderr)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.close()


def summary(tally: Tally, seconds: float, where: str) -> Table:
    """The short table at the end of a job."""
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right", style="bold")
    table.add_column(overflow="fold")

    def row(name: str, value: str) -> None:
        table.add_row(name, Text(printable(value)))

    answered = tally.records - tally.failures
    row("answered", f"{answered} record{'s' if answered != 1 else ''} to {where}")
    if tally.skipped:
        row("stood already", f"{tally.skipped} lines")
    if tally.failures:
        row("failed", f"{tally.failures} (error records in their place)")
    row("time", f"{seconds:.1f} s, {tally.tokens} tokens, {tally.tokens / max(seconds, 1e-9):.1f} tokens/s")
    if tally.kl_sum:
        row("KL(aligned||base)", f"{tally.kl_sum / tally.tokens:.3f} nats per token")
        row("flipped", f"{100 * tally.flipped / tally.tokens:.1f} % of tokens")
    return table

"""What people see on stderr: plain lines, tables, progress. No text from data can command the terminal."""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, cast

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from lalign.results import Failure, Result
from lalign.text import printable

if TYPE_CHECKING:
    from lalign.jobs.tally import Tally


# Where there is no terminal to draw a bar in, so many seconds lie between two lines of progress.
LOG_SECONDS = 30.0
# Of failed lines, this many are named on the terminal; all of them are in the output.
NAMED_FAILURES = 20


class Unfailing(io.TextIOBase):
    """stderr for a job that must not end since nobody reads what it says: from the first fault on, all is dropped."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str, /) -> int:
        """All of `text`, or nothing more."""
        self._attempt(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """As that of the stream."""
        self._attempt(lambda: self._stream.flush())

    def fileno(self) -> int:
        """That of the stream."""
        return self._stream.fileno()

    def isatty(self) -> bool:
        """As the stream is."""
        return self._stream.isatty()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """That of the stream."""
        return str(getattr(self._stream, "encoding", "utf-8"))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _attempt(self, action: Callable[[], object]) -> None:
        try:
            action()
        except (OSError, ValueError):
            self._stream = open(os.devnull, "w")  # noqa: SIM115


def protect_stderr() -> None:
    """Makes stderr one that takes all that is written to it, whatever becomes of the terminal, pipe or file behind."""
    # Without a stderr its number would go to the next file that is opened, which libraries would then write to.
    stream = cast("IO[str] | None", sys.stderr) or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = cast(Any, Unfailing(stream))


def say(message: str) -> None:
    """One line on stderr."""
    sys.stderr.write(f"lalign: {printable(message)}\n")
    sys.stderr.flush()


def show(table: RenderableType) -> None:
    """A table on stderr, as wide as the terminal."""
    Console(stderr=True).print(table)


class Progress:
    """tqdm on stderr: records done of the total where that is known, tokens a second, mean divergence.

    Where stderr is no terminal, a line every 30 s instead; nothing at all when told to be quiet. `source` is the name
    of the input, or says of a line where it stands. `points` is how many responses the total has for each line.
    """

    def __init__(
        self,
        total: int | None,
        *,
        quiet: bool,
        source: str | Callable[[int], str],
        unit: str = "rec",
        points: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        from tqdm import tqdm

        hidden = quiet or not sys.stderr.isatty()
        # stdout is never touched: it holds records alone.
        self.bar: Any = tqdm(total=total, unit=unit, disable=hidden, file=sys.stderr, dynamic_ncols=True)
        self.place: Callable[[int], str] = source if callable(source) else lambda line: f"{source}:{line}"
        self.named = 0
        self.told_of_memory = False
        self._clock = clock
        self.began = clock()
        self._logs = not quiet and not sys.stderr.isatty()
        self._logged = self.began
        self._shown: dict[str, str] = {}
        self._done = 0
        self._total = total
        self._unit = unit
        self._points = points

    def update(self, written: Sequence[Result | Failure], tally: Tally) -> None:
        """Show what was written since the last call; name lines that failed."""
        for outcome in written:
            if isinstance(outcome, Failure):
                self._name(outcome)
        if tally.batch_halvings and not self.told_of_memory:
            self.told_of_memory = True
            self.write("out of memory: the batch is halved, and what was in flight begun again")
        seconds = max(self._clock() - self.began, 1e-9)
        shown = {"tok/s": f"{tally.tokens / seconds:.1f}"} if tally.tokens else {}
        if tally.tokens and tally.kl_sum:
            shown["KL"] = f"{tally.kl_sum / tally.tokens:.3f}"
        self._shown = shown
        self.bar.set_postfix(shown, refresh=False)
        self.count(sum(map(self._counts, written)))

    def _counts(self, outcome: Result | Failure) -> int:
        """A line that failed as a whole has one record where there would be many."""
        return self._points if isinstance(outcome, Failure) and outcome.point is None else 1

    def _name(self, failure: Failure) -> None:
        self.named += 1
        if self.named <= NAMED_FAILURES:
            self.write(f"{self.place(failure.line)}: {failure.message}")
        elif self.named == NAMED_FAILURES + 1:
            self.write("more lines failed; each has an error record in the output")

    def count(self, more: int) -> None:
        """Show that so many more are done."""
        self.bar.update(more)
        self._done += more
        self._log()

    def reach(self, done: int, total: int) -> None:
        """Show that `done` of `total` are done."""
        self.bar.total = total
        self.bar.update(done - self.bar.n)
        self._done, self._total = done, total
        self._log()

    def note(self, doing: str) -> None:
        """What is being done, beside the bar."""
        self.bar.set_description(printable(doing))
        self._shown = {"doing": doing}
        self._log()

    def _log(self) -> None:
        """A line in place of the bar, where it is time for one."""
        now = self._clock()
        if not self._logs or now - self._logged < LOG_SECONDS:
            return
        self._logged = now
        of = f" of {self._total}" if self._total is not None else ""
        figures = "".join(f", {value if name == 'doing' else f'{value} {name}'}" for name, value in self._shown.items())
        self.write(f"{now - self.began:.0f} s: {self._done}{of} {self._unit}{figures}")

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
    if tally.batch_halvings:
        times = "once" if tally.batch_halvings == 1 else f"{tally.batch_halvings} times"
        row("batch halved", f"{times}, for want of memory")
    if tally.pairs_parted:
        row("begun anew", f"{tally.pairs_parted}, since the engine did not run their twins together")
    row("time", f"{seconds:.1f} s, {tally.tokens} tokens, {tally.tokens / max(seconds, 1e-9):.1f} tokens/s")
    if tally.kl_sum:
        row("KL(aligned||base)", f"{tally.kl_sum / tally.tokens:.3f} nats per token")
        row("flipped", f"{100 * tally.flipped / tally.tokens:.1f} % of tokens")
    return table

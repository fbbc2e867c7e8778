"""What a sweep gathers on the way: figures of each point, and the responses its page shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from lalign.figures import page
from lalign.figures.canvas import About, plot_format
from lalign.figures.plot import plot_sweep
from lalign.method.recipe import Recipe
from lalign.records.parsing import Message, Record
from lalign.results import Failure, Result
from lalign.sweep.metrics import SweepMetrics
from lalign.sweep.table import table


def conversation_text(messages: Sequence[Message]) -> str:
    """What a page shows of a prompt: its text, or its turns where there are several."""
    turns = [f"{turn.role}: {turn.content}" for turn in messages]
    return messages[0].content if len(turns) == 1 else "\n\n".join(turns)


class Sweep:
    """Told of a job's records and outcomes, gives the table, and draws the plot if one is wanted.

    Args:
        alignments: the points.
        plotted: a .pdf, .png, .svg or .html file, None for no plot. Raises `OptionError` for another ending, or where
            matplotlib is needed and absent.
    """

    def __init__(self, alignments: Sequence[Recipe], plotted: Path | None = None) -> None:
        self.figures = SweepMetrics(alignments)
        self.plotted = plotted
        self.is_page = plotted is not None and plot_format(plotted) == "html"
        self._prompts: dict[int, str] = {}
        self._outcomes: dict[int, list[Result | Failure]] = {}

    def on_records(self, records: Sequence[Record]) -> None:
        """Remember prompts for the page, while it has room."""
        for record in records:
            if self.is_page and len(self._prompts) < page.MOST_PROMPTS:
                self._prompts[record.line] = conversation_text(record.messages)

    def on_outcomes(self, outcomes: Sequence[Result | Failure]) -> None:
        """Take outcomes into account."""
        for outcome in outcomes:
            self.figures.add(outcome)
            if outcome.line in self._prompts:
                self._outcomes.setdefault(outcome.line, []).append(outcome)

    def table(self) -> Table:
        """One row a point, the knee marked."""
        return table(self.figures.summaries())

    def draw(self, title: str, about: About | None = None) -> None:
        """Write the plot: a page with a title, or a figure; either says what it is `about`.

        Raises `OutputError` where the file cannot be written.
        """
        if self.plotted is None:
            return
        if not self.is_page:
            plot_sweep(self.figures.summaries(), self.plotted, about)
            return
        shown = ((self._prompts[line], outcomes) for line, outcomes in sorted(self._outcomes.items()))
        page.write_report(self.plotted, self.figures.summaries(), shown, title, about)

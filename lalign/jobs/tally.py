"""What a job has done so far, as figures for its progress and its summary."""

from __future__ import annotations

from dataclasses import dataclass, field

from lalign.records.notices import Notices
from lalign.results import Failure, Result


@dataclass(slots=True)
class Tally:
    """Records written, failures among them, tokens, and sums over them.

    Attributes:
        skipped: input lines that an earlier run has answered.
        batch_halvings: how often the batch was halved for want of memory.
        pairs_parted: how many responses were begun anew, their twins not having been run together.
        duplicate: what to say of the first id that was given twice.
        notices: what to say of the records that were read.
    """

    records: int = 0
    failures: int = 0
    tokens: int = 0
    kl_sum: float = 0.0
    flipped: float = 0.0
    aligned_tokens: int = 0
    skipped: int = 0
    batch_halvings: int = 0
    pairs_parted: int = 0
    duplicate: str | None = None
    notices: Notices = field(default_factory=Notices)

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
            aligned = outcome.alignment.strength > 0 and not outcome.alignment.is_base
            self.aligned_tokens += outcome.usage.completion_tokens if aligned else 0

    @property
    def has_changed_nothing(self) -> bool:
        """True where tokens were aligned, and at none of them another became the likeliest."""
        return self.aligned_tokens > 0 and self.flipped == 0

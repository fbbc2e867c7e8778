"""What a job counts of what it has written."""

from __future__ import annotations

import pytest

from lalign.jobs.tally import Tally
from lalign.method.linear_alignment import Alignment
from lalign.method.recipe import Recipe
from lalign.results import Result, Usage


def result(alignment: Recipe, flipped: float, has_summary: bool = True) -> Result:
    summary = {"kl_aligned_base_sum": 0.0, "flipped_share": flipped} if has_summary else None
    return Result(1, 1, "", "length", Usage(1, 1, 4), alignment, summary=summary)


@pytest.mark.parametrize(
    ("alignment", "flipped", "has_summary", "nothing"),
    [
        (Alignment(ratio=2), 0.0, True, True),
        (Alignment(ratio=2), 0.25, True, False),
        (Alignment(ratio=0), 0.0, True, False),
        (Alignment(scale="kl", kl=0), 0.0, True, False),
        (Alignment(scale="kl", kl=0.5), 0.0, True, True),
        (Alignment(ratio=2), 0.0, False, False),
    ],
)
def test_an_alignment_that_changes_nothing_is_known(
    alignment: Recipe, flipped: float, has_summary: bool, nothing: bool
) -> None:
    tally = Tally()
    tally.count(result(alignment, flipped, has_summary))
    assert tally.has_changed_nothing == nothing

"""Values as people are shown them."""

from __future__ import annotations

import pytest

from lalign.text import signed


@pytest.mark.parametrize(
    ("number", "shown"),
    [(0.0, "+0.00"), (-0.0, "+0.00"), (-1e-17, "+0.00"), (-0.004, "+0.00"), (-0.006, "-0.01"), (12.5, "+12.50")],
)
def test_what_rounds_to_zero_has_no_minus(number: float, shown: str) -> None:
    assert signed(number, 2) == shown

"""Ids as texts and as numbers: 1 and "1" are one, where nothing else is either."""

from __future__ import annotations

import pytest

from lalign.records.ids import counterpart, other_form
from lalign.results import RecordId


@pytest.mark.parametrize(
    ("record_id", "other"),
    [
        (1, "1"),
        ("1", 1),
        (1.5, "1.5"),
        ("1.5", 1.5),
        ("1.0", 1.0),
        ("01", None),
        ("a", None),
        ("true", None),
        ("", None),
    ],
)
def test_a_number_has_a_text_and_its_text_a_number(record_id: RecordId, other: RecordId | None) -> None:
    found = other_form(record_id)
    assert (found, type(found)) == (other, type(other))


@pytest.mark.parametrize(
    ("others", "own", "found"),
    [({1, "1"}, {1}, 1), ({"1"}, {1}, "1"), ({"1"}, {1, "1"}, None), ({2}, {1}, None)],
)
def test_the_other_form_counts_where_nothing_has_the_id_itself(
    others: set[RecordId], own: set[RecordId], found: RecordId | None
) -> None:
    assert counterpart(1, others, own) == found

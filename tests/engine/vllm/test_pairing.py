"""Rows of one pair are stepped together or not at all."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from lalign.engine.interface import Point, Request, Sequence
from lalign.engine.vllm.pairing import KEY, Lookout, Pairing, Report, Row, Twin, twins
from lalign.engine.vllm.processors import PairsV1, PairsV2
from lalign.method.linear_alignment import Alignment
from lalign.options import Sampling

BASE, PRINCIPLED = [0.0, 3.0, 1.0, 0.0], [0.0, 1.0, 2.0, 0.0]


def pair(number: int, principles: int = 1, **sampling: Any) -> list[Twin]:
    point = Point(Alignment(ratio=3, support="none"), Sampling(max_new_tokens=5, **sampling), stops=lambda tokens: True)
    request = Request("key", [1, 2], ([2, 3],) * principles, (1.0,) * principles, (point,))
    return twins(Sequence(request, point), number, range(1 + principles), with_statistics=True)


def step(pairing: Pairing, *rows: Row, done: tuple[int, ...] = ()) -> tuple[torch.Tensor, Report]:
    logits = torch.tensor([BASE, PRINCIPLED, BASE, PRINCIPLED])
    return pairing.step(logits, rows), pairing.report(done)


def test_both_rows_of_a_pair_are_left_one_token_the_same() -> None:
    base, principled = pair(1)
    logits, report = step(Pairing(), Row(2, base, 0), Row(1, principled, 0))
    # 3 + 3 (1 - 3) = -3 against 1 + 3 (2 - 1) = 4.
    assert report.choices[1].token == 2
    assert report.choices[1].sound
    assert len(report.choices[1].statistics) == len(Alignment().columns)
    for row in (1, 2):
        assert logits[row].argmax() == 2
        assert logits[row].isfinite().sum() == 1
    for row, wanted in ((0, BASE), (3, PRINCIPLED)):
        assert logits[row].tolist() == wanted


def test_rows_may_come_in_any_order_and_move() -> None:
    pairing = Pairing()
    one, other = pair(1), pair(2)
    _, first = step(pairing, Row(3, one[1], 0), Row(2, other[0], 0), Row(0, one[0], 0), Row(1, other[1], 0))
    _, second = step(
        pairing, Row(1, one[1], 1, 2), Row(0, other[0], 1, 2), Row(2, one[0], 1, 2), Row(3, other[1], 1, 2)
    )
    for report in (first, second):
        assert {number: choice.token for number, choice in report.choices.items()} == {1: 2, 2: 2}
        assert not report.parted


@pytest.mark.parametrize(
    ("rows", "how"),
    [
        pytest.param([(0, 0, None)], "rows [0] of 2 after 0 tokens", id="a twin is missing"),
        pytest.param([(1, 0, None)], "rows [1] of 2 after 0 tokens", id="the base is missing"),
        pytest.param([(0, 0, None), (0, 0, None)], "two rows of role 0", id="a role twice"),
        pytest.param([(0, 0, None), (1, 1, None)], "rows with {0: 0, 1: 1} tokens after 0", id="unequal"),
        pytest.param([(0, 1, 2), (1, 1, 2)], "rows with {0: 1, 1: 1} tokens after 0", id="equal, and both wrong"),
    ],
)
def test_a_pair_that_does_not_stand_together_is_parted(rows: list[tuple[int, int, int | None]], how: str) -> None:
    both = pair(7)
    found = [Row(number, both[role], taken, last) for number, (role, taken, last) in enumerate(rows)]
    logits, report = step(Pairing(), *found)
    assert report.parted == {7: how}
    assert not report.choices
    assert logits.tolist() == [BASE, PRINCIPLED, BASE, PRINCIPLED]


def test_a_pair_that_took_another_token_is_parted() -> None:
    pairing, (base, principled) = Pairing(), pair(1)
    step(pairing, Row(0, base, 0), Row(1, principled, 0))
    _, report = step(pairing, Row(0, base, 1, 2), Row(1, principled, 1, 3))
    assert report.parted == {1: "a row took another token than the 1th"}


def test_what_has_parted_stays_so_and_parts_no_other() -> None:
    pairing, (base, principled), other = Pairing(), pair(1), pair(2)
    step(pairing, Row(0, base, 0))
    _, report = step(pairing, Row(0, base, 0), Row(1, principled, 0), Row(2, other[0], 0), Row(3, other[1], 0))
    assert not report.parted
    assert list(report.choices) == [2]


def test_a_pair_that_is_done_is_forgotten() -> None:
    pairing, (base, principled) = Pairing(), pair(1)
    for _ in range(2):
        _, report = step(pairing, Row(0, base, 0), Row(1, principled, 0), done=(1,))
        assert list(report.choices) == [1]


def test_several_principles_are_more_rows_of_a_pair() -> None:
    roles = pair(1, principles=2)
    assert [twin.size for twin in roles] == [3, 3, 3]
    logits, report = step(Pairing(), *(Row(number, twin, 0) for number, twin in enumerate(roles)))
    assert [row.argmax().item() for row in logits[:3]] == [report.choices[1].token] * 3


def test_logits_are_looked_out_for_and_left_as_they_are() -> None:
    logits, report = step(Pairing(), Row(1, Lookout(4), 0))
    np.testing.assert_array_equal(report.logits[4], np.array(PRINCIPLED, dtype=np.float32))
    assert logits.tolist() == [BASE, PRINCIPLED, BASE, PRINCIPLED]


def test_twins_carry_no_more_than_a_choice_needs() -> None:
    for twin in pair(1):
        request, point = twin.sequence
        assert (request.key, request.base, request.principled, point.stops) == (None, [], (), None)
    assert pair(1, repetition_penalty=1.2)[0].sequence[0].base == [1, 2]


# The two interfaces.


def carrying(asked: Any) -> Any:
    return SimpleNamespace(extra_args=None if asked is None else {KEY: asked})


def v1(*added: Any) -> PairsV1:
    pairs = PairsV1(None, None, False)
    pairs.runner = SimpleNamespace(discard_request_mask=SimpleNamespace(np=np.zeros(4, dtype=bool)))
    pairs.update_state(SimpleNamespace(removed=[], added=added, moved=[]))
    return pairs


def test_v1_follows_rows_that_move_and_swap() -> None:
    base, principled = pair(1)
    pairs = v1((0, carrying(base), [1], []), (1, carrying(principled), [1], []), (2, carrying(None), [1], []))
    pairs.update_state(None)
    moved = [(1, 2, SimpleNamespace(name="SWAP")), (0, 3, SimpleNamespace(name="UNIDIRECTIONAL"))]
    pairs.update_state(SimpleNamespace(removed=[], added=[], moved=moved))
    logits = pairs.apply(torch.tensor([BASE, BASE, PRINCIPLED, BASE]))
    assert pairs.pairing.report(()).choices[1].token == 2
    assert [row.isfinite().sum().item() for row in logits] == [4, 4, 1, 1]


def test_v1_leaves_a_row_whose_prompt_is_not_through() -> None:
    base, principled = pair(1)
    pairs = v1((0, carrying(base), [1], []), (1, carrying(principled), [1], []))
    pairs.runner.discard_request_mask.np[:2] = True
    pairs.apply(torch.tensor([BASE, PRINCIPLED]))
    assert pairs.pairing.report(()) == Report()
    pairs.runner.discard_request_mask.np[0] = False
    pairs.apply(torch.tensor([BASE, PRINCIPLED]))
    assert pairs.pairing.report(()).parted == {1: "rows [0] of 2 after 0 tokens"}


def test_v1_counts_what_a_request_has_taken() -> None:
    base, principled = pair(1)
    outputs: list[list[int]] = [[], []]
    pairs = v1((0, carrying(base), [1], outputs[0]), (1, carrying(principled), [1], outputs[1]))
    for taken in ([], [2], [2, 2]):
        for output in outputs:
            output[:] = taken
        pairs.apply(torch.tensor([BASE, PRINCIPLED]))
        assert pairs.pairing.report(()).choices[1].token == 2


def test_v1_forgets_a_row_that_another_request_takes() -> None:
    base, principled = pair(1)
    pairs = v1((0, carrying(base), [1], []), (1, carrying(principled), [1], []))
    pairs.update_state(SimpleNamespace(removed=[1], added=[(0, carrying(None), [1], [])], moved=[]))
    assert torch.equal(pairs.apply(torch.tensor([BASE, PRINCIPLED])), torch.tensor([BASE, PRINCIPLED]))
    assert pairs.pairing.report(()) == Report()
    assert not pairs.is_argmax_invariant()


def test_v2_finds_rows_by_their_slots() -> None:
    base, principled = pair(1)
    lengths = {"prefill_len": [0, 5, 0, 7], "prompt_len": [0, 5, 0, 7]}
    states = SimpleNamespace(**{name: SimpleNamespace(np=np.array(values)) for name, values in lengths.items()})
    pairs = PairsV2(None, states)
    assert pairs.add_request(1, carrying(base))
    assert pairs.add_request(3, carrying(principled))
    assert not pairs.add_request(0, carrying(None))

    def at(*seen: int) -> Report:
        ctx = SimpleNamespace(idx_mapping_np=np.array([3, 0, 1]), seq_lens_upper_bound_np=np.array(seen))
        pairs.apply(torch.tensor([PRINCIPLED, BASE, BASE]), ctx)
        return pairs.pairing.report(())

    assert at(4, 2, 3) == Report()
    assert at(7, 2, 5).choices[1].token == 2
    assert at(8, 2, 6).choices[1].token == 2
    assert at(9, 2, 6).parted == {1: "rows with {0: 1, 1: 2} tokens after 2"}


def test_v2_forgets_the_one_that_was_in_a_slot() -> None:
    (base, _), states = pair(1), SimpleNamespace()
    pairs = PairsV2(None, states)
    pairs.add_request(0, carrying(base))
    pairs.add_request(0, carrying(None))
    ctx = SimpleNamespace(idx_mapping_np=np.array([0]), seq_lens_upper_bound_np=np.array([3]))
    assert torch.equal(pairs.apply(torch.tensor([BASE]), ctx), torch.tensor([BASE]))


def test_pairs_with_and_without_statistics_may_stand_side_by_side() -> None:
    one, other = pair(1), [replace(twin, with_statistics=False) for twin in pair(2)]
    _, report = step(Pairing(), *(Row(number, twin, 0) for number, twin in enumerate([*one, *other])))
    assert report.choices[1].token == report.choices[2].token
    assert len(report.choices[2].statistics) == 0

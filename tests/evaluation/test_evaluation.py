"""From choices to a table: accuracies, intervals and tests against values computed by hand."""

from __future__ import annotations

import io
import json
import math
import random
import sys
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from lalign.aligner import Aligner
from lalign.engine.torch_backend import TorchBackend
from lalign.errors import LalignError, OptionError
from lalign.evaluation.evaluation import Evaluation, evaluate, summarise, table
from lalign.evaluation.preferences import Item, Question, make_items
from lalign.evaluation.scoring import EvaluationOptions, Score
from lalign.evaluation.significance import check_extra, intervals, sign_flip, sign_test
from lalign.method.linear_alignment import Alignment
from lalign.models.loading import LoadedModel

OPTIONS = EvaluationOptions()
POINTS = (Alignment(ratio=2), Alignment(ratio=3))
USERS = ("an ant", "a bee", "a cat", "a dog")


def question(line: int, domain: str | None = "diet", choices: int = 4) -> Question:
    return Question(line, domain, "Lunch?", tuple("wxyz"[:choices]), users=USERS[:choices])


def item(asked: Question, right: int = 0) -> Item:
    """The answers in the order of the file: the right letter is the right answer's."""
    return Item(asked, right, tuple(range(len(asked.answers))), "")


def outcomes(asked: Question, *points: str) -> list[Score]:
    """Scores of one question from, for each point, a string with one + or - an item (its first, second, ... user)."""
    items = [item(asked, user) for user in range(len(points[0]))]
    return [
        Score(one, tuple(one.right if point[user] == "+" else None for point in points))
        for user, one in enumerate(items)
    ]


def evaluation_of(scores: list[Score], points: tuple[Alignment, ...] = POINTS) -> Evaluation:
    return summarise(scores, points, OPTIONS)


# Base, prompt, ratio 2, ratio 3.
SCORES = [
    *outcomes(question(1, "diet"), "+---", "++--", "+++-", "++++"),
    *outcomes(question(2, "technology"), "-+--", "+---", "----", "+-+-"),
    *outcomes(question(5, "diet"), "--+-", "--+-", "-++-", "++++"),
]


# Accuracies


def test_accuracy_is_the_mean_over_questions_and_the_total_weighs_domains_by_size() -> None:
    two, three = evaluation_of(SCORES).points
    assert {name: (part.n, part.accuracy) for name, part in two.domains.items()} == {
        "diet": (2, (0.75 + 0.5) / 2),
        "technology": (1, 0),
    }
    assert two.total.n == 3
    assert two.total.accuracy == pytest.approx((0.75 + 0 + 0.5) / 3)
    assert three.total.accuracy == pytest.approx((1 + 0.5 + 1) / 3)


def test_each_point_is_compared_with_the_base_model_and_the_plain_prompt_on_the_same_items() -> None:
    two, three = evaluation_of(SCORES).points
    assert (two.versus_0.gained, two.versus_0.lost) == (3, 1)
    assert two.versus_0.difference == pytest.approx((0.5 - 0.25 + 0.25) / 3)
    assert (two.versus_1.gained, two.versus_1.lost) == (2, 1)
    assert (three.versus_1.gained, three.versus_1.lost) == (6, 0)
    assert three.versus_1.difference == pytest.approx((0.5 + 0.25 + 0.75) / 3)


def test_questions_count_alike_whatever_the_number_of_their_items() -> None:
    scores = [*outcomes(question(1), *["----"] * 3), *outcomes(question(2, choices=2), *["++"] * 3)]
    (point,) = evaluation_of(scores, POINTS[:1]).points
    assert point.total.accuracy == 0.5


def test_chance_is_that_of_the_number_of_choices() -> None:
    scores = [*outcomes(question(1), *["+"] * 3), *outcomes(question(2, choices=2), *["+"] * 3)]
    assert evaluation_of(scores, POINTS[:1]).chance == (1 / 4 + 1 / 2) / 2


def test_the_share_of_each_letter_shows_a_position_bias() -> None:
    places = [[0, 0, 0, 1], [0, 0, 0, None]]
    scores = [Score(item(question(line)), (None, None, *row)) for line, row in enumerate(zip(*places, strict=True))]
    first, second = evaluation_of(scores).points
    assert first.letters == {"A": 0.75, "B": 0.25, "C": 0, "D": 0, "none": 0}
    assert second.letters == {"A": 0.75, "B": 0, "C": 0, "D": 0, "none": 0.25}


def test_questions_of_no_domain_count_in_the_total_alone() -> None:
    scores = [*outcomes(question(1, None), *["++++"] * 3), *outcomes(question(2, "diet"), *["----"] * 3)]
    (point,) = evaluation_of(scores, POINTS[:1]).points
    assert list(point.domains) == ["diet"]
    assert point.total.accuracy == 0.5


def test_the_order_of_scores_changes_nothing() -> None:
    shuffled = random.Random(0).sample(SCORES, len(SCORES))
    assert evaluation_of(shuffled) == evaluation_of(SCORES)
    assert list(evaluation_of(shuffled).points[0].domains) == ["diet", "technology"]


# Intervals


def test_two_questions_that_disagree_leave_everything_open() -> None:
    """Of their resamples a quarter has mean 0 and a quarter mean 1, more than the 2.5 % cut off at each end."""
    assert intervals(np.array([[0.0, 1.0]]), seed=0) == [(0, 1)]


def test_questions_that_agree_leave_nothing_open_and_one_alone_has_no_interval() -> None:
    assert intervals(np.array([[0.25] * 20, [1.0] * 20]), seed=0) == [(0.25, 0.25), (1, 1)]
    assert intervals(np.array([[0.25], [1.0]]), seed=0) == [(None, None)] * 2


def test_the_interval_of_many_questions_is_that_of_a_binomial_share() -> None:
    """400 questions, half of them right: 0.5 -+ 1.96 * sqrt(0.25 / 400)."""
    ((low, high),) = intervals(np.array([[0.0, 1.0] * 200]), seed=0)
    assert low == pytest.approx(0.451, abs=0.005)
    assert high == pytest.approx(0.549, abs=0.005)


def test_rows_are_resampled_alike_and_by_seed() -> None:
    values = np.random.default_rng(1).random(30)
    first, second = intervals(np.array([values, 1 + values]), seed=0)
    assert second == pytest.approx((1 + first[0], 1 + first[1]))  # type: ignore[operator]
    (again,), (other,) = intervals(values[None], seed=0), intervals(values[None], seed=1)
    assert first == pytest.approx(again)
    assert first != pytest.approx(other)


def test_items_that_say_the_same_do_not_narrow_the_interval() -> None:
    marks = ["+-"[line % 3 == 0] for line in range(30)]
    single, fourfold = (
        evaluation_of([score for line, mark in enumerate(marks) for score in outcomes(question(line), *[n * mark] * 4)])
        for n in (1, 4)
    )
    assert single.points[0].total == fourfold.points[0].total


def test_a_model_that_always_says_a_has_exactly_a_quarter_with_no_doubt() -> None:
    """Since each question is asked for all its users in one order, it is right for one of them each time."""
    items = make_items([question(line) for line in range(1, 31)])
    point = summarise([Score(one, (0, 0, 0)) for one in items], POINTS[:1], OPTIONS).points[0]
    assert (point.total.low, point.total.accuracy, point.total.high) == (0.25, 0.25, 0.25)
    assert point.letters["A"] == 1


# Tests of difference


@pytest.mark.parametrize(
    ("gained", "lost", "p_value"),
    [(0, 0, 1), (1, 0, 1), (3, 3, 1), (5, 1, 14 / 64), (1, 5, 14 / 64), (10, 0, 2 / 1024), (0, 10, 2 / 1024)],
)
def test_mcnemar_is_the_exact_sign_test_of_the_discordant_items(gained: int, lost: int, p_value: float) -> None:
    assert sign_test(gained, lost) == pytest.approx(p_value)


@pytest.mark.parametrize(
    ("differences", "p_value"),
    [
        ([0.25, 0.25, 0.25], 2 / 8),
        ([-0.25, -0.5, -0.25], 2 / 8),
        ([0, 0, 0], 1),
        ([0.25, -0.25], 1),
        ([0.25], 1),
        # Of 16 flips, (1, .5, .25, .25) and (1, .5, .25, -.25) twice over have a mean as large, and as many as small.
        ([1, 0.5, 0.25, -0.25], 6 / 16),
    ],
)
def test_the_sign_flip_test_counts_the_flips_that_are_as_extreme(differences: list[float], p_value: float) -> None:
    assert sign_flip(np.array([differences]), seed=0) == [pytest.approx(p_value)]


@settings(max_examples=50)
@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=2, max_size=9))
def test_with_one_item_a_question_the_two_tests_are_the_same(differences: list[float]) -> None:
    (p_value,) = sign_flip(np.array([differences]), seed=0)
    assert p_value == pytest.approx(sign_test(differences.count(1), differences.count(-1)))


def test_questions_of_one_item_are_tested_by_mcnemar_and_those_of_several_by_sign_flips() -> None:
    """Ten questions, each gained whole: 2 / 2**10, whether one item or four of each say so."""
    for count, test in ((1, "mcnemar"), (4, "sign_flip")):
        marks = ["-" * count, "-" * count, "+" * count]
        scores = [score for line in range(10) for score in outcomes(question(line), *marks)]
        versus = evaluation_of(scores, POINTS[:1]).points[0].versus_0
        assert (versus.test, versus.gained) == (test, 10 * count)
        assert versus.p_value == pytest.approx(2 / 2**10)
        assert (versus.low, versus.difference, versus.high) == (1, 1, 1)


# Output


def test_the_json_object_says_how_and_what() -> None:
    points = (Alignment(ratio=2), Alignment(ratio=3, p=math.inf))
    found = json.loads(orjson.dumps(summarise(SCORES, points, OPTIONS, model="tiny").to_dict()))
    assert found["settings"] == {"model": "tiny", "scoring": "logit", "users": "all", "permute": "seed", "seed": 0}
    assert (found["questions"], found["items"], found["chance"], found["confidence"]) == (3, 12, 0.25, 0.95)
    first, second = found["ratios"]
    assert (first["ratio"], first["p"], first["recipe"], second["p"]) == (2, 2, "lalign", "inf")
    assert first["domains"]["technology"] == {"n": 1, "accuracy": 0, "low": None, "high": None}
    assert set(first["total"]) == {"n", "accuracy", "low", "high"}
    comparison = {"difference", "low", "high", "p_value", "gained", "lost", "test"}
    assert set(first["versus_0"]) == set(first["versus_1"]) == comparison
    assert set(first["letters"]) == {"A", "B", "C", "D", "none"}


def test_curves_are_those_of_the_domains_and_of_the_total_over_the_ratio() -> None:
    found = evaluation_of(SCORES)
    curves = found.curves()
    assert list(curves) == ["diet", "technology", "total"]
    assert curves["technology"] == [(2, 0, 0, 0), (3, 0.5, 0.5, 0.5)]  # one question has no interval
    total = found.points[1].total
    assert curves["total"][1] == (3, total.accuracy, total.low, total.high)


def rendered(evaluation: Evaluation) -> list[str]:
    console = Console(width=80, file=io.StringIO(), color_system=None)
    console.print(table(evaluation))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined, no-any-return]


def domains(*names: str) -> Evaluation:
    scores = [
        score
        for line, name in enumerate([*names, *names])
        for score in outcomes(question(line, name), "----", "----", "++++", "++-+")
    ]
    return evaluation_of(scores)


def test_the_table_fits_80_columns_with_the_paper_s_five_domains() -> None:
    shown = rendered(domains("technology", "daily life", "career planning", "health care", "diet"))
    text = "\n".join(shown)
    assert max(map(len, shown)) <= 80
    assert "technol…" in text
    assert [line.split() for line in shown if "100.0" in line] == [["2", *["100.0"] * 6, "+100.0", "+100.0"]]
    assert "100–100" in text
    assert "Chance: 25.0" in text


@pytest.mark.parametrize("names", [("technology",), ("technology", "career planning", "diet", "home")])
def test_names_are_whole_where_there_is_room(names: tuple[str, ...]) -> None:
    shown = rendered(domains(*names))
    assert max(map(len, shown)) <= 80
    assert "…" not in "\n".join(shown)


def test_domains_that_have_no_room_are_said_to_be_in_the_json() -> None:
    shown = " ".join("\n".join(rendered(domains(*"abcdefg"))).split())
    assert "7 domains are in the JSON alone" in shown
    assert "total" in shown


def test_a_domain_s_name_does_nothing_to_the_terminal() -> None:
    shown = "\n".join(rendered(domains("[red]\x1b[2J", "\nb")))
    assert "\x1b" not in shown
    assert "[red]" in shown


# A whole run


def test_an_evaluation_runs_the_model_once_over_all_items_and_tells_its_progress(
    tiny_model: Any, tiny_tokenizer: Any
) -> None:
    model = tiny_model("llama", max_position_embeddings=2048)
    aligner = Aligner(TorchBackend(LoadedModel(model, tiny_tokenizer(chat_template="chatml"), "tiny", "tiny")))
    seen: list[tuple[int, int]] = []
    questions = [question(line) for line in range(1, 4)]
    points = (Alignment(ratio=0), Alignment(ratio=1), Alignment(ratio=4))
    found = evaluate(aligner, questions, points, progress=lambda done, of: seen.append((done, of)))
    assert seen == [(done, 12) for done in range(1, 13)]
    assert (found.model, found.questions, found.items) == ("tiny", 3, 12)
    base, prompt, _ = found.points
    assert base.total.accuracy == 0.25  # the base twin cannot tell users apart
    assert (base.versus_0.difference, prompt.versus_1.difference) == (0, 0)
    assert found == evaluate(aligner, questions, points)


def test_what_cannot_be_evaluated_is_told_before_the_model_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing: Any = None
    for questions, points in (([], POINTS), ([question(1)], [])):
        with pytest.raises(LalignError, match="needs at least one question and one ratio"):
            evaluate(nothing, questions, points)
    with pytest.raises(OptionError, match="principle: is of no use"):
        evaluate(nothing, [question(1)], POINTS, principle="Be right.")
    monkeypatch.setitem(sys.modules, "scipy", None)
    for attempt in (check_extra, lambda: evaluate(nothing, [question(1)], POINTS)):
        with pytest.raises(LalignError, match=r"pip install 'lalign\[eval\]'"):
            attempt()

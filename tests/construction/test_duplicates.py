"""Which questions are kept: those unlike all before them, in themselves and in who asks."""

from __future__ import annotations

import itertools
import sys
from typing import Any

import pytest
from conftest import SAMPLES
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz import fuzz, utils

from lalign.construction.duplicates import SIMILARITY, Candidates, Filter, filter_questions, read_candidates
from lalign.construction.questions import Question, read_questions
from lalign.construction.similarity import check_extra, most_like, names_person, repeats, sorted_words
from lalign.errors import LalignError, OptionError
from lalign.records.source import RawLine

PEOPLE = ("a nurse on nights", "a boy with a drum", "the last miner in town", "somebody who fears water")


def question(text: str, people: tuple[str, ...] = PEOPLE, number: int = 1) -> Question:
    return Question(RawLine(number, b""), number, "d", text, people)


def others(mark: str) -> tuple[str, ...]:
    return tuple(f"{mark * 9}{letter * 9}" for letter in "wxyz")


TEXT = st.text(st.sampled_from("ab cé."), max_size=12)


@given(TEXT, st.lists(TEXT, max_size=4), st.floats(1, 100))
def test_the_most_like_is_that_of_all_pairs_by_the_librarys_own_scorer(
    text: str, texts: list[str], least: float
) -> None:
    scores = [
        fuzz.token_sort_ratio(text, other, processor=utils.default_process)
        # Its scorer says 0 of two texts without a word, its plain one that they are the same.
        if sorted_words(text) or sorted_words(other)
        else 100.0
        for other in texts
    ]
    found = most_like(sorted_words(text), [sorted_words(other) for other in texts], least)
    if not scores or max(scores) < least:
        assert found is None
    else:
        assert found is not None
        assert (found.similarity, scores[found.place]) == (max(scores), max(scores))


def test_no_two_of_the_samples_are_too_much_alike() -> None:
    for name in ("preferences.jsonl", "seeds.jsonl"):
        candidates = read_candidates(SAMPLES / name)
        kept, report = filter_questions(candidates, SIMILARITY)
        assert len(kept) == len(candidates.found) == len(report.kept)


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (question("Phone: which should I buy?", others("q")), "question"),
        (question("How old is the sea?", (*others("q")[:3], "A nurse, on nights!")), "description"),
        (question("How old is the sea?", (*others("q")[:3], others("q")[1])), "own_description"),
        (question("How old is the sea?", others("q")), None),
    ],
)
def test_why_a_question_is_left_out(second: Question, reason: str | None) -> None:
    kept = Filter()
    assert kept.take(question("Which phone should I buy?")) is None
    left_out = kept.take(second)
    assert (left_out and left_out.reason) == reason


def test_what_is_left_out_does_not_count_for_those_after_it() -> None:
    kept = Filter()
    kept.take(question("Which phone should I buy?"))
    assert kept.take(question("Which phone should I buy?", others("q")))
    assert kept.take(question("How old is the sea?", others("q"))) is None


@given(st.lists(st.tuples(TEXT, st.tuples(TEXT, TEXT, TEXT, TEXT)), max_size=6))
def test_no_two_that_are_kept_are_alike_and_nothing_is_lost(given: list[Any]) -> None:
    found = [(question(text, people, n), {"n": n}) for n, (text, people) in enumerate(given)]
    kept, report = filter_questions(Candidates(found), 90)
    assert sorted([*(one["n"] for one in kept), *(one.id for one in report.left_out)]) == [*range(len(given))]
    for groups in ([[one.question] for one in report.kept], [one.preferences for one in report.kept]):
        texts = [sorted_words(text) for group in groups for text in group]
        assert all(fuzz.ratio(one, other) < 90 for one, other in itertools.combinations(texts, 2))
    # What was kept is kept again.
    again, _ = filter_questions(Candidates([pair for pair in found if pair[1] in kept]), 90)
    assert again == kept


@pytest.mark.parametrize("similarity", [0, -1, 101, float("nan")])
def test_a_similarity_out_of_range_is_refused(similarity: float) -> None:
    with pytest.raises(OptionError, match="similarity"):
        Filter(similarity)


def test_seeds_are_questions() -> None:
    assert len(read_questions(SAMPLES / "seeds.jsonl")) >= 5


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("For a retired teacher who distrusts gadgets, a plain phone.", True),
        ("For Retired Teachers who distrust gadgets: a plain phone.", True),
        ("For calls and texts alone, a plain phone with big buttons.", False),
        ("For", False),
    ],
)
def test_a_description_in_an_answer_is_seen(answer: str, found: bool) -> None:
    assert repeats("a retired teacher who distrusts gadgets", answer) == found


@pytest.mark.parametrize(
    ("phrase", "found"),
    [
        ("a retired teacher", True),
        ("retired teachers who distrust gadgets", True),
        ("calls and texts", False),
        ("a retired teacher of French", False),
        ("you", False),
        ("", False),
    ],
)
def test_a_phrase_that_names_the_person_is_seen(phrase: str, found: bool) -> None:
    assert names_person("a retired teacher who distrusts gadgets", phrase) == found


@given(TEXT, TEXT)
def test_a_description_repeats_and_names_itself(before: str, after: str) -> None:
    description = "a retired teacher who distrusts gadgets"
    assert repeats(description, f"{before} {description} {after}")
    assert names_person(description, description)


def test_a_missing_library_is_told_with_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rapidfuzz", None)
    with pytest.raises(LalignError, match=r"needs rapidfuzz: pip install 'lalign\[construct\]'"):
        check_extra()

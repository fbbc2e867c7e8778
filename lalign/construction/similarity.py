"""How alike two texts are, by rapidfuzz: 0 to 100."""

from __future__ import annotations

from typing import Any, NamedTuple

from lalign.errors import LalignError

# From here on a description is taken to stand within an answer, and a word to be another's form: teachers, teacher.
REPEATED = 90.0
SAME_WORD = 85.0
# Shorter words say nothing of a person: a, the, with.
SHORTEST_WORD = 4


class Like(NamedTuple):
    """The text that is most like another: its place from 0, and the similarity."""

    place: int
    similarity: float


def sorted_words(text: str) -> str:
    """The words of a text in alphabetical order, without capitals and punctuation."""
    return " ".join(sorted(str(_rapidfuzz().utils.default_process(text)).split()))


def most_like(words: str, others: list[str], least: float) -> Like | None:
    """Which of `others` is most like `words`, all made by `sorted_words`; None where none is so by `least`.

    The similarity is `rapidfuzz.fuzz.token_sort_ratio`, of which the sorting is done already.
    """
    fuzzy = _rapidfuzz()
    found = fuzzy.process.extractOne(words, others, scorer=fuzzy.fuzz.ratio, score_cutoff=least)
    return None if found is None else Like(found[2], found[1])


def repeats(description: str, answer: str) -> bool:
    """Whether a description stands within an answer, word for word or nearly so."""
    fuzzy = _rapidfuzz()
    process = fuzzy.utils.default_process
    wanted, given = process(description), process(answer)
    if len(wanted) > len(given):
        return bool(fuzzy.fuzz.ratio(wanted, given) >= REPEATED)
    return bool(fuzzy.fuzz.partial_ratio(wanted, given) >= REPEATED)


def names_person(description: str, phrase: str) -> bool:
    """Whether a phrase says nothing but what a description does: all its longer words are there, in whatever form."""
    fuzzy = _rapidfuzz()
    described = str(fuzzy.utils.default_process(description)).split()
    words = [word for word in str(fuzzy.utils.default_process(phrase)).split() if len(word) >= SHORTEST_WORD]
    return bool(words) and all(most_like(word, described, SAME_WORD) is not None for word in words)


def check_extra() -> None:
    """Raise `LalignError` where rapidfuzz is not installed; for callers to know before anything is asked."""
    _rapidfuzz()


def _rapidfuzz() -> Any:
    try:
        import rapidfuzz
        import rapidfuzz.process
        import rapidfuzz.utils
    except ImportError:
        raise LalignError("likeness of texts needs rapidfuzz: pip install 'lalign[construct]'") from None
    return rapidfuzz

"""Questions that are kept, and those that are too much like one that is kept already, with a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lalign import validation
from lalign.construction.questions import PREFERENCES, Question, objects, record_id, source_name, to_question
from lalign.construction.similarity import most_like, sorted_words
from lalign.errors import InputError
from lalign.records.problems import Unusable
from lalign.records.source import RawLine

SIMILARITY = 80.0
REASONS = {
    "question": "like an earlier question",
    "description": "with a description like one of an earlier question",
    "own_description": "with two descriptions alike",
}


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A question that was not kept: why (a key of `REASONS`), its text, and that which it is like."""

    id: Any
    reason: str
    text: str
    like: str
    similarity: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "id": self.id,
            "reason": self.reason,
            "text": self.text,
            "like": self.like,
            "similarity": round(self.similarity, 1),
        }


@dataclass(slots=True)
class Candidates:
    """What was read: questions with their whole records, and how many error records and unparsed blocks passed by."""

    found: list[tuple[Question, dict[str, Any]]] = field(default_factory=list)
    errors: int = 0
    unparsed: int = 0


def read_candidates(path: Path | None) -> Candidates:
    """The questions of a file: an output of stage `questions`, or a question a line. Raises `InputError`."""
    candidates = Candidates()
    for raw, fields in objects(path):
        if fields.get("error") is not None:
            candidates.errors += 1
            continue
        try:
            unparsed = fields.get("unparsed")
            candidates.unparsed += len(unparsed) if isinstance(unparsed, list) else 0
            candidates.found += [(to_question(raw, one), one) for one in _records(raw, fields)]
        except Unusable as error:
            raise InputError(f"{source_name(path)}:{raw.number}: {error}") from None
    if not candidates.found and not candidates.errors:
        raise InputError(f"{source_name(path)}: holds no questions")
    return candidates


def _records(raw: RawLine, fields: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The questions of a line, with ids that no other has."""
    several = fields.get("questions")
    if not isinstance(several, list):
        yield {**fields, "id": record_id(fields, raw.number)}
        return
    of = record_id(fields, raw.number)
    for place, one in enumerate(several, start=1):
        if not isinstance(one, Mapping):
            raise Unusable("invalid_type", f"questions[{place - 1}]: must be an object")
        yield {"id": f"{of}-{place}", **one}


class Filter:
    """Keeps questions that are unlike all that are kept already.

    Args:
        similarity: from here on, above 0 and at most 100, two texts are too much alike, by the order of no word.
        kept: questions that count as kept.

    Raises `OptionError` for a similarity out of range.
    """

    def __init__(self, similarity: float = SIMILARITY, kept: Iterable[Question] = ()) -> None:
        validation.number("similarity", similarity, above=0, high=100)
        self._least = similarity
        self._questions: dict[str, str] = {}
        self._descriptions: dict[str, str] = {}
        for question in kept:
            self._keep(question)

    def take(self, question: Question) -> LeftOut | None:
        """Keep a question, or say why not; one that is left out does not count for those after it."""
        if left_out := self._like_kept(question) or self._like_itself(question):
            return left_out
        self._keep(question)
        return None

    def _like_kept(self, question: Question) -> LeftOut | None:
        texts = [("question", question.question, self._questions)]
        texts += [("description", text, self._descriptions) for text in question.preferences]
        for reason, text, kept in texts:
            if like := most_like(sorted_words(text), list(kept), self._least):
                return LeftOut(question.id, reason, text, list(kept.values())[like.place], like.similarity)
        return None

    def _like_itself(self, question: Question) -> LeftOut | None:
        words = [sorted_words(text) for text in question.preferences]
        for place in range(1, len(PREFERENCES)):
            if like := most_like(words[place], words[:place], self._least):
                text, other = question.preferences[place], question.preferences[like.place]
                return LeftOut(question.id, "own_description", text, other, like.similarity)
        return None

    def _keep(self, question: Question) -> None:
        self._questions.setdefault(sorted_words(question.question), question.question)
        for text in question.preferences:
            self._descriptions.setdefault(sorted_words(text), text)


@dataclass(frozen=True, slots=True)
class Report:
    """What a filter has kept and left out of some candidates."""

    candidates: Candidates
    kept: tuple[Question, ...]
    left_out: tuple[LeftOut, ...]
    similarity: float

    def told(self) -> list[str]:
        """The report in sentences."""
        read = len(self.candidates.found)
        lines = [f"{read} questions read, {len(self.kept)} kept, with {len(self.kept) * len(PREFERENCES)} descriptions"]
        counts = Counter(one.reason for one in self.left_out)
        lines += [f"{counts[reason]} left out: {words}" for reason, words in REASONS.items() if counts[reason]]
        if self.candidates.errors:
            lines.append(f"{self.candidates.errors} error records passed over")
        if self.candidates.unparsed:
            lines.append(f"{self.candidates.unparsed} blocks had not been parsed")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """The report in full, as JSON values."""
        return {
            "similarity": self.similarity,
            "read": len(self.candidates.found),
            "kept": len(self.kept),
            "descriptions": len(self.kept) * len(PREFERENCES),
            "error_records": self.candidates.errors,
            "unparsed": self.candidates.unparsed,
            "domains": dict(Counter(question.domain.lower() for question in self.kept).most_common()),
            "left_out": {**dict.fromkeys(REASONS, 0), **Counter(one.reason for one in self.left_out)},
            "each": [one.to_dict() for one in self.left_out],
        }


def filter_questions(
    candidates: Candidates, similarity: float, kept: Iterable[Question] = ()
) -> tuple[list[dict[str, Any]], Report]:
    """The records of the questions that are kept, in order, and a report. Raises `OptionError`."""
    chosen = Filter(similarity, kept)
    records, questions, left_out = [], [], []
    for question, fields in candidates.found:
        if (problem := chosen.take(question)) is None:
            records.append(fields)
            questions.append(question)
        else:
            left_out.append(problem)
    return records, Report(candidates, tuple(questions), tuple(left_out), similarity)

"""What messages call an option: as it was typed, and never by a name that it does not have."""

from __future__ import annotations

import pytest
from conftest import SAMPLES, Lalign

import lalign.cli.run  # noqa: F401, on whose import all commands declare themselves
from lalign.cli.spelling import spelled


@pytest.mark.parametrize(
    ("words", "option", "name"),
    [
        ("judge a b --judge-url x", "url", "--judge-url"),
        ("judge a b --url x", "url", "--url"),
        ("judge a b --url=x", "url", "--url"),
        ("judge a b --url x", "asked_model", "--url-model"),
        ("judge a b --judge-model x", "url", "--judge-url"),
        ("judge a b", "url", "--judge-url"),
        ("construct answers", "url", "--url"),
        ("construct answers", "asked_model", "--url-model"),
        ("construct answers --judge-url x", "asked_model", "--judge-model"),
        ("construct riddles", "stage", "STAGE"),
        ("plot a b", "files", "FILE..."),
        ("judge a", "files", "A.jsonl B.jsonl ..."),
        ("eval -o x", "output", "-o"),
        ("generate -o x", "output", "--output"),
        ("generate", "max_new_tokens", "--max-new-tokens"),
        ("generate", "no_such", "--no-such"),
        ("", "ratio", "--ratio"),
    ],
)
def test_an_option_is_called_as_it_was_typed(words: str, option: str, name: str) -> None:
    assert spelled(option, words.split()) == name


def test_files_that_are_not_drawn_together_are_no_option(lalign: Lalign) -> None:
    scored = SAMPLES / "scored.jsonl"
    (lalign.folder / "accuracy.json").write_text('{"settings": {}, "questions": 1, "chance": 0.5, "ratios": [{}]}')
    done = lalign("plot", scored, "accuracy.json", "-o", "p.png")
    assert done.status == 2
    assert done.err.startswith("lalign: FILE...: draws one thing at a time"), done.err


def test_what_cannot_be_gone_on_with_is_not_advised(lalign: Lalign) -> None:
    (lalign.folder / "best.jsonl").touch()
    done = lalign("best", SAMPLES / "scored.jsonl", "-o", "best.jsonl")
    assert (done.status, done.err) == (2, "lalign: best.jsonl: exists; --overwrite replaces it\n")

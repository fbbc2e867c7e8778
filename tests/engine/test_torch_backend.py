"""The torch engine outlives its calls: what it has run of prefixes serves the next, within bounds."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import TinyModel, TinyTokenizer

from lalign.aligner import Aligner
from lalign.engine.torch_backend import MOST_PREFIXES, TorchBackend
from lalign.models.loading import LoadedModel
from lalign.options import Execution
from lalign.results import Result

PROMPTS = [f"{'word ' * (number % 4)}{number}?" for number in range(6)]
LONG = "Be kind, and say why. " * 4


@pytest.fixture
def backend(tiny_model: TinyModel, tiny_tokenizer: TinyTokenizer) -> TorchBackend:
    return TorchBackend(LoadedModel(tiny_model("llama"), tiny_tokenizer("chatml"), "tiny", "tiny"))


def said(backend: TorchBackend, principle: str, prompts: list[Any] = PROMPTS) -> list[str]:
    outcomes = Aligner(backend).generate(
        prompts, principle=principle, ratio=2, max_new_tokens=6, execution=Execution(batch_size=3, statistics="none")
    )
    return [outcome.response for outcome in outcomes if isinstance(outcome, Result)]


def without_prefixes(backend: TorchBackend, principle: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    with monkeypatch.context() as patched:
        patched.setattr("lalign.engine.torch_backend.SHORTEST_PREFIX", 10**6)
        return said(backend, principle)


def test_rows_behind_a_prefix_say_what_rows_that_run_it_say(
    backend: TorchBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = without_prefixes(backend, LONG, monkeypatch)
    assert said(backend, LONG) == wanted
    assert backend._forward is not None
    assert backend._forward.shares


def test_a_prefix_is_run_once_for_all_calls(backend: TorchBackend) -> None:
    first = said(backend, LONG)
    kept = dict(backend._prefixes)
    assert kept
    assert said(backend, LONG) == first
    assert backend._prefixes == kept


def test_no_more_prefixes_are_kept_than_a_few(backend: TorchBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    principles = [f"Rule {number}. {LONG}" for number in range(MOST_PREFIXES + 3)]
    before = [said(backend, principle) for principle in principles]
    assert len(backend._prefixes) == MOST_PREFIXES
    assert before[0] == without_prefixes(backend, principles[0], monkeypatch)
    assert said(backend, principles[0]) == before[0]


def test_records_with_principles_of_their_own_stand_beside_those_behind_a_prefix(backend: TorchBackend) -> None:
    own: list[Any] = [{"prompt": prompt, "principle": "Rhyme."} for prompt in PROMPTS]
    mixed: list[Any] = [record for pair in zip(PROMPTS, own, strict=True) for record in pair]
    together = said(backend, LONG, mixed)
    assert together[::2] == said(backend, LONG)
    assert together[1::2] == said(backend, "Rhyme.")

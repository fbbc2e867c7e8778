"""The torch engine outlives its calls: what it has run of prefixes serves the next, within bounds."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import TinyModel, TinyTokenizer

from lalign.aligner import Aligner
from lalign.engine.cache import KVStore
from lalign.engine.torch_backend import TorchBackend
from lalign.models.loading import LoadedModel
from lalign.options import Execution
from lalign.results import Result

PROMPTS = [f"{'word ' * (number % 4)}{number}?" for number in range(6)]
LONG = "Be kind, and say why. " * 4


@pytest.fixture
def backend(tiny_model: TinyModel, tiny_tokenizer: TinyTokenizer) -> TorchBackend:
    return TorchBackend(LoadedModel(tiny_model("llama"), tiny_tokenizer("chatml"), "tiny", "tiny"))


def said(backend: TorchBackend, principle: str, prompts: list[Any] = PROMPTS, batch_size: int = 3) -> list[str]:
    execution = Execution(batch_size=batch_size, statistics="none")
    outcomes = Aligner(backend).generate(prompts, principle=principle, ratio=2, max_new_tokens=6, execution=execution)
    return [outcome.response for outcome in outcomes if isinstance(outcome, Result)]


def without_prefixes(backend: TorchBackend, principle: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    with monkeypatch.context() as patched:
        patched.setattr("lalign.engine.shared_prefixes.SHORTEST_PREFIX", 10**6)
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
    kept = dict(backend._prefixes.kept)
    assert kept
    assert said(backend, LONG) == first
    assert backend._prefixes.kept == kept


def test_a_pair_by_itself_begins_with_copies_and_says_the_same(
    backend: TorchBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = said(backend, LONG)
    assert backend._forward.shares
    parts: list[int] = []

    def watched(store: KVStore, layer: int) -> list[Any]:
        parts.append(len(store._behind()))
        return []

    monkeypatch.setattr(KVStore, "shared_parts", watched)
    assert said(backend, LONG, batch_size=1) == wanted
    assert set(parts) == {0}
    monkeypatch.undo()
    assert backend._forward.shares
    first = TorchBackend(backend.loaded)
    assert said(first, LONG, batch_size=1) == wanted


def test_one_prompt_alone_has_no_prefix(backend: TorchBackend) -> None:
    said(backend, LONG, PROMPTS[:1])
    assert not backend._prefixes.kept


def test_records_with_principles_of_their_own_stand_beside_those_behind_a_prefix(backend: TorchBackend) -> None:
    own: list[Any] = [{"prompt": prompt, "principle": "Rhyme."} for prompt in PROMPTS]
    mixed: list[Any] = [record for pair in zip(PROMPTS, own, strict=True) for record in pair]
    together = said(backend, LONG, mixed)
    assert together[::2] == said(backend, LONG)
    assert together[1::2] == said(backend, "Rhyme.")


def test_principles_by_record_are_each_run_once(backend: TorchBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    principles = [f"{LONG}Rule {number}: {'be brief, and ' * (3 + number)}so on." for number in range(4)]
    records: list[Any] = [
        {"prompt": f"{prompt} {number}", "principle": principles[number % 4]}
        for number, prompt in enumerate(PROMPTS * 6)
    ]
    together = said(backend, "Rhyme.", records)
    names = {backend.tokenizer.decode(ids) for ids in backend._prefixes.kept}
    assert all(any(principle in name for name in names) for principle in principles)
    monkeypatch.setattr("lalign.engine.shared_prefixes.SHORTEST_PREFIX", 10**6)
    plain = TorchBackend(backend.loaded)
    assert said(plain, "Rhyme.", records) == together
    assert not plain._prefixes.kept

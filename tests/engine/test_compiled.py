"""A compiled decoding step gives what the plain one gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import TinyModel, TinyTokenizer
from torch import Tensor

from lalign.aligner import Aligner
from lalign.engine.cache import KVStore
from lalign.engine.compiled import CompiledForward
from lalign.engine.engine import Engine
from lalign.engine.forward import Forward
from lalign.engine.interface import Point, Request
from lalign.engine.torch_backend import TorchBackend
from lalign.errors import OptionError
from lalign.method.linear_alignment import Alignment
from lalign.models.loading import LoadedModel
from lalign.options import Sampling
from lalign.results import Result


def job() -> list[Request]:
    """Prompts of several lengths, that end at several times."""
    return [
        Request(
            number,
            list(range(5, 9 + 3 * number)),
            (list(range(20, 60 + 2 * number)),),
            (1.0,),
            (Point(Alignment(ratio=2), Sampling(max_new_tokens=3 + 2 * number)),),
        )
        for number in range(5)
    ]


def answers(engine: Engine) -> dict[int, list[int]]:
    waiting = job()

    def source(room: int, wait: bool) -> list[Request] | None:
        taken, waiting[:] = waiting[:room], waiting[room:]
        return taken or None

    return {end.sequence.request.key: end.sequence.tokens for ended in engine.run(source) for end in ended}


def test_compiled_steps_give_the_tokens_of_plain_ones(tiny_model: TinyModel) -> None:
    model = tiny_model("llama")
    plain = answers(Engine(Forward(model), frozenset(), 2, "none"))
    assert answers(Engine(CompiledForward(model), frozenset(), 2, "none")) == plain


def test_a_model_whose_masks_change_shape_is_refused(tiny_model: TinyModel) -> None:
    with pytest.raises(OptionError, match="compile: does not go with"):
        Engine(CompiledForward(tiny_model("gemma3")), frozenset(), 2, "none")


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.compile leaves a model as it is: what matters is which steps it takes."""
    monkeypatch.setattr(torch, "compile", lambda model, dynamic: model)


@pytest.mark.usefixtures("uncompiled")
def test_a_model_loaded_to_be_compiled_answers_as_another(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answered(aligner: Aligner) -> list[tuple[int, ...]]:
        results = aligner.generate(["How are you?", "Why?"], principle="Be kind.", max_new_tokens=5)
        return [result.token_ids for result in results if isinstance(result, Result)]

    plain = answered(Aligner.from_pretrained(str(tiny_folder)))
    steps: list[int] = []
    step = CompiledForward.step

    def counted(forward: CompiledForward, input_ids: Tensor, store: KVStore) -> Tensor:
        steps.append(len(input_ids))
        return step(forward, input_ids, store)

    monkeypatch.setattr(CompiledForward, "step", counted)
    assert answered(Aligner.from_pretrained(str(tiny_folder), compile=True)) == plain
    assert len(plain) == 2
    assert steps


@pytest.mark.usefixtures("uncompiled")
def test_a_model_that_cannot_be_compiled_is_refused_before_anything_runs(
    tiny_model: TinyModel, tiny_tokenizer: TinyTokenizer
) -> None:
    loaded = LoadedModel(tiny_model("gemma3"), tiny_tokenizer(), "tiny", "tiny", compiled=True)
    with pytest.raises(OptionError, match="compile: does not go with gemma3"):
        TorchBackend(loaded)

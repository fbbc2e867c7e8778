"""A compiled decoding step gives what the plain one gives."""

from __future__ import annotations

import pytest
from conftest import TinyModel

from lalign.engine.compiled import CompiledForward
from lalign.engine.engine import Engine
from lalign.engine.forward import Forward
from lalign.engine.interface import Point, Request
from lalign.errors import OptionError
from lalign.method.linear_alignment import Alignment
from lalign.models.linear import reorder_linears
from lalign.options import Sampling


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


def test_a_model_with_reordered_weights_is_refused(tiny_model: TinyModel) -> None:
    model = tiny_model("llama")
    reorder_linears(model)
    with pytest.raises(OptionError, match="reorder=False"):
        Engine(CompiledForward(model), frozenset(), 2, "none")

"""Options of llama.cpp by name: what is taken, and what each refusal says."""

from __future__ import annotations

from typing import Any

import pytest

from lalign.errors import OptionError

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

from lalign.engine.llamacpp.library import library
from lalign.engine.llamacpp.parameters import WITHHELD, filled, parse


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("n_gpu_layers", "-1", -1),
        ("n_ctx", "4096", 4096),
        ("n_threads", "3", 3),
        ("swa_full", "off", False),
        ("rope_freq_base", "1e6", 1e6),
        ("type_k", "q8_0", 8),
        ("type_v", "F32", 0),
        ("flash_attn_type", "disabled", 0),
        ("split_mode", "layer", 1),
    ],
)
def test_a_field_takes_its_value(name: str, text: str, value: Any) -> None:
    found = parse({name: text}, library())
    assert {**found.model, **found.context} == {name: value}
    struct = library().api.llama_model_default_params() if found.model else library().api.llama_context_default_params()
    assert getattr(filled(struct, found.model, found.context), name) == value


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("gpu_layers", "1", "llamacpp has no 'gpu_layers', but n_gpu_layers, "),
        ("n_threads", "many", "n_threads must be a whole number, not 'many'"),
        ("n_threads", "0", "n_threads must be a whole number of at least 1, not 0"),
        ("n_ctx", "-5", "n_ctx must be a whole number of at least 1, not -5"),
        ("n_ctx", "99999999999", "n_ctx must be a whole number of at least 1, not 99999999999"),
        ("swa_full", "perhaps", "swa_full must be on or off, not 'perhaps'"),
        ("rope_freq_base", "high", "rope_freq_base must be a number, not 'high'"),
        ("type_k", "f8", "type_k must be one of f16, f32, "),
        ("n_ubatch", "4096", "n_ubatch must not be above n_batch"),
    ],
)
def test_a_refusal_says_what_is_allowed(name: str, text: str, problem: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse({name: text}, library())
    assert str(caught.value).startswith(f"engine_option: {problem}")


@pytest.mark.parametrize("name", sorted(WITHHELD))
def test_what_lalign_decides_itself_is_not_to_be_set(name: str) -> None:
    with pytest.raises(OptionError, match="llamacpp has no"):
        parse({name: "1"}, library())

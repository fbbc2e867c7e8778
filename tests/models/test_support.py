"""How much context a model has, and which tokenizers go with it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import TinyTokenizer
from tokenizers import AddedToken
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma3TextConfig,
    GPT2Config,
    Llama4TextConfig,
    LlamaConfig,
    MiniCPM3Config,
    MptConfig,
    Phi3Config,
    PhimoeConfig,
)

from lalign.engine.cache import KVStore
from lalign.engine.forward import Forward
from lalign.errors import ModelError
from lalign.models.support import Context, context, refuse_misfits

FACTORS = {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "short_mscale": 1.0, "long_mscale": 1.2}
LONGROPE: dict[str, Any] = {
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "num_hidden_layers": 2,
    "intermediate_size": 64,
    "vocab_size": 300,
    "pad_token_id": 0,
    "max_position_embeddings": 64,
    "original_max_position_embeddings": 16,
    "rope_parameters": {
        "rope_type": "longrope",
        "rope_theta": 1e4,
        "original_max_position_embeddings": 16,
        **FACTORS,
    },
}


@pytest.mark.parametrize(
    ("config", "tokens"),
    [
        (LlamaConfig(max_position_embeddings=99), 99),
        (GPT2Config(n_positions=99), 99),
        (MptConfig(max_seq_len=99), 99),
        (BloomConfig(), None),
        (LlamaConfig(max_position_embeddings=99, rope_parameters={"rope_type": "dynamic", "factor": 2.0}), 99),
        (Phi3Config(max_position_embeddings=99, pad_token_id=0), 99),
        (Llama4TextConfig(max_position_embeddings=99), 99),
        (Llama4TextConfig(attn_temperature_tuning=False, max_position_embeddings=100_000), 100_000),
    ],
)
def test_the_context_is_what_the_model_says(config: Any, tokens: int | None) -> None:
    assert context(config) == Context(tokens)


@pytest.mark.parametrize(
    "config",
    [
        Phi3Config(**LONGROPE),
        PhimoeConfig(**LONGROPE),
        MiniCPM3Config(**LONGROPE, qk_rope_head_dim=8),
        Gemma3TextConfig(
            max_position_embeddings=64,
            rope_parameters={
                "full_attention": {**LONGROPE["rope_parameters"]},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
        ),
    ],
    ids=lambda config: config.model_type,
)
def test_the_context_of_longrope_ends_where_rows_would_change_each_other(config: Any) -> None:
    found = context(config)
    assert found.tokens == 16
    assert "rotary factors" in found.reason


def test_the_context_of_llama4_ends_where_attention_would_count_padding() -> None:
    found = context(Llama4TextConfig(floor_scale=512, max_position_embeddings=4096))
    assert found.tokens == 511
    assert "counts padding" in found.reason


def tiny_phi3() -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = Phi3Config(**LONGROPE, initializer_range=0.3)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval().requires_grad_(False)


@pytest.mark.parametrize(("length", "same"), [(16, True), (17, False)])
def test_within_that_context_a_row_is_what_it_is_alone(length: int, same: bool) -> None:
    model = tiny_phi3()
    forward = Forward(model)
    row = [5, 9, 14, 20]
    together, _ = forward.prompts([list(range(30, 30 + length)), row], [], KVStore(forward.num_layers))
    alone = model(torch.tensor([row])).logits[0, -1]
    assert torch.allclose(together[1], alone, atol=1e-4) is same


# Tokenizers and ends of sequence.


def test_a_tokenizer_with_words_that_the_model_lacks_is_refused(tiny_tokenizer: TinyTokenizer) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["zebra", "yak"])
    with pytest.raises(ModelError) as raised:
        refuse_misfits(300, 1, tokenizer, "m")
    assert str(raised.value) == (
        "m: the tokenizer does not go with the model, whose vocabulary of 300 lacks 2 of its tokens, such as 'yak'"
    )


def test_a_special_token_for_padding_that_the_model_lacks_is_let_be(tiny_tokenizer: TinyTokenizer) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([AddedToken("<padding>", special=True)], special_tokens=True)
    refuse_misfits(300, 1, tokenizer, "m")


@pytest.mark.parametrize("given", ["x", [1, "y"], [1.5], True, 1.0, {"a": 1}])
def test_ends_of_sequence_that_are_no_ids_are_refused(tiny_tokenizer: TinyTokenizer, given: Any) -> None:
    with pytest.raises(ModelError, match=r"^m: eos_token_id must be a whole number or a list of them, not "):
        refuse_misfits(300, given, tiny_tokenizer(), "m")

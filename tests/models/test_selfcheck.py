"""A model whose rows do not answer as each would alone is refused, whatever it is called."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import TinyModel
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertGenerationConfig,
    BigBirdConfig,
    BloomConfig,
    CpmAntConfig,
    FalconConfig,
    GPTJConfig,
    Llama4TextConfig,
    MegatronBertConfig,
    MixtralConfig,
    MptConfig,
    OPTConfig,
    Phi3Config,
    PreTrainedConfig,
    RemBertConfig,
    RobertaConfig,
    RobertaPreLayerNormConfig,
    RoCBertConfig,
    TrOCRConfig,
    XmodConfig,
)

from lalign.errors import ModelError
from lalign.models.linear import pack_linears
from lalign.models.packed_weight import can_pack
from lalign.models.selfcheck import LONG, SHORT, check_rows, distance

BERT: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}


def built(config: PreTrainedConfig) -> Any:
    """A model with weights so large that what a row sees decides what it says."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.3)
    return model.requires_grad_(False)


def refusal(model: Any) -> str:
    with pytest.raises(ModelError) as raised:
        check_rows(model, "m")
    message = str(raised.value)
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2", "gemma3", "mistral"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_decoders_pass_in_every_type_of_weights(tiny_model: TinyModel, kind: str, dtype: torch.dtype) -> None:
    check_rows(tiny_model(kind).to(dtype), "m")


def test_a_model_with_packed_weights_passes(tiny_model: TinyModel) -> None:
    model = tiny_model("llama")
    if can_pack(model.device, model.dtype):
        pack_linears(model)
    check_rows(model, "m")


@pytest.mark.parametrize(
    "config",
    [
        BloomConfig(vocab_size=300, hidden_size=32, n_layer=2, n_head=4),
        FalconConfig(vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=4),
        GPTJConfig(vocab_size=300, n_embd=32, n_layer=2, n_head=4, rotary_dim=8),
        MixtralConfig(**BERT, num_key_value_heads=2, num_local_experts=4),
        MptConfig(vocab_size=300, d_model=32, n_layers=2, n_heads=4, max_seq_len=64),
        OPTConfig(**{**BERT, "ffn_dim": 64, "word_embed_proj_dim": 32}),
        Phi3Config(**BERT, num_key_value_heads=2, pad_token_id=0),
        BertConfig(**BERT, is_decoder=True),
    ],
    ids=lambda config: config.model_type,
)
def test_families_that_place_their_tokens_in_other_ways_pass(config: PreTrainedConfig) -> None:
    check_rows(built(config), "m")


@pytest.mark.parametrize(
    "config",
    [
        BertConfig(**BERT),
        BertGenerationConfig(**BERT),
        BigBirdConfig(**BERT),
        MegatronBertConfig(**BERT),
        RemBertConfig(**BERT, input_embedding_size=32, output_embedding_size=32),
        RobertaConfig(**BERT),
        RobertaPreLayerNormConfig(**BERT),
        RoCBertConfig(**BERT),
    ],
    ids=lambda config: config.model_type,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_encoders_with_a_causal_head_are_refused(config: PreTrainedConfig, dtype: torch.dtype) -> None:
    kind = config.model_type
    assert refusal(built(config).to(dtype)) == f"m: {kind} is no decoder: its logits change with tokens that follow"


def test_a_model_that_takes_no_positions_is_refused() -> None:
    config = TrOCRConfig(
        vocab_size=300, d_model=32, decoder_layers=2, decoder_attention_heads=4, decoder_ffn_dim=64, is_decoder=True
    )
    assert refusal(built(config)) == "m: trocr would give wrong logits to the rows of a batch: they count padding"


def test_a_model_that_numbers_its_positions_otherwise_is_refused() -> None:
    config = RobertaConfig(**BERT, is_decoder=True)  # its first position is 2
    assert refusal(built(config)).endswith("they are not those of the prompt alone")


@pytest.mark.parametrize(
    "config",
    [
        CpmAntConfig(vocab_size=300, hidden_size=32, num_attention_heads=4, dim_head=8, dim_ff=64, num_hidden_layers=2),
        XmodConfig(**BERT, is_decoder=True),
    ],
    ids=lambda config: config.model_type,
)
def test_models_that_need_more_than_tokens_are_refused(config: PreTrainedConfig) -> None:
    assert refusal(built(config)).startswith(f"m: {config.model_type} does not run in rows of keys and values (")


def test_attention_that_counts_padding_is_refused_where_it_shows() -> None:
    config = Llama4TextConfig(
        **{**BERT, "intermediate_size_mlp": 64, "num_key_value_heads": 2, "head_dim": 8, "num_local_experts": 2},
        no_rope_layers=[1, 0],
        floor_scale=2,
        attn_scale=5.0,
    )
    assert "they count padding" in refusal(built(config))


class Altered(torch.nn.Module):
    """A llama with a fault of its own in the logits."""

    def __init__(self, model: Any, fault: Any) -> None:
        super().__init__()
        self.model, self.fault = model, fault
        self.config, self.device, self.dtype = model.config, model.device, model.dtype
        self.get_input_embeddings = model.get_input_embeddings

    def forward(self, input_ids: Tensor, past_key_values: Any = None, position_ids: Any = None, **given: Any) -> Any:
        output = self.model(input_ids=input_ids, past_key_values=past_key_values, position_ids=position_ids, **given)
        output.logits = self.fault(output.logits, past_key_values)
        return output


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (lambda logits, cache: logits * float("nan"), "in float32 the model's logits are not finite"),
        (lambda logits, cache: logits + logits.mean(1, keepdim=True), "is no decoder"),
        (lambda logits, cache: logits + (logits.mean(0) if cache else 0), "not those of the prompt alone"),
        (
            lambda logits, cache: logits.flip(-1) if cache is not None and cache.width == LONG else logits,
            "its key/value cache is of another kind",
        ),
    ],
    ids=["not finite", "looks ahead", "looks at other rows", "forgets"],
)
def test_each_fault_has_its_reason(tiny_model: TinyModel, fault: Any, why: str) -> None:
    assert why in refusal(Altered(tiny_model("llama"), fault))


def test_the_check_is_three_small_forward_passes(tiny_model: TinyModel) -> None:
    seen: list[int] = []
    model = tiny_model("llama")

    def count(module: Any, args: Any, given: Any) -> None:
        seen.append(given["input_ids"].numel())

    model.register_forward_pre_hook(count, with_kwargs=True)
    check_rows(model, "m")
    assert seen == [2 * (LONG + 1), 2 * LONG, 2]
    assert SHORT < LONG


def test_distance_is_a_share_of_the_spread() -> None:
    wanted = torch.tensor([1.0, -1.0, 1.0, -1.0])
    assert distance(wanted + 0.5, wanted) == pytest.approx(0.5)
    assert distance(100 + 10 * (wanted + 0.5), 100 + 10 * wanted) == pytest.approx(0.5)

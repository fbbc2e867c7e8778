"""Which models are refused, and how much context the others have (design section 7)."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from lalign.errors import ModelError

ATTENTION_LAYERS = {"full_attention", "sliding_attention", "chunked_attention"}
# How families call the most positions that they know.
LENGTHS = ("max_position_embeddings", "n_positions", "max_seq_len")


@dataclass(frozen=True, slots=True)
class Context:
    """The most tokens of prompt and response together, None for no limit; and why, where the model knows more."""

    tokens: int | None
    reason: str = ""


def refuse_unsupported(config: Any, name: str) -> None:
    """Raise `ModelError` for a kind of model that has no growing key/value cache per token."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    kind = getattr(config, "model_type", "unknown")
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(f"{name}: {kind} is an encoder-decoder model; lalign needs a decoder-only one")
    remote = "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {})
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        if remote:
            return
        raise ModelError(f"{name}: {kind} is not a causal language model that transformers can load")
    model_class = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    layers = set(getattr(config.get_text_config(decoder=True), "layer_types", None) or [])
    if getattr(model_class, "_is_stateful", False) or layers - ATTENTION_LAYERS:
        raise ModelError(f"{name}: {kind} keeps a state (state-space or linear attention); lalign needs attention")
    if "past_key_values" not in inspect.signature(model_class.forward).parameters:
        raise ModelError(f"{name}: {kind} has no key/value cache; lalign needs one")


def refuse_misfits(vocabulary: int, stated: Any, tokenizer: Any, name: str) -> None:
    """Raise `ModelError` for a tokenizer with words that the model lacks, and for ends of sequence that are no ids.

    vocabulary: rows of the model's embedding. stated: the eos_token_id of its generation config.

    Special tokens that the model lacks are let be: many models come with one for padding that nothing ever makes.
    """
    special = {id for id, token in tokenizer.added_tokens_decoder.items() if token.special}
    beyond = [token for token, id in tokenizer.get_vocab().items() if id >= vocabulary and id not in special]
    if beyond:
        raise ModelError(
            f"{name}: the tokenizer does not go with the model, whose vocabulary of {vocabulary} lacks {len(beyond)} "
            f"of its tokens, such as {min(beyond)!r}"
        )
    ids = stated if isinstance(stated, list) else [] if stated is None else [stated]
    if any(isinstance(id, bool) or not isinstance(id, int) for id in ids):
        raise ModelError(f"{name}: eos_token_id must be a whole number or a list of them, not {stated!r}")


def context(config: Any) -> Context:
    """The context within which the rows of a batch cannot change each other.

    Two kinds of model compute with the length of the batch where they should with that of the row, once it has passed
    a bound: longrope takes other rotary factors for the whole batch (Phi-3, PhiMoE, MiniCPM3), and Llama 4 counts
    padding when it sharpens attention. Below the bound both are right, so it is their context here.
    """
    text = config.get_text_config(decoder=True)
    stated = [value for name in LENGTHS if isinstance(value := getattr(text, name, None), int)]
    tokens = stated[0] if stated else None
    bounds = [(bound, "rows past it would change the rotary factors of others") for bound in _longrope(text)]
    if getattr(text, "attn_temperature_tuning", False) and getattr(text, "floor_scale", None):
        bounds.append((text.floor_scale - 1, "past it stock attention counts padding"))
    for bound, why in sorted(bounds):
        if tokens is None or bound < tokens:
            kind = config.model_type
            return Context(bound, f"{kind} knows more positions, but {why}")
    return Context(tokens)


def _longrope(config: Any) -> list[int]:
    """Where factors of each kind of layer change."""
    stated = getattr(config, "rope_parameters", None) or {}
    kinds = [stated, *(value for value in stated.values() if isinstance(value, dict))]
    return [
        kind.get("original_max_position_embeddings") or config.max_position_embeddings
        for kind in kinds
        if kind.get("rope_type") == "longrope"
    ]

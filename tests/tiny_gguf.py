"""A tiny llama and its tokenizer as a GGUF file: the model that the torch engine runs in tests, for llama.cpp."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, processors
from torch import Tensor
from transformers import PreTrainedTokenizerFast

BYTE_PIECE = re.compile(r"<0x[0-9A-F]{2}>")

# With these llama.cpp computes in float32 throughout.
EXACT = {"type_k": "f32", "type_v": "f32", "flash_attn_type": "disabled"}
_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_WHOLE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def write_tiny_gguf(path: Path, model: Any, tokenizer: Any, split_max_tensors: int = 0) -> Path:
    """Write a transformers llama, its weights as float32, and a tokenizer that puts its BOS first.

    The tokenizer is byte-level, or falls back to bytes as SentencePiece does.

    split_max_tensors: of one file, where it is to be several, named as llama.cpp names them.
    """
    config = model.config
    writer = gguf.GGUFWriter(path, "llama", split_max_tensors=split_max_tensors)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    _add_tokenizer(writer, tokenizer)
    for name, weight in model.state_dict().items():
        writer.add_tensor(*_tensor(name.removesuffix(".weight"), weight, config))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Any) -> None:
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    writer.add_token_list(tokens)
    if json.loads(tokenizer.backend_tokenizer.to_str())["model"]["byte_fallback"]:
        _add_pieces(writer, tokenizer, tokens)
    else:
        _add_merges(writer, tokenizer, tokens)
    for name in ("bos", "eos", "pad", "unk"):
        if (token := getattr(tokenizer, f"{name}_token_id")) is not None:
            getattr(writer, f"add_{name}_token_id")(token)
    writer.add_add_bos_token(True)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def _add_merges(writer: gguf.GGUFWriter, tokenizer: Any, tokens: list[str]) -> None:
    special = set(tokenizer.added_tokens_decoder)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    kinds = (gguf.TokenType.NORMAL, gguf.TokenType.CONTROL)
    writer.add_token_types([kinds[number in special] for number in range(len(tokens))])
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in merges])


def _add_pieces(writer: gguf.GGUFWriter, tokenizer: Any, tokens: list[str]) -> None:
    """As SentencePiece has them: what is merged first has the higher score."""
    special = {tokenizer.unk_token: gguf.TokenType.UNKNOWN}
    special |= dict.fromkeys((tokenizer.bos_token, tokenizer.eos_token), gguf.TokenType.CONTROL)
    others = (
        gguf.TokenType.BYTE if BYTE_PIECE.fullmatch(token) else special.get(token, gguf.TokenType.NORMAL)
        for token in tokens
    )
    writer.add_tokenizer_model("llama")
    writer.add_token_types(list(others))
    writer.add_token_scores([float(-number) for number in range(len(tokens))])
    writer.add_add_space_prefix(_prepends(tokenizer))


def _prepends(tokenizer: Any) -> bool:
    return "Prepend" in tokenizer.backend_tokenizer.to_str()


def sentencepiece_tokenizer(chat_template: str | None = None, add_space_prefix: bool = True) -> PreTrainedTokenizerFast:
    """A tokenizer as that of Llama 2: small letters, bytes for what is none, ▁ for a space and before a text.

    add_space_prefix: whether it is before a text, too, as a tokenizer of Gemma has it not.
    """
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    merged = ["▁▁", "▁t", "he", "▁the", "in", "ing", "an", "and", "▁and", "▁▁▁▁", "é", "日"]
    pieces = ["<unk>", "<s>", "</s>", *bytes_, *(piece for piece in merged if len(piece) > 1)]
    pieces += [*"▁abcdefghijklmnopqrstuvwxyz.,?!:[]/", *(piece for piece in merged if len(piece) == 1)]
    splits = [(piece[:at], piece[at:]) for piece in merged for at in range(1, len(piece))]
    merges = [pair for pair in splits if pair[0] in pieces and pair[1] in pieces]
    model = models.BPE(
        {piece: place for place, piece in enumerate(pieces)}, merges, unk_token="<unk>", byte_fallback=True
    )
    tokenizer = Tokenizer(model)
    space = normalizers.Replace(" ", "▁")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), space]) if add_space_prefix else space
    strips = [decoders.Strip(" ", 1, 0)] if add_space_prefix else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strips]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", chat_template=chat_template
    )


def _tensor(name: str, weight: Tensor, config: Any) -> tuple[str, np.ndarray[Any, Any]]:
    values = weight.float().numpy()
    if name in _WHOLE:
        return f"{_WHOLE[name]}.weight", values
    _, _, layer, part = name.split(".", 3)
    heads = {"self_attn.q_proj": config.num_attention_heads, "self_attn.k_proj": config.num_key_value_heads}
    if part in heads:  # llama.cpp rotates neighbouring numbers, transformers those half a head apart
        values = values.reshape(heads[part], 2, -1, values.shape[1]).swapaxes(1, 2).reshape(values.shape)
    return f"blk.{layer}.{_NAMES[part]}.weight", np.ascontiguousarray(values)

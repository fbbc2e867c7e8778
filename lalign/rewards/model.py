"""A reward model: one number for a conversation with its answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from lalign.errors import ModelError, OptionError, first_line
from lalign.records.encoding import Encoder, unused_characters
from lalign.records.parsing import Message


class RewardModel:
    """A sequence classifier of transformers with one label, and its tokenizer.

    Args:
        model, tokenizer: loaded.
        name: for messages.

    Raises `ModelError` where it gives more than one number, or where no chat template says how a conversation is
    written for it.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str) -> None:
        if model.config.num_labels != 1:
            raise ModelError(f"{name}: has {model.config.num_labels} labels; a reward model has one")
        if not tokenizer.chat_template:
            raise ModelError(f"{name}: has no chat template, which would say how it wants a conversation written")
        self.model = model
        self.tokenizer = tokenizer
        self.encoder = Encoder(tokenizer)
        text = model.config.get_text_config()
        self.context_length: int | None = getattr(text, "max_position_embeddings", None)
        self.pad_id: int | None = text.pad_token_id

    def token_ids(self, messages: Sequence[Message], response: str) -> list[int]:
        """A conversation with its answer, by the model's own template; special tokens within texts stay text.

        Raises `PromptError` where a text cannot be kept from being read as a special token, and whatever the template
        raises at a conversation that it does not allow.
        """
        turns = [*messages, Message("assistant", response)]
        (mark,) = unused_characters([turn.content for turn in turns], 1)
        written = [{"role": turn.role, "content": self.encoder.broken(turn.content, mark)} for turn in turns]
        text = self.tokenizer.apply_chat_template(written, tokenize=False)
        return self.encoder.encode(text, mark, add_special_tokens=False)

    @torch.inference_mode()
    def rewards(self, rows: Sequence[list[int]]) -> list[float]:
        """The reward of each row of token ids, in one pass; one by one where the model knows no padding."""
        if self.pad_id is None and len(rows) > 1:
            return [self.rewards([row])[0] for row in rows]
        longest = max(map(len, rows))
        ids = [row + [self.pad_id or 0] * (longest - len(row)) for row in rows]
        mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
        found = self.model(
            input_ids=torch.tensor(ids, device=self.model.device),
            attention_mask=torch.tensor(mask, device=self.model.device),
        ).logits
        numbers: list[float] = found[:, 0].float().tolist()
        return numbers


def load_reward_model(name: str, device: str = "auto") -> RewardModel:
    """A folder or a hub id; its weights must be safetensors, and its code transformers' own.

    Raises `ModelError` where it cannot be loaded, or where weights of its own are missing, whose place random numbers
    would take; `OptionError` for a device that is not there.
    """
    try:
        chosen = torch.device(_device() if device == "auto" else device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise OptionError("device", f"{device}: {first_line(error)}") from error
    try:
        config = AutoConfig.from_pretrained(name)
        if config.num_labels != 1:
            raise ModelError(f"{name}: has {config.num_labels} labels; a reward model has one")
        dtype = torch.float32 if chosen.type == "cpu" else "auto"
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            name, config=config, dtype=dtype, use_safetensors=True, output_loading_info=True
        )
        tokenizer = AutoTokenizer.from_pretrained(name)
    except ModelError:
        raise
    except Exception as error:  # transformers raises almost anything for a folder that is not what it should be
        raise ModelError(f"{name}: is no reward model that can be loaded: {first_line(error)}") from error
    if missing := sorted(loading["missing_keys"]):
        raise ModelError(f"{name}: has no weights for {missing[0]}; a reward model is trained with them")
    return RewardModel(model.eval().to(chosen), tokenizer, name)


def _device() -> str:
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return accelerator.type if accelerator is not None else "cpu"

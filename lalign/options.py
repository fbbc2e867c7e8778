"""How prompts are written, tokens drawn and jobs run: frozen dataclasses, validated here and nowhere else.

Design section 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from lalign import validation
from lalign.errors import OptionError
from lalign.text import shortened

Statistics = Literal["steps", "summary", "none"]
Placement = Literal["joined", "replace", "user"]
# What rendering itself gives to a template, or takes for itself.
RESERVED = {
    "add_generation_prompt",
    "chat_template",
    "continue_final_message",
    "conversation",
    "max_length",
    "messages",
    "padding",
    "return_assistant_tokens_mask",
    "return_dict",
    "return_tensors",
    "sanitize_control_tokens",
    "tokenize",
    "tokenizer_kwargs",
    "truncation",
}


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a token is drawn from the aligned logits, and when a response ends (design section 5).

    `temperature` 0 is greedy; `top_k` 0, `top_p` 1, `min_p` 0 and `repetition_penalty` 1 are off. Raises
    `OptionError` for a value out of range.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    max_new_tokens: int = 128
    stop: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        validation.number("temperature", self.temperature, low=0)
        validation.number("top_p", self.top_p, above=0, high=1)
        validation.integer("top_k", self.top_k, low=0)
        validation.number("min_p", self.min_p, low=0, high=1)
        validation.number("repetition_penalty", self.repetition_penalty, above=0)
        validation.integer("max_new_tokens", self.max_new_tokens, low=1)
        validation.integer("seed", self.seed, low=0, high=2**63 - 1)
        if not isinstance(self.stop, tuple) or not all(isinstance(text, str) and text for text in self.stop):
            raise OptionError("stop", "must be one or more non-empty strings")


@dataclass(frozen=True, slots=True)
class Execution:
    """How a job uses the machine; none of it changes a response.

    `batch_size` counts pairs in flight, or is "auto": what fits in `memory_share` of the free memory.
    `statistics`: "steps" (per token), "summary" or "none".
    """

    batch_size: int | Literal["auto"] = 16
    memory_share: float = 0.7
    statistics: Statistics = "steps"

    def __post_init__(self) -> None:
        if self.batch_size != "auto":
            validation.integer("batch_size", self.batch_size, low=1)
        validation.number("memory_share", self.memory_share, above=0, high=1)
        validation.choice("stats", self.statistics, get_args(Statistics))


@dataclass(frozen=True, slots=True)
class Prompting:
    """How prompts are made of conversations and principles, the same for all records of a job.

    placement: "joined" (behind the system text, the template's own default included), "replace" (in place of the
    template's default; a record's or the job's own system text is kept) or "user" (at the head of the last user turn).
    chat_template_kwargs: variables for the chat template, over which a record's own prevail.
    allow_special_tokens: whether the text of a special token, in a conversation or principle, becomes that token.
    prefill: what every response begins with, where a conversation does not end with a beginning of its own; None for
        nothing.

    Raises `OptionError` for a value that is none of those.
    """

    placement: Placement = "joined"
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    allow_special_tokens: bool = False
    prefill: str | None = None

    def __post_init__(self) -> None:
        validation.choice("placement", self.placement, get_args(Placement))
        if not isinstance(self.chat_template_kwargs, Mapping):
            raise OptionError(
                "chat_template_kwargs", f"must be a JSON object, not {shortened(self.chat_template_kwargs)}"
            )
        if self.prefill is not None and not self.prefill.strip():
            raise OptionError("prefill", "is empty")
        if taken := RESERVED & self.chat_template_kwargs.keys():
            raise OptionError("chat_template_kwargs", f"cannot set {min(taken)}, which lalign sets itself")

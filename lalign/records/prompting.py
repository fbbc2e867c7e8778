"""How a job's prompts are written: where the principle stands, and what the chat template is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from lalign.errors import OptionError

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
class Prompting:
    """How prompts are made of conversations and principles, the same for all records of a job.

    placement: "joined" (behind the system text, the template's own default included), "replace" (in place of the
    template's default; a record's or the job's own system text is kept) or "user" (at the head of the last user turn).
    chat_template_kwargs: variables for the chat template, over which a record's own prevail.
    allow_special_tokens: whether the text of a special token, in a conversation or principle, becomes that token.

    Raises `OptionError` for a value that is none of those.
    """

    placement: Placement = "joined"
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    allow_special_tokens: bool = False

    def __post_init__(self) -> None:
        if self.placement not in get_args(Placement):
            choices = ", ".join(get_args(Placement))
            raise OptionError("placement", f"must be one of {choices}, not {self.placement!r}")
        if not isinstance(self.chat_template_kwargs, Mapping):
            raise OptionError("chat_template_kwargs", f"must be a JSON object, not {self.chat_template_kwargs!r:.40}")
        if taken := RESERVED & self.chat_template_kwargs.keys():
            raise OptionError("chat_template_kwargs", f"cannot set {min(taken)}, which lalign sets itself")

"""From a conversation and a principle to the token ids of the twins (design section 5)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lalign.errors import OptionError
from lalign.records.parsing import Message

# Two conversations that have nothing in common but what every conversation has.
PROBES = (Message("user", "Alpha"), Message("user", "zebras: 7?"))
SENTINEL = "\u2042sentinel\u2042"


@dataclass(frozen=True, slots=True)
class Principles:
    """What is written into the twins: one text per principled twin and its weight, and one for the base twin.

    contrast: the text in the base twin's place, None for the bare conversation.
    """

    texts: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    contrast: str | None = None


def make_principles(
    texts: Sequence[str], weights: Sequence[float] | None = None, contrast: str | None = None
) -> Principles:
    """Principles with their weights, 1 each by default.

    Raises `OptionError` for a blank text, or weights that are not finite numbers, one for each text.
    """
    if any(not text.strip() for text in texts):
        raise OptionError("principle", "is empty")
    if contrast is not None and not contrast.strip():
        raise OptionError("contrast", "is empty")
    given = tuple(float(weight) for weight in weights) if weights else (1.0,) * len(texts)
    if len(given) != len(texts):
        raise OptionError("weight", f"must be given once for each principle: {len(given)} for {len(texts)}")
    if not all(math.isfinite(weight) for weight in given):
        raise OptionError("weight", "must be a finite number")
    return Principles(tuple(text.strip() for text in texts), given, contrast and contrast.strip())


class PromptTemplate:
    """Renders conversations for one tokenizer, with or without a chat template.

    A principle is joined to the system message: the record's own system turn, else `system`, else what the chat
    template itself puts there when there is none. So the twins differ by the principle alone. A template that knows
    no system role gets it at the head of the first user turn; a model with no template gets plain text.
    """

    def __init__(self, tokenizer: Any, system: str | None = None) -> None:
        self.tokenizer = tokenizer
        self.system = system
        self.is_chat = bool(getattr(tokenizer, "chat_template", None))
        self.has_system_role = self.is_chat and self._knows_system_role()
        self.default_system = self._default_system() if self.has_system_role else None

    def token_ids(self, messages: Sequence[Message], principle: str | None = None) -> list[int]:
        """The ids of a conversation up to where the response begins; never a second BOS."""
        system, turns = self._split(messages)
        text = system if principle is None else _joined(self.default_system if system is None else system, principle)
        if self.is_chat:
            return self._encode(self._render(text, turns), add_special_tokens=False)
        # A prompt that was rendered elsewhere begins with the BOS that the tokenizer is about to add.
        transcript = _transcript(turns).removeprefix(self.tokenizer.bos_token or "")
        return self._encode(_joined(text, transcript), add_special_tokens=True)

    def twins(self, messages: Sequence[Message], principles: Principles) -> list[list[int]]:
        """The ids of the base twin, then those of one principled twin per principle."""
        return [self.token_ids(messages, text) for text in (principles.contrast, *principles.texts)]

    def shared_prefixes(self, principles: Principles) -> list[list[int]]:
        """What all conversations without a system turn of their own begin with, for each twin."""
        pairs = zip(*(self.twins([probe], principles) for probe in PROBES), strict=True)
        return [_common(first, second) for first, second in pairs]

    def _split(self, messages: Sequence[Message]) -> tuple[str | None, list[Message]]:
        if messages and messages[0].role == "system":
            return messages[0].content, list(messages[1:])
        return self.system, list(messages)

    def _render(self, system: str | None, turns: Sequence[Message]) -> str:
        if system is not None and not self.has_system_role:
            at = next(index for index, turn in enumerate(turns) if turn.role == "user")
            merged = Message("user", _joined(system, turns[at].content))
            turns, system = [*turns[:at], merged, *turns[at + 1 :]], None
        return self._apply(system, turns)

    def _apply(self, system: str | None, turns: Iterable[Message]) -> str:
        conversation = [{"role": turn.role, "content": turn.content} for turn in turns]
        if system is not None:
            conversation.insert(0, {"role": "system", "content": system})
        rendered: str = self.tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
        return rendered

    def _encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"])

    def _knows_system_role(self) -> bool:
        try:
            return SENTINEL in self._apply(SENTINEL, PROBES[:1])
        except Exception:  # templates refuse roles with an exception of their own making
            return False

    def _default_system(self) -> str | None:
        """What the template says in the system's place when a conversation has no system turn."""
        before, after = self._apply(SENTINEL, PROBES[:1]).split(SENTINEL, 1)
        bare = self._apply(None, PROBES[:1])
        if not (bare.startswith(before) and bare.endswith(after) and len(bare) > len(before) + len(after)):
            return None
        return bare[len(before) : len(bare) - len(after)]


def _joined(first: str | None, second: str) -> str:
    return f"{first}\n\n{second}" if first else second


def _transcript(turns: Sequence[Message]) -> str:
    """A lone prompt as it is; several turns as a transcript that ends where the assistant speaks."""
    if len(turns) == 1:
        return turns[0].content
    names = {"user": "Human", "assistant": "Assistant"}
    return "\n\n".join([*(f"{names[turn.role]}: {turn.content}" for turn in turns), "Assistant:"])


def _common(first: list[int], second: list[int]) -> list[int]:
    length = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        length += 1
    return first[:length]

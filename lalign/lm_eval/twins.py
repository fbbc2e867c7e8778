"""The text of the principled twin, for a text that lm-evaluation-harness has written (docs/downstream.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from lalign.errors import LalignError
from lalign.options import Placement
from lalign.prefixes import common_prefix
from lalign.records.chat import PROBE, SENTINEL, ChatTemplate
from lalign.records.encoding import unused_characters
from lalign.records.parsing import Message

BETWEEN = "\n\n"


class Twins:
    """Knows the principled text of every conversation that a chat template has written; other texts are plain.

    Args:
        tokenizer: the model's.
        principle: the text.
        placement: where it stands in a conversation.
        variables: of the chat template.
    """

    def __init__(self, tokenizer: Any, principle: str, placement: Placement, variables: Mapping[str, Any]) -> None:
        self._bos: str = tokenizer.bos_token or ""
        self._principle = principle
        self._placement = placement
        self._conversations: dict[str, str] = {}
        self._template = ChatTemplate(tokenizer, variables) if getattr(tokenizer, "chat_template", None) else None

    @property
    def lead(self) -> str:
        """What a plain text gets before it."""
        return self._principle + BETWEEN

    def remember(self, history: Sequence[Mapping[str, str]], text: str) -> None:
        """Write the principled twin of a conversation, of which the chat template has made `text`.

        Raises `PromptError` where the template refuses the conversation or leaves no place for the principle,
        `LalignError` where it writes another conversation than this one.
        """
        if self._template is None:
            raise LalignError("the model has no chat template for --apply_chat_template")
        turns = [Message(cast(Any, turn["role"]), turn["content"]) for turn in history]
        system = turns.pop(0).content if turns and turns[0].role == "system" else None
        if turns and turns[-1].role == "assistant":  # begun by the task, for the model to go on
            turns.pop()
        mark = unused_characters([text, self._principle], 1)[0]
        base, marked = self._template.pair(system, turns, self._placement, mark)
        if not text.startswith(base):
            raise LalignError("the chat template writes a conversation in another way than for lalign")
        self._conversations[text] = marked.replace(mark, self._principle) + text[len(base) :]

    def of(self, text: str) -> str:
        """The principled twin of a text that is not empty.

        Raises `LalignError` for a conversation that this has not seen being written.
        """
        if (found := self._conversations.get(text)) is not None:
            return found
        begun = self._beginning()
        if begun and text.startswith(begun):
            raise LalignError(
                "a conversation that was not written in this run: --cache_requests does not go with a principle and a "
                "chat template"
            )
        if self._bos and text.startswith(self._bos):
            return self._bos + self.lead + text.removeprefix(self._bos)
        return self.lead + text

    def _beginning(self) -> str:
        """What conversations begin with, the BOS aside."""
        if self._template is None:
            return ""
        texts = [self._template.pair(system, PROBE, "joined", None)[0] for system in (None, SENTINEL)]
        begun = "".join(common_prefix(texts))
        return begun if begun != self._bos else ""

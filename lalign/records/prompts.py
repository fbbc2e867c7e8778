"""From a conversation and a principle to the token ids of the twins (design section 5)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from lalign.errors import ModelError, OptionError, PromptError
from lalign.options import Placement, Prompting
from lalign.prefixes import common_prefix
from lalign.records.chat import PROBE, SENTINEL, ChatTemplate, joined, with_mark
from lalign.records.conversations import prefilled
from lalign.records.encoding import Encoder, unused_characters
from lalign.records.parsing import Message

# Two conversations that have nothing in common but what every conversation has.
PROBES = (Message("user", "Alpha"), Message("user", "zebras: 7?"))
# Templates of records with variables of their own that are kept ready.
MOST_TEMPLATES = 64


@dataclass(frozen=True, slots=True)
class Principles:
    """What is written into the twins: one text per principled twin and its weight, and one for the base twin.

    contrast: the text in the base twin's place, None for the bare conversation.
    by_record: whether texts and contrast may be templates, which each record comes with filled.
    """

    texts: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    contrast: str | None = None
    by_record: bool = False


def make_principles(
    texts: Sequence[str],
    weights: Sequence[float] | None = None,
    contrast: str | None = None,
    against: Sequence[str] = (),
    *,
    by_record: bool = False,
) -> Principles:
    """Principles with their weights, 1 each by default, and texts `against` them that share a weight of -1 (Eq. 11).

    Raises `OptionError` for a blank text, or weights that are not finite numbers, one for each text.
    """
    if any(not text.strip() for text in texts):
        raise OptionError("principle", "is empty")
    if contrast is not None and not contrast.strip():
        raise OptionError("contrast", "is empty")
    if any(not text.strip() for text in against):
        raise OptionError("against", "is empty")
    if against and not texts:
        raise OptionError("against", "needs a principle")
    given = tuple(float(weight) for weight in weights) if weights else (1.0,) * len(texts)
    if len(given) != len(texts):
        raise OptionError("weight", f"must be given once for each principle: {len(given)} for {len(texts)}")
    if not all(math.isfinite(weight) for weight in given):
        raise OptionError("weight", "must be a finite number")
    given += (-1 / max(len(against), 1),) * len(against)
    every = tuple(text.strip() for text in (*texts, *against))
    return Principles(every, given, contrast and contrast.strip(), by_record)


class PlainText:
    """What stands in a chat template's place for a model that has none: texts with blank lines between them."""

    def pair(
        self, system: str | None, turns: Sequence[Message], placement: Placement, mark: str | None
    ) -> tuple[str, str]:
        """As `ChatTemplate.pair`."""
        base = joined(system, _transcript(turns))
        if mark is None:
            return base, base
        if placement == "user":
            return base, joined(system, _transcript(with_mark(turns, mark)))
        return base, joined(joined(system, mark), _transcript(turns))


class PromptTemplate:
    """Renders conversations for one tokenizer, with or without a chat template.

    A principle is joined to the system message: the record's own system turn, else `system`, else what the chat
    template itself puts there when there is none; `prompting.placement` puts it elsewhere. So the twins differ by the
    principle alone. A template that writes no system turn gets it at the head of the first user turn; a model with no
    template gets plain text.

    Raises `ModelError` for a chat template that does not write conversations as they are, `OptionError` for a
    `prompting.prefill` where there is none.
    """

    def __init__(self, tokenizer: Any, system: str | None = None, prompting: Prompting | None = None) -> None:
        self.tokenizer = tokenizer
        self.system = system
        self.prompting = prompting or Prompting()
        self.encoder = Encoder(tokenizer, allow_special_tokens=self.prompting.allow_special_tokens)
        self.is_chat = bool(getattr(tokenizer, "chat_template", None))
        self._templates: dict[bytes, ChatTemplate | PlainText] = {}
        if self.prompting.prefill is not None and not self.is_chat:
            raise OptionError("prefill", "begins an assistant turn, and the model has no chat template to write one")
        self._template({})

    def check(self, with_principle: bool = True) -> None:
        """Raise `ModelError` where a conversation without a system turn takes no principle, or no prefill."""
        template = self._template({})
        if isinstance(template, ChatTemplate) and not (template.needs_system and self.system is None):
            try:
                turns = prefilled(PROBE, self.prompting.prefill)
                template.pair(self.system, turns, self.prompting.placement, SENTINEL if with_principle else None)
            except PromptError as error:
                raise ModelError(str(error)) from error

    def token_ids(self, messages: Sequence[Message], principle: str | None = None) -> list[int]:
        """The ids of a conversation up to where the response begins; never a second BOS. Raises `PromptError`."""
        return self._encoded(messages, (principle,), None)[0]

    def twins(
        self, messages: Sequence[Message], principles: Principles, variables: Mapping[str, Any] | None = None
    ) -> list[list[int]]:
        """The ids of the base twin, then those of one principled twin per principle; all end with the same prefill.

        `variables` of the conversation's own go over the job's `chat_template_kwargs`. Raises `PromptError` where the
        chat template refuses the conversation, or writes it in such a way that the twins differ by more than the
        principle.
        """
        return self._encoded(messages, (principles.contrast, *principles.texts), variables)

    def shared_prefixes(self, principles: Principles) -> list[list[int]]:
        """What all conversations without a system turn of their own begin with, for each twin; none if refused.

        Of principles by record that is no more than what stands before their first place to be filled.
        """
        likes = [principles] * len(PROBES)
        if principles.by_record:
            likes = [_begun(principles, probe.content) for probe in PROBES]
        try:
            twins = [self.twins([probe], like) for probe, like in zip(PROBES, likes, strict=True)]
            pairs = zip(*twins, strict=True)
        except PromptError:  # the records may have what is missing here
            return []
        return [common_prefix(pair) for pair in pairs]

    def _encoded(
        self, messages: Sequence[Message], principles: Sequence[str | None], variables: Mapping[str, Any] | None
    ) -> list[list[int]]:
        """The ids of a twin for each principle, None for none."""
        template = self._template(variables or {})
        system, turns = self._split(messages)
        bos, turns = ("", turns) if self.is_chat else self._without_bos(turns)
        given = [text for text in principles if text is not None]
        mark, spot = unused_characters([system or "", *(turn.content for turn in turns), *given], 2)

        def broken(text: str) -> str:
            return self.encoder.broken(text, mark)

        own = system and broken(system), [Message(turn.role, broken(turn.content)) for turn in turns]
        base, marked = template.pair(*own, self.prompting.placement, spot if given else None)
        if own != (system, turns) and template.pair(system, turns, "joined", None)[0] != base.replace(mark, ""):
            raise PromptError("the chat template acts on a special token in the text; see --allow-special-tokens")
        texts = [base if text is None else marked.replace(spot, broken(text)) for text in principles]
        return [self.encoder.encode(bos + text, mark, add_special_tokens=not self.is_chat) for text in texts]

    def _template(self, variables: Mapping[str, Any]) -> ChatTemplate | PlainText:
        """The template with the job's variables and a record's over them."""
        if not self.is_chat:
            return PlainText()
        key = orjson.dumps(dict(variables), option=orjson.OPT_SORT_KEYS)
        if key not in self._templates:
            if len(self._templates) == MOST_TEMPLATES:
                del self._templates[next(reversed(self._templates))]
            together = {**self.prompting.chat_template_kwargs, **variables}
            self._templates[key] = ChatTemplate(self.tokenizer, together)
        return self._templates[key]

    def _split(self, messages: Sequence[Message]) -> tuple[str | None, list[Message]]:
        given = prefilled(messages, self.prompting.prefill)
        if given and given[0].role == "system":
            return given[0].content, list(given[1:])
        return self.system, list(given)

    def _without_bos(self, turns: list[Message]) -> tuple[str, list[Message]]:
        """The BOS that begins a prompt rendered elsewhere: to be written, unless the tokenizer adds it."""
        bos = self.tokenizer.bos_token
        if not bos or len(turns) > 1 or not turns[0].content.startswith(bos):
            return "", turns
        return "" if self.encoder.adds_bos else bos, [Message("user", turns[0].content.removeprefix(bos))]


def _begun(principles: Principles, rest: str) -> Principles:
    """Principles by record, with `rest` from their first place to be filled on."""

    def begun(text: str) -> str:
        return text.split("{", 1)[0] + rest

    contrast = None if principles.contrast is None else begun(principles.contrast)
    return replace(principles, texts=tuple(map(begun, principles.texts)), contrast=contrast)


def _transcript(turns: Sequence[Message]) -> str:
    """A lone prompt as it is; several turns as a transcript that ends where the assistant speaks, or goes on."""
    if len(turns) == 1:
        return turns[0].content
    names = {"user": "Human", "assistant": "Assistant"}
    spoken = [f"{names[turn.role]}: {turn.content}" for turn in turns]
    return "\n\n".join(spoken if turns[-1].role == "assistant" else [*spoken, "Assistant:"])

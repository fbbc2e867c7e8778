"""What a chat template makes of a conversation, and where in it a principle can stand.

The rule that all twins hold: both contain the conversation, the principled one contains the principle, and nothing
else differs but a system block that it opens or, where that was asked for, a default text that it replaces. It is
checked on the text of every pair, and once at the start on a conversation of our own.

Where the last turn is the assistant's, the text ends with what it says there, and the response goes on from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lalign.errors import ModelError, PromptError
from lalign.options import Placement
from lalign.prefixes import common_prefix
from lalign.records.encoding import unused_characters
from lalign.records.parsing import Message

# Letters of both cases, so that a template that changes the case is noticed.
QUESTION = "\u2042Question\u2042"
SENTINEL = "\u2042Sentinel\u2042"
PROBE = (Message("user", QUESTION),)


class DefaultText(NamedTuple):
    """What a template says in the system's place where a conversation has no system turn, and what stands before."""

    before: str
    text: str


class ChatTemplate:
    """The chat template of a tokenizer, with the variables that it is given.

    Attributes:
        has_system_role: whether it writes a system turn and the conversation with it. Where it does not, a system
            text goes to the head of the first user turn.
        needs_system: whether it refuses a conversation without a system turn.
        default: its default system text; None where it has none, or where none can be made out.

    Raises `ModelError` where it writes no conversation, or not as it is.
    """

    def __init__(self, tokenizer: Any, variables: Mapping[str, Any]) -> None:
        self._tokenizer = tokenizer
        self._variables = variables
        alone, below = self._tried(None), self._tried(SENTINEL)
        self.has_system_role = isinstance(below, str) and SENTINEL in below and QUESTION in below
        self.needs_system = isinstance(alone, PromptError)
        self.default: DefaultText | None = None
        if isinstance(alone, PromptError):
            if not self.has_system_role:
                raise ModelError(str(alone))
        elif problem := _changed(alone, PROBE):
            raise ModelError(f"the chat template {problem}")
        elif isinstance(below, str) and self.has_system_role:
            self.default = _default_text(alone, below)

    def pair(
        self, system: str | None, turns: Sequence[Message], placement: Placement, mark: str | None
    ) -> tuple[str, str]:
        """The text of a conversation, and the same with `mark` where the principle stands (twice the same for None).

        Where the last turn is the assistant's, both end with what it says. Raises `PromptError` where the template
        refuses the conversation, or where the rule cannot be held.
        """
        base = self._rendered(system, turns)
        if problem := _changed(base, turns):
            raise PromptError(f"the chat template {problem}")
        if mark is None:
            return base, base
        if placement == "user":
            marked = self._rendered(system, with_mark(turns, mark))
        else:
            marked = self._rendered(joined(system, mark), turns)
        if is_inserted(base, marked, mark):
            return base, marked
        if placement != "user" and not system and self.default and base.startswith("".join(self.default)):
            before, text = self.default
            kept = joined(text, mark) if placement == "joined" else mark
            return base, before + kept + base[len(before) + len(text) :]
        raise PromptError(f"the chat template {_broken_rule(marked, mark, system, placement)}")

    def _rendered(self, system: str | None, turns: Sequence[Message]) -> str:
        if system is not None and not self.has_system_role:
            at = next(index for index, turn in enumerate(turns) if turn.role == "user")
            merged = Message("user", joined(system, turns[at].content))
            turns, system = [*turns[:at], merged, *turns[at + 1 :]], None
        try:
            return self._applied(system, turns)
        except PromptError as error:
            if system is None and self.needs_system:
                raise PromptError(f"{error} (it needs a system message: --system gives one)") from error
            raise

    def _tried(self, system: str | None) -> str | PromptError:
        try:
            return self._applied(system, PROBE)
        except PromptError as error:
            return error

    def _applied(self, system: str | None, turns: Sequence[Message]) -> str:
        continued = turns[-1].content if turns[-1].role == "assistant" else None
        conversation = [{"role": turn.role, "content": turn.content} for turn in turns]
        (end,) = unused_characters([system or "", *(turn.content for turn in turns)], 1)
        if continued is not None:
            conversation[-1]["content"] += end
        if system is not None:
            conversation.insert(0, {"role": "system", "content": system})
        try:
            rendered: str = self._tokenizer.apply_chat_template(
                conversation, tokenize=False, add_generation_prompt=continued is None, **self._variables
            )
        except Exception as error:  # a chat template may raise anything at a conversation that it does not allow
            message = f"the chat template refuses the conversation: {' '.join(str(error).split())}"
            raise PromptError(message) from error
        return rendered if continued is None else _up_to(rendered, end, continued)


def joined(first: str | None, second: str) -> str:
    """Two texts with a blank line between them; an empty one leaves the other alone."""
    return f"{first}\n\n{second}" if first and second else first or second


def with_mark(turns: Sequence[Message], mark: str) -> list[Message]:
    """Turns with `mark` at the head of the last that is the user's."""
    at = max(index for index, turn in enumerate(turns) if turn.role == "user")
    return [*turns[:at], Message("user", joined(mark, turns[at].content)), *turns[at + 1 :]]


def is_inserted(base: str, marked: str, mark: str) -> bool:
    """Whether `marked` is `base` with something put in at one place, `mark` within it."""
    start = len(common_prefix([base, marked]))
    return mark in marked and len(marked) >= len(base) and marked.endswith(base[start:])


def _up_to(text: str, end: str, continued: str) -> str:
    """A text up to `end`, before which must stand what is to be continued. Raises `PromptError` where it does not."""
    before, found, behind = text.partition(end)
    if found and end not in behind and before.endswith(continued.lstrip()):
        return before
    raise PromptError("the chat template leaves out what the assistant says last, or changes it: it cannot go on there")


def _changed(text: str, turns: Sequence[Message]) -> str | None:
    """What has become of turns that do not stand in a text as they are; white space around them does not count."""
    for turn in turns:
        # A train of thought in an earlier answer is what many templates leave out on purpose.
        content = turn.content.rpartition("</think>")[2] if turn.role == "assistant" else turn.content
        if content.strip() in text:
            continue
        if content.strip().casefold() in text.casefold():
            return f"changes the case of what the {turn.role} says"
        return f"leaves out what the {turn.role} says, or changes it"
    return None


def _default_text(alone: str, below: str) -> DefaultText | None:
    """What stands in the place of the system text `SENTINEL` where there is none, None if nothing or not to be told."""
    before, after = below.split(SENTINEL, 1)
    if is_inserted(alone, below, SENTINEL) or not alone.startswith(before):
        return None
    rest = alone[len(before) :]
    same = len(common_prefix([rest[::-1], after[::-1]]))
    closing, own = after[: len(after) - same], rest[: len(rest) - same]
    # What closes the block may be followed by more than after a system turn: a line feed, in one family.
    end = own.rfind(closing) if closing else len(own)
    return None if end < 0 or QUESTION in own else DefaultText(before, own[:end])


def _broken_rule(marked: str, mark: str, system: str | None, placement: Placement) -> str:
    if mark not in marked:
        return "leaves out the principle"
    hint = "" if placement == "user" else " (--placement user, or a system message of your own, may help)"
    return f"changes more of the prompt for a system message than that message{hint if not system else ''}"

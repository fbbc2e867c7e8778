"""The conversation that a line holds, in whichever form (design section 4).

It is the first of these that the line has: `messages`, `prompt`, `body` (OpenAI Batch), `chosen` (Anthropic HH, TRL).
Where it has none, a key of other public data is taken for it (`GUESSED`), if there is only one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from textwrap import shorten
from typing import Any, Literal

from lalign.records import transcripts
from lalign.records.problems import Unusable, filled, shown, string
from lalign.records.templates import named_fields

Role = Literal["system", "user", "assistant"]

_ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_SHAREGPT_ROLES: dict[str, Role] = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
}
_SPEAKERS: dict[str, Role] = {"Human": "user", "Assistant": "assistant"}
# What may hold a part of the prompt, beside a key that holds the rest.
_COMPANIONS = ("input", "context", "choices", "options")
_IDS = ("id", "custom_id")
_CHAT_ENDPOINT = "/chat/completions"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation; `content` is never blank, save that of a system turn."""

    role: Role
    content: str


Messages = tuple[Message, ...]


def prefill_of(messages: Sequence[Message]) -> str | None:
    """What a last turn of the assistant's says, with which the response is to begin; None where there is none."""
    return messages[-1].content if messages and messages[-1].role == "assistant" else None


def asked_of(messages: Messages) -> Messages:
    """A conversation without such a turn: up to the user's turn that is to be answered."""
    return messages if prefill_of(messages) is None else messages[:-1]


def prefilled(messages: Sequence[Message], prefill: str | None) -> tuple[Message, ...]:
    """A conversation with a job's own prefill, where it has no such turn itself."""
    given = tuple(messages)
    return given if prefill is None or prefill_of(given) is not None else (*given, Message("assistant", prefill))


def read_body(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """The body of an OpenAI Batch line; empty where the line has another form. Raises `Unusable`."""
    body = fields.get("body")
    if body is None or fields.get("messages") is not None or fields.get("prompt") is not None:
        return {}
    if not isinstance(body, dict):
        raise Unusable("invalid_type", f"body: must be an object, not {shown(body)}")
    if (url := fields.get("url")) is not None and not (isinstance(url, str) and url.endswith(_CHAT_ENDPOINT)):
        raise Unusable("unsupported", f"url: must be /v1{_CHAT_ENDPOINT}, not {shown(url)}")
    if body.get("messages") is None:
        raise Unusable("missing_prompt", "body.messages: missing")
    return body


def read_conversation(fields: Mapping[str, Any], body: Mapping[str, Any]) -> tuple[Messages, str | None]:
    """The turns up to the one to answer, and the key they were read from where that is one of `GUESSED`.

    The last turn is a user's, or an assistant's that the response goes on from; only the first can be a system turn.
    Raises `Unusable`.
    """
    if (turns := fields.get("messages")) is not None:
        return _conversation("messages", turns), None
    if (prompt := fields.get("prompt")) is not None:
        return read_prompt("prompt", prompt), None
    if body:
        return _conversation("body.messages", body["messages"]), None
    chosen = fields.get("chosen")
    guesses = [key for key in GUESSED if fields.get(key) is not None]
    # Of preference data, some hold whole conversations in `chosen` and some the answer alone.
    if chosen is not None and not (guesses and isinstance(chosen, str) and not transcripts.begins(chosen)):
        return _chosen("chosen", chosen), None
    if len(guesses) != 1:
        more = f"; of {' and '.join(guesses)} only one is taken for it" if guesses else _others(fields)
        raise Unusable("missing_prompt", f"needs one of: messages, prompt, body.messages, chosen{more}")
    return GUESSED[guesses[0]](guesses[0], fields), guesses[0]


def _others(fields: Mapping[str, Any]) -> str:
    """What else might hold a prompt, as the end of a message."""
    names = [key for key, value in fields.items() if isinstance(value, (str, list, dict)) and key not in _IDS]
    return f"; {shorten(named_fields(names), 100)} (generate --prompt-field names one)" if names else ""


def read_prompt(field: str, prompt: Any) -> Messages:
    """The turns of a field that holds a prompt: a text, or a list of messages. Raises `Unusable`."""
    return _conversation(field, prompt) if isinstance(prompt, list) else _prompt(field, prompt)


def read_named_prompt(field: str, prompt: Any) -> Messages:
    """As `read_prompt`, of a field that a job names: of a list of texts, which MT-bench has, it is the first."""
    return _first_turn(field, {field: prompt}) if _are_texts(prompt) else read_prompt(field, prompt)


def has_later_turns(prompt: Any) -> bool:
    """Whether a prompt is a list of texts, of which those after the first are left out."""
    return _are_texts(prompt) and len(prompt) > 1


def _are_texts(prompt: Any) -> bool:
    return isinstance(prompt, list) and bool(prompt) and isinstance(prompt[0], str)


def read_messages(field: str, turns: Any) -> Messages:
    """The turns of a field that holds a conversation, of OpenAI's kind or ShareGPT's. Raises `Unusable`."""
    return _sharegpt(field, {field: turns}) if _are_of(turns, "from") else _conversation(field, turns)


def _are_of(turns: Any, key: str) -> bool:
    """Whether turns are of the kind that says who speaks under `key`."""
    return isinstance(turns, list) and bool(turns) and isinstance(turns[0], dict) and key in turns[0]


def with_system(messages: Messages, system: str | None) -> Messages:
    """A conversation under a system message of its line's; one that it has already stays."""
    if system is None or messages[0].role == "system":
        return messages
    return (Message("system", system), *messages)


def _prompt(field: str, text: Any) -> Messages:
    return (Message("user", filled(field, text)),)


def _conversation(field: str, turns: Any, *, may_go_on: bool = True) -> Messages:
    if not isinstance(turns, list):
        raise Unusable("invalid_type", f"{field}: must be a list of messages, not {shown(turns)}")
    messages = [_message(f"{field}[{index}]", turn) for index, turn in enumerate(turns)]
    return _answerable(field, messages, may_go_on=may_go_on)


def _message(field: str, turn: Any) -> Message:
    if not isinstance(turn, dict):
        raise Unusable("invalid_type", f"{field}: must be an object, not {shown(turn)}")
    role, content = turn.get("role"), turn.get("content")
    if not isinstance(role, str) or role not in _ROLES:
        raise Unusable("unknown_role", f"{field}.role: must be system, user or assistant, not {shown(role)}")
    for key in ("tool_calls", "function_call"):
        if turn.get(key):
            raise Unusable("unsupported", f"{field}.{key}: lalign knows no tools")
    if isinstance(content, list):
        content = "\n".join(_part(f"{field}.content[{index}]", part) for index, part in enumerate(content))
    return _said(_ROLES[role], f"{field}.content", content)


def _part(field: str, part: Any) -> str:
    text = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
    if not isinstance(text, str):
        raise Unusable("invalid_type", f"{field}: must be a text part, not {shown(part)}")
    return text


def _said(role: Role, field: str, content: Any) -> Message:
    # An empty system message says that there is to be none, not even the one that the model's template has.
    return Message(role, string(field, content) if role == "system" else filled(field, content))


def _answerable(field: str, messages: Sequence[Message], *, may_go_on: bool = False) -> Messages:
    if not any(message.role == "user" for message in messages):
        raise Unusable("no_user_turn", f"{field}: must hold at least one user turn")
    for index, message in enumerate(messages):
        if message.role == "system" and index > 0:
            raise Unusable("invalid_type", f"{field}[{index}].role: a system turn must come first")
    if messages[-1].role == "assistant" and not may_go_on:
        raise Unusable("no_user_turn", f"{field}: the last turn must be the user's, not the {messages[-1].role}'s")
    return tuple(messages)


def _chosen(field: str, chosen: Any) -> Messages:
    """What the last answer of a preference was given to."""
    if isinstance(chosen, list):
        return _up_to_answer(field, chosen)
    turns = _asked(transcripts.split(field, filled(field, chosen)), lambda turn: turn[0] == "Assistant")
    return _answerable(
        field,
        [
            Message(_SPEAKERS[speaker], filled(f"{field}: turn {number}", said))
            for number, (speaker, said) in enumerate(turns, start=1)
        ],
    )


def _up_to_answer(field: str, turns: list[Any]) -> Messages:
    asked = _asked(turns, lambda turn: _role(turn, "role", _ROLES) == "assistant")
    return _conversation(field, asked, may_go_on=False)


def _asked(turns: list[Any], is_answer: Callable[[Any], bool]) -> list[Any]:
    """The turns before the last answer; all where there is none."""
    answers = [index for index, turn in enumerate(turns) if is_answer(turn)]
    return turns[: answers[-1]] if answers else turns


def _role(turn: Any, key: str, roles: Mapping[str, Role]) -> Role | None:
    name = turn.get(key) if isinstance(turn, dict) else None
    return roles.get(name) if isinstance(name, str) else None


def _instruction(field: str, fields: Mapping[str, Any]) -> Messages:
    """Alpaca: an instruction, and what it is to be applied to."""
    instruction, given = filled(field, fields[field]), fields.get("input")
    _alone(field, fields, _COMPANIONS[1:])
    if given is not None and string("input", given).strip():
        instruction = f"{instruction}\n\n{given}"
    return (Message("user", instruction),)


def _question(field: str, fields: Mapping[str, Any]) -> Messages:
    _alone(field, fields, _COMPANIONS)
    return _prompt(field, fields[field])


def _first_turn(field: str, fields: Mapping[str, Any]) -> Messages:
    """MT-bench: what the user says, turn by turn."""
    turns = fields[field]
    if not isinstance(turns, list) or not turns:
        raise Unusable("invalid_type", f"{field}: must be a list of the user's turns, not {shown(turns)}")
    return _prompt(f"{field}[0]", turns[0])


def _sharegpt(field: str, fields: Mapping[str, Any]) -> Messages:
    """ShareGPT: turns of `from` and `value`, or of `role` and `content`, up to the last answer."""
    turns = fields[field]
    if _are_of(turns, "role") and not _are_of(turns, "from"):
        return _up_to_answer(field, turns)
    if not isinstance(turns, list):
        raise Unusable("invalid_type", f"{field}: must be a list of turns, not {shown(turns)}")
    messages = []
    for index, turn in enumerate(_asked(turns, lambda turn: _role(turn, "from", _SHAREGPT_ROLES) == "assistant")):
        role = _role(turn, "from", _SHAREGPT_ROLES)
        if role is None:
            raise Unusable("unknown_role", f"{field}[{index}].from: must be system, human or gpt, not {shown(turn)}")
        messages.append(_said(role, f"{field}[{index}].value", turn.get("value")))
    return _answerable(field, messages)


def _alone(field: str, fields: Mapping[str, Any], companions: Sequence[str]) -> None:
    for companion in companions:
        if fields.get(companion):
            problem = f"stands beside {companion}, which may belong to it: --prompt-template or `prompt` joins them"
            raise Unusable("missing_prompt", f"{field}: {problem}")


GUESSED: dict[str, Callable[[str, Mapping[str, Any]], Messages]] = {
    "instruction": _instruction,
    "question": _question,
    "query": _question,
    "turns": _first_turn,
    "conversations": _sharegpt,
}
"""Keys that a prompt is read from where a line has none of lalign's own, each with the function that reads it."""

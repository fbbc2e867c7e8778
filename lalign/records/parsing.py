"""One input line to one `Record`, or to the `Failure` that says what is wrong with it (design section 4).

The prompt of a line is the first of these that it has: `messages`, `prompt`, `body` (OpenAI Batch), `chosen`
(Anthropic HH). A key that is null counts as absent; keys that are not known are ignored.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

import orjson

from lalign.errors import OptionError
from lalign.method.linear_alignment import Alignment
from lalign.options import Sampling
from lalign.records.source import MAX_LINE_BYTES, RawLine
from lalign.results import Failure, RecordId

Role = Literal["system", "user", "assistant"]
Problem = Literal[
    "invalid_utf8",
    "invalid_json",
    "not_an_object",
    "too_long",
    "too_deep",
    "missing_prompt",
    "empty_prompt",
    "invalid_type",
    "unknown_role",
    "no_user_turn",
    "invalid_option",
]

_ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_SPEAKERS: dict[str, Role] = {"Human": "user", "Assistant": "assistant"}
_SPEAKER = re.compile(r"(?:\A|\n\n)(Human|Assistant):")

# Each option of a record with the dataclass that validates it and the type that it has there.
_OPTIONS: dict[str, tuple[type[Alignment] | type[Sampling], Callable[[Any], Any]]] = {
    "ratio": (Alignment, float),
    "p": (Alignment, float),
    "temperature": (Sampling, float),
    "top_p": (Sampling, float),
    "top_k": (Sampling, int),
    "max_new_tokens": (Sampling, int),
    "seed": (Sampling, int),
    "stop": (Sampling, tuple),
}
# Where an OpenAI body says the same, the name that wins first.
_BODY_OPTIONS: dict[str, tuple[str, ...]] = {
    "temperature": ("temperature",),
    "top_p": ("top_p",),
    "max_new_tokens": ("max_completion_tokens", "max_tokens"),
    "seed": ("seed",),
    "stop": ("stop",),
}


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation; `content` is never blank."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Record:
    """A line that can be answered.

    `messages` end with a user turn, and only the first can be a system turn. `options` holds the line's own values
    of `ratio` and `p` (fields of `options.Alignment`) and `temperature`, `top_p`, `top_k`, `max_new_tokens`, `seed`
    and `stop` (of `options.Sampling`), each valid there. `principle` and `contrast` are texts, never file names.
    `raw` is the input object where it was asked to be kept, for `results.to_line` to write. No digit of an integer
    is lost: one beyond 64 bits is an `orjson.Fragment` in it, and any number beyond 1.8e308 a string.
    """

    line: int
    id: RecordId
    messages: tuple[Message, ...]
    options: Mapping[str, Any]
    principle: str | None = None
    contrast: str | None = None
    raw: Any = None


class _Unusable(Exception):
    def __init__(self, problem: Problem, message: str) -> None:
        super().__init__(message)
        self.problem = problem


def parse_record(raw: RawLine, *, keep: bool = False) -> Record | Failure:
    """What a line asks for, or why it cannot be used; no line makes it raise.

    `Failure.type` is one of `Problem`, `Failure.id` the line's own id where that could be read, else its number.
    With `keep` the record holds the input object as `raw`.
    """
    try:
        text = _text(raw)
        fields = _object(text)
    except _Unusable as error:
        return Failure(raw.number, raw.number, error.problem, str(error))
    return parse_fields(fields, raw.number, raw=_exact_json(text) if keep else None)


def parse_fields(fields: Mapping[str, Any], line: int, *, raw: Any = None) -> Record | Failure:
    """As `parse_record`, of an object read already; `raw` goes into the record as it is."""
    record_id: RecordId = line
    try:
        record_id = _id(fields, line)
        body = _body(fields)
        return Record(
            line=line,
            id=record_id,
            messages=_messages(fields, body),
            options=_options(fields, body),
            principle=_instruction(fields, "principle"),
            contrast=_instruction(fields, "contrast"),
            raw=raw,
        )
    except _Unusable as error:
        return Failure(record_id, line, error.problem, str(error))


def _text(raw: RawLine) -> str:
    if raw.too_long:
        raise _Unusable("too_long", f"the line is longer than {MAX_LINE_BYTES >> 20} MiB")
    try:
        return raw.data.decode()
    except UnicodeDecodeError as error:
        byte = raw.data[error.start]
        raise _Unusable("invalid_utf8", f"not UTF-8: byte 0x{byte:02x} at position {error.start + 1}") from None


def _object(text: str) -> dict[str, Any]:
    try:
        value = _json(text)
        # One level more, as in the output under `input`, where orjson writes a quarter of the levels that it reads.
        orjson.dumps([value])
    except json.JSONDecodeError as error:
        if "depth" in error.msg or "recursion" in error.msg.lower():
            raise _Unusable("too_deep", "nested too deeply") from None
        problem = "a lone surrogate in a string" if "surrogate" in error.msg else error.msg
        raise _Unusable("invalid_json", f"not valid JSON: {problem} at column {error.colno}") from None
    except (TypeError, RecursionError) as error:
        if "surrogate" in str(error):
            raise _Unusable("invalid_json", "not valid JSON: a lone surrogate in a string") from None
        raise _Unusable("too_deep", "nested too deeply") from None
    if not isinstance(value, dict):
        raise _Unusable("not_an_object", f"must be a JSON object, not {_shown(value)}")
    return value


def _json(text: str) -> Any:
    """As orjson reads it, save that numbers beyond 1.8e308, which it refuses, become inf."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if "infinity" not in error.msg:
            raise

    def refuse(constant: str) -> NoReturn:
        raise json.JSONDecodeError(f"{constant} is not a number", text, text.find(constant))

    return json.loads(text, parse_int=_nearest, parse_constant=refuse)


def _nearest(digits: str) -> int | float:
    # Python refuses to make an int of some thousands of digits, and takes quadratic time below that.
    if len(digits) <= 20 and -(2**63) <= int(digits) < 2**64:
        return int(digits)
    return float(digits)


def _exact_json(text: str) -> Any:
    # Many readers, orjson among them, refuse a line for one number beyond 1.8e308, so those are kept as strings.
    def whole(digits: str) -> int | str | orjson.Fragment:
        if isinstance(value := _nearest(digits), int):
            return value
        return orjson.Fragment(digits) if math.isfinite(value) else digits

    def real(digits: str) -> float | str:
        return value if math.isfinite(value := float(digits)) else digits

    return json.loads(text, parse_int=whole, parse_float=real)


def _id(fields: Mapping[str, Any], line: int) -> RecordId:
    for field in ("id", "custom_id"):
        value = fields.get(field)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise _Unusable("invalid_type", f"{field}: must be a string or an integer of 64 bits, not {_shown(value)}")
        return value
    return line


def _body(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The body of an OpenAI Batch line; empty where the line has another form."""
    body = fields.get("body")
    if body is None or fields.get("messages") is not None or fields.get("prompt") is not None:
        return {}
    if not isinstance(body, dict):
        raise _Unusable("invalid_type", f"body: must be an object, not {_shown(body)}")
    if body.get("messages") is None:
        raise _Unusable("missing_prompt", "body.messages: missing")
    return body


def _messages(fields: Mapping[str, Any], body: dict[str, Any]) -> tuple[Message, ...]:
    if (turns := fields.get("messages")) is not None:
        return _conversation("messages", turns)
    if (prompt := fields.get("prompt")) is not None:
        return (Message("user", _filled("prompt", prompt)),)
    if body:
        return _conversation("body.messages", body["messages"])
    if (chosen := fields.get("chosen")) is not None:
        return _transcript("chosen", chosen)
    raise _Unusable("missing_prompt", "needs one of: messages, prompt, body.messages, chosen")


def _conversation(field: str, turns: Any) -> tuple[Message, ...]:
    if not isinstance(turns, list):
        raise _Unusable("invalid_type", f"{field}: must be a list of messages, not {_shown(turns)}")
    messages = tuple(_message(f"{field}[{index}]", turn) for index, turn in enumerate(turns))
    for index, message in enumerate(messages):
        if message.role == "system" and index > 0:
            raise _Unusable("invalid_type", f"{field}[{index}].role: a system turn must come first")
    return _answerable(field, messages)


def _message(field: str, turn: Any) -> Message:
    if not isinstance(turn, dict):
        raise _Unusable("invalid_type", f"{field}: must be an object, not {_shown(turn)}")
    role, content = turn.get("role"), turn.get("content")
    if not isinstance(role, str) or role not in _ROLES:
        raise _Unusable("unknown_role", f"{field}.role: must be system, user or assistant, not {_shown(role)}")
    if isinstance(content, list):
        content = "\n".join(_part(f"{field}.content[{index}]", part) for index, part in enumerate(content))
    return Message(_ROLES[role], _filled(f"{field}.content", content))


def _part(field: str, part: Any) -> str:
    text = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
    if not isinstance(text, str):
        raise _Unusable("invalid_type", f"{field}: must be a text part, not {_shown(part)}")
    return text


def _transcript(field: str, text: Any) -> tuple[Message, ...]:
    head, *parts = _SPEAKER.split(_filled(field, text).strip())
    if head:
        raise _Unusable("invalid_type", f"{field}: must start with 'Human:', not {_shown(head)}")
    turns = list(zip(parts[::2], parts[1::2], strict=True))
    replies = [index for index, (speaker, _) in enumerate(turns) if speaker == "Assistant"]
    asked = turns[: replies[-1]] if replies else turns
    messages = (
        Message(_SPEAKERS[speaker], _filled(f"{field}: turn {number}", content.strip()))
        for number, (speaker, content) in enumerate(asked, start=1)
    )
    return _answerable(field, tuple(messages))


def _answerable(field: str, messages: tuple[Message, ...]) -> tuple[Message, ...]:
    if not any(message.role == "user" for message in messages):
        raise _Unusable("no_user_turn", f"{field}: must hold at least one user turn")
    if messages[-1].role != "user":
        raise _Unusable("no_user_turn", f"{field}: the last turn must be the user's, not the {messages[-1].role}'s")
    return messages


def _filled(field: str, text: Any, blank: Problem = "empty_prompt") -> str:
    if not isinstance(text, str):
        raise _Unusable("invalid_type", f"{field}: must be a string, not {_shown(text)}")
    if not text.strip():
        raise _Unusable(blank, f"{field}: must not be blank")
    return text


def _instruction(fields: Mapping[str, Any], field: str) -> str | None:
    text = fields.get(field)
    return None if text is None else _filled(field, text, blank="invalid_option")


def _options(fields: Mapping[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    options = {}
    for name in _OPTIONS:
        given = {name: fields.get(name)} | {f"body.{key}": body.get(key) for key in _BODY_OPTIONS.get(name, ())}
        for field, value in given.items():
            if value is not None:
                options[name] = _option(name, field, value)
                break
    return options


def _option(name: str, field: str, value: Any) -> Any:
    if name == "p" and value == "inf":
        value = math.inf
    elif name == "stop" and isinstance(value, (str, list)):
        value = (value,) if isinstance(value, str) else tuple(value)
    owner, kind = _OPTIONS[name]
    try:
        owner(**{name: value})
    except OptionError as error:
        raise _Unusable("invalid_option", f"{field}: {error.problem}") from None
    return kind(value)


def _shown(value: Any) -> str:
    # repr escapes whatever a terminal would act on.
    text = repr(value[:60] if isinstance(value, str) else value)
    return text if len(text) <= 60 else text[:57] + "..."

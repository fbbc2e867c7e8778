"""What can be wrong with a line, and how its values are checked and shown."""

from __future__ import annotations

from typing import Any, Literal

from lalign.text import shortened

Problem = Literal[
    "invalid_utf8",
    "invalid_json",
    "not_an_object",
    "too_long",
    "too_deep",
    "missing_prompt",
    "missing_field",
    "template_error",
    "empty_prompt",
    "invalid_type",
    "unknown_role",
    "no_user_turn",
    "invalid_option",
    "unsupported",
]


class Unusable(Exception):
    """Why a line cannot be used: one sentence that names the field."""

    def __init__(self, problem: Problem, message: str) -> None:
        super().__init__(message)
        self.problem = problem


def string(field: str, value: Any) -> str:
    """`value` as the text it must be. Raises `Unusable`."""
    if not isinstance(value, str):
        raise Unusable("invalid_type", f"{field}: must be a string, not {shown(value)}")
    return value


def filled(field: str, value: Any, blank: Problem = "empty_prompt") -> str:
    """`value` as the text it must be, which holds more than white space. Raises `Unusable`."""
    text = string(field, value)
    if not text.strip():
        raise Unusable(blank, f"{field}: must not be blank")
    return text


def shown(value: Any) -> str:
    """A value in a message: short, and nothing in it that a terminal would act on."""
    return shortened(value[:60] if isinstance(value, str) else value, 60)

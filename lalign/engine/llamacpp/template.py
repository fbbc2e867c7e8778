"""Chat templates by the rules of transformers, without its seconds of import."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from jinja2 import nodes
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Generation(Extension):
    """`{% generation %}`: what it holds, as it is. It marks the assistant's words for those who train."""

    tags = {"generation"}  # noqa: RUF012, as in Extension

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class Template:
    """A chat template in a sandbox, with the variables and functions that transformers gives it."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = _now
        self._template = environment.from_string(source)
        self._special_tokens = dict(special_tokens)

    def __call__(self, messages: list[dict[str, Any]], **variables: Any) -> str:
        """The text of a conversation. Raises whatever the template raises."""
        given = {"tools": None, "documents": None, **self._special_tokens, **variables}
        return self._template.render(messages=messages, **given)


def _refuse(message: str) -> None:
    raise TemplateError(message)


def _now(form: str) -> str:
    return datetime.now().strftime(form)


def _to_json(value: Any, **layout: Any) -> str:
    settings: dict[str, Any] = {"ensure_ascii": False, **layout}
    dump: Callable[..., str] = json.dumps
    return dump(value, **settings)

"""Prompts and principles as Jinja templates, filled with the fields of a record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import orjson
from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError, Undefined, UndefinedError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from lalign.errors import OptionError
from lalign.records.problems import Unusable, shown
from lalign.text import printable

# Fields are named in a message up to this many.
_NAMED = 20
# The whole record goes by this name, where it has no field of it.
_WHOLE = "record"


class _Missing(StrictUndefined):
    """What a record lacks: no way of writing it leaves a text."""

    __repr__ = StrictUndefined._fail_with_undefined_error


class FieldTemplate:
    """A text with `{{ field }}` in it, in Jinja's sandbox: a template can compute, and reach nothing.

    A field that is null counts as absent; a list or an object is written as JSON. `record` is the whole record, save
    where a field has that name: `{{ record['Best Answer'] }}`. Instances are equal where their texts are.

    Args:
        text: of the template.
        option: that gave it, for messages.

    Raises `OptionError` where it is no template, and where it names what no template has.
    """

    def __init__(self, text: str, option: str) -> None:
        self.text = text
        self._option = option
        try:
            problem = _problem(text)
        except TemplateSyntaxError as error:
            problem = f"line {error.lineno}: {error.message}"
        except (SyntaxError, RecursionError):  # of the Python that Jinja makes of it
            problem = "is nested too deeply"
        if problem is not None:
            raise OptionError(option, problem)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FieldTemplate) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def filled(self, fields: Mapping[str, Any]) -> str:
        """The text for a record, without white space around it. Raises `Unusable`."""
        given = {name: value for name, value in fields.items() if value is not None}
        try:
            text = self._template.render({_WHOLE: given, **given})
        except UndefinedError as error:
            raise Unusable("missing_field", f"{self._option}: {error.message}; {named_fields(given)}") from None
        except RecursionError:
            raise Unusable("template_error", f"{self._option}: calls itself without an end") from None
        except (TemplateError, ArithmeticError, TypeError, ValueError, LookupError, AttributeError) as error:
            raise Unusable("template_error", f"{self._option}: {printable(str(error))[:200]}") from None
        if not text.strip():
            raise Unusable("empty_prompt", f"{self._option}: makes an empty text of this record")
        return text.strip()

    @cached_property
    def _template(self) -> Template:
        return _environment().from_string(self.text)


def is_template(text: str) -> bool:
    """Whether a text has a place to be filled."""
    return "{{" in text or "{%" in text


def named_fields(names: Iterable[str]) -> str:
    """What fields there are, as part of a message."""
    listed = [name if name.isidentifier() and len(name) <= 40 else shown(name) for name in names]
    if not listed:
        return "the record has no fields"
    more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
    return f"the fields are {', '.join(listed[:_NAMED])}{more}"


def _problem(text: str) -> str | None:
    """What a template takes that there is not, of which Jinja itself would tell only where it comes to it."""
    environment = _environment()
    template = environment.parse(text)
    for kind, names in ((nodes.Filter, environment.filters), (nodes.Test, environment.tests)):
        for node in template.find_all(kind):
            if node.name not in names:
                return f"line {node.lineno}: there is no {kind.__name__.lower()} {node.name!r}"
    for other in template.find_all((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)):
        return f"line {other.lineno}: a template can take in no other file"
    environment.from_string(text)
    return None


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        undefined=_Missing, trim_blocks=True, lstrip_blocks=True, finalize=_written
    )
    environment.filters["tojson"] = _json  # Jinja's own is for HTML
    return environment


def _written(value: Any) -> Any:
    """A value as it stands in the text."""
    if isinstance(value, (dict, list, tuple, bool)):
        return _json(value)
    if isinstance(value, orjson.Fragment):
        raise ValueError("a number of more than 64 bits")
    if not isinstance(value, (str, int, float, Undefined)):  # what is undefined says so itself
        raise ValueError("a value that is null" if value is None else f"a {type(value).__name__}, which is no value")
    return value


def _json(value: Any, indent: int | None = None) -> str:
    try:
        return orjson.dumps(value, option=orjson.OPT_INDENT_2 if indent else None, default=_no_json).decode()
    except TypeError as error:
        raise error.__cause__ or error from None


def _no_json(value: Any) -> Any:
    if isinstance(value, Undefined):
        str(value)  # says that it is
    raise TypeError(f"a {type(value).__name__}, which cannot be written as JSON")

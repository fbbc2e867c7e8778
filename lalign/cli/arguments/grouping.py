"""Dataclasses of options as the parameters that Typer reads."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from copy import copy
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

# What a value is called in help, by its type.
METAVARS: dict[type, str] = {int: "N", float: "X", Path: "FILE", str: "TEXT"}

Command = TypeVar("Command", bound=Callable[..., Any])


def grouped(command: Command) -> Command:
    """A function of dataclasses as a function of their fields, which Typer makes options of."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, type] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        kind = hints[parameter.name]
        if is_dataclass(kind) and isinstance(kind, type):
            groups[parameter.name] = kind
            of_kind = get_type_hints(kind, include_extras=True)
            parameters += [_parameter(option, _with_metavar(of_kind[option.name])) for option in fields(kind)]
        else:
            parameters.append(parameter.replace(annotation=kind, kind=inspect.Parameter.KEYWORD_ONLY))

    @wraps(command)
    def expanded(**values: Any) -> Any:
        for name, kind in groups.items():
            values[name] = kind(**{option.name: values.pop(option.name) for option in fields(kind)})
        return command(**values)

    expanded.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    expanded.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return expanded  # type: ignore[return-value]


def _with_metavar(annotation: Any) -> Any:
    """An annotation whose option says in help what its value is, where its declaration does not."""
    kind, option = get_args(annotation)
    if option.metavar is not None:
        return annotation
    named = copy(option)
    # `int | None` and `list[float] | None` are told as int and float are.
    words = re.findall(r"\w+", str(kind))
    named.metavar = next((name for of, name in METAVARS.items() if of.__name__ in words), None)
    return Annotated[kind, named]


def _parameter(option: Field[Any], annotation: Any) -> inspect.Parameter:
    default = inspect.Parameter.empty if option.default is MISSING else option.default
    return inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)

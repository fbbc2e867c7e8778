"""Options as the user typed them: some have two names, and what stands without a name has none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import typer

from lalign.cli.app import app


def spelled(option: str, words: Sequence[str]) -> str:
    """What a message calls `option`, a parameter's name or a bare option, of the command line `words`.

    Of two names it is the one that was typed, else the one that goes with others that were, else the one that is made
    for the command (`--judge-url` for judge), else the shorter. An argument is called as `--help` calls it.
    """
    command, parameters = _declared(words)
    bare = f"--{option.replace('_', '-')}"
    for parameter in parameters:
        if parameter.param_type_name == "argument" and parameter.name == option:
            return str(parameter.metavar or option.upper())
        names = _long(parameter)
        if parameter.name == option or bare in names:
            return _chosen(names or parameter.opts, command, parameters, words)
    return bare


def is_typed(name: str, words: Iterable[str]) -> bool:
    """Whether an option of this name is among the words."""
    return any(word == name or word.startswith(f"{name}=") for word in words)


def _declared(words: Sequence[str]) -> tuple[str, list[Any]]:
    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    command = next((word for word in words if word in commands), "")
    return command, commands[command].params if command else []


def _long(parameter: Any) -> list[str]:
    return [name for name in parameter.opts if name.startswith("--")]


def _chosen(names: list[str], command: str, parameters: Iterable[Any], words: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    if typed := [name for name in names if is_typed(name, words)]:
        return typed[0]
    pairs = [its for parameter in parameters if len(its := _long(parameter)) == len(names)]
    for place, name in enumerate(names):
        if any(is_typed(its[place], words) for its in pairs):
            return name
    own = [name for name in names if name.startswith(f"--{command}-")]
    return own[0] if own else min(names, key=len)

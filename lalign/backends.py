"""Engines by the name that `--engine` takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lalign import validation

if TYPE_CHECKING:
    from lalign.engine.interface import Backend
    from lalign.models.loading import ModelOptions

ENGINES = ("torch",)


def check_engine(engine: str) -> None:
    """Raises `OptionError` where no engine has that name; for callers to know before anything is loaded."""
    validation.choice("engine", engine, ENGINES)


def open_backend(model: ModelOptions, engine: str = "torch") -> Backend:
    """A model, loaded into an engine. Raises `ModelError`, `OptionError`."""
    check_engine(engine)
    from lalign.engine.torch_backend import TorchBackend
    from lalign.models.loading import load

    return TorchBackend(load(model))

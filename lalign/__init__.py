"""Align language models to a written principle while they decode (Linear Alignment, Gao et al., ICML 2024)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lalign.errors import InputError, LalignError, ModelError, OptionError, OutputError
from lalign.method.linear_alignment import Alignment
from lalign.options import Execution, Sampling

if TYPE_CHECKING:
    from lalign.aligner import Aligner
    from lalign.processor import AlignmentLogitsProcessor
    from lalign.results import Failure, Result

__version__ = "0.1.0"
__all__ = [
    "Aligner",
    "Alignment",
    "AlignmentLogitsProcessor",
    "Execution",
    "Failure",
    "InputError",
    "LalignError",
    "ModelError",
    "OptionError",
    "OutputError",
    "Result",
    "Sampling",
]

_LAZY = {
    "Aligner": "lalign.aligner",
    "AlignmentLogitsProcessor": "lalign.processor",
    "Failure": "lalign.results",
    "Result": "lalign.results",
}


def __getattr__(name: str) -> Any:
    # torch and transformers take seconds to import: only what needs them pays for it.
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'lalign' has no attribute {name!r}")

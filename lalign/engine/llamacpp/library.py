"""llama.cpp through the low-level functions of llama-cpp-python, its log kept off the terminal."""

from __future__ import annotations

import ctypes
from collections import deque
from dataclasses import dataclass
from functools import cache
from typing import Any

from lalign.errors import ModelError

INSTALL = "pip install 'lalign[llamacpp]'"
# Levels of ggml's log.
_ERROR, _CONTINUED = 4, 5


@dataclass(frozen=True, slots=True)
class Library:
    """The functions, and the last errors that the log told of.

    callback: kept, since llama.cpp calls it as long as the process lives.
    """

    api: Any
    errors: deque[str]
    callback: Any

    def problem(self, otherwise: str) -> str:
        """What the log says of a failure, its cause first where there are several; `otherwise` where it says nothing.

        The errors are forgotten.
        """
        lines = [line.strip() for line in "".join(self.errors).splitlines() if line.strip()]
        self.errors.clear()
        # Lines begin with the function that writes them, which says nothing to a user.
        return lines[0].split(": ", 1)[-1] if lines else otherwise


@cache
def library() -> Library:
    """llama.cpp, loaded once: its log is one for the process. Raises `ModelError` where it is not installed."""
    try:
        import llama_cpp
    except ImportError:
        raise ModelError(f"--engine llamacpp takes the package llama-cpp-python: {INSTALL}") from None
    except Exception as error:  # the shared library it carries is for another machine, or lacks a library of its own
        raise ModelError(f"llama-cpp-python cannot be used here: {' '.join(str(error).split())}") from error
    errors: deque[str] = deque(maxlen=16)
    levels = [0]

    @llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
    def hear(level: int, text: bytes, _: Any) -> None:
        levels[0] = levels[0] if level == _CONTINUED else level
        if levels[0] == _ERROR:
            errors.append(text.decode(errors="replace"))

    llama_cpp.llama_log_set(hear, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    return Library(llama_cpp, errors, hear)

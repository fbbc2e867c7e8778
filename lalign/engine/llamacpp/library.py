"""llama.cpp through the low-level functions of llama-cpp-python, its log kept off the terminal."""

from __future__ import annotations

import ctypes
import sys
from collections import deque
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from lalign.errors import ModelError

INSTALL = "pip install 'lalign[llamacpp]'"
# Levels of ggml's log.
_ERROR, _CONTINUED = 4, 5


@dataclass(slots=True)
class Log:
    """What llama.cpp writes of itself, which is one log for the process: the last errors; all on stderr if shown."""

    is_shown: bool = False
    errors: deque[str] = field(default_factory=lambda: deque(maxlen=16))
    level: int = 0

    def hear(self, level: int, text: bytes, _: Any) -> None:
        """As llama.cpp calls it. A text may be a part of a line, which goes on at the level of the part before."""
        self.level = self.level if level == _CONTINUED else level
        said = text.decode(errors="replace")
        if self.level == _ERROR:
            self.errors.append(said)
        if self.is_shown:
            sys.stderr.write(said)


@dataclass(frozen=True, slots=True)
class Library:
    """The functions, and the log.

    callback: kept, since llama.cpp calls it as long as the process lives.
    """

    api: Any
    log: Log
    callback: Any

    def problem(self, otherwise: str) -> str:
        """What the log says of a failure, its cause first where there are several; `otherwise` where it says nothing.

        The errors are forgotten.
        """
        lines = [line.strip() for line in "".join(self.log.errors).splitlines() if line.strip()]
        self.log.errors.clear()
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
    log = Log()
    callback = llama_cpp.llama_log_callback(log.hear)
    llama_cpp.llama_log_set(callback, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    return Library(llama_cpp, log, callback)

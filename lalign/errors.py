"""Every error that lalign raises on purpose. Each prints as one line."""

from __future__ import annotations


class LalignError(Exception):
    """Base of all errors a caller may want to catch; `str()` is one clear line."""


class OptionError(LalignError, ValueError):
    """An option, argument or record field has a value that it cannot have.

    `option` is the bare name (`ratio`, `max_new_tokens`), so that a caller can show it the way its user
    wrote it (`--max-new-tokens` on the command line, `max_new_tokens` in a record).
    """

    def __init__(self, option: str, problem: str) -> None:
        super().__init__(f"{option}: {problem}")
        self.option = option
        self.problem = problem


class ModelError(LalignError):
    """The model cannot be found, loaded or supported."""


class InputError(LalignError):
    """The input cannot be opened or read on; raised for the file, never for one line of it."""


class OutputError(LalignError):
    """The output cannot be written, or must not be (it exists, is locked, or belongs to another run)."""


class PromptError(LalignError):
    """No prompt can be made of a conversation such that its twins differ by the principle alone."""


def first_line(error: BaseException) -> str:
    """What an error of another library says, in one line: its first that is not empty, else the error's kind."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)

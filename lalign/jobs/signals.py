"""SIGINT, SIGTERM and SIGHUP as a question the job asks between steps."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Interruption:
    """While entered, the first signal is only noted, so that what is finished can be written; the second ends at once;
    SIGHUP never does.

    Attributes:
        received: the signal's number, None while none has come. The exit status is 128 + this.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __bool__(self) -> bool:
        return self.received is not None

    @property
    def status(self) -> int:
        """The exit status a shell gives a process that this signal ended."""
        return 128 + (self.received or 0)

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS if not _is_ignored(number)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received = number
        elif number != getattr(signal, "SIGHUP", None):  # which kernel and shell both send when a terminal is closed
            os._exit(128 + number)


def _is_ignored(number: int) -> bool:
    """Whether the process was started so that the end of its terminal does not concern it, as `nohup` does."""
    return number == getattr(signal, "SIGHUP", None) and signal.getsignal(number) == signal.SIG_IGN

"""Asking a model that lalign runs itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from typing import Any

from lalign.aligner import Aligner
from lalign.asking.chats import Chat, Reply, Stopped, Unanswered
from lalign.options import Execution, Sampling
from lalign.records.parsing import Record
from lalign.records.prompts import make_principles
from lalign.records.requests import resolve
from lalign.results import Failure, Result

# Of a key, read as a number: the line that a chat stands for, on which its random numbers depend.
_LINE_DIGITS = 15


class LocalModel:
    """A loaded model as `Asker`, without any principle.

    Args:
        aligner: the model.
        sampling: of all replies; what is drawn depends on its seed and on the chat, not on what else is asked.
        execution: batch size.
    """

    def __init__(self, aligner: Aligner, sampling: Sampling, execution: Execution | None = None) -> None:
        self._aligner = aligner
        self._sampling = sampling
        self._execution = replace(execution or Execution(), statistics="none")

    def fingerprint(self) -> dict[str, Any]:
        """As `Asker.fingerprint`."""
        return {
            "model": self._aligner.backend.fingerprint(),
            "model_name": self._aligner.backend.name,
            **asdict(self._sampling),
            "stop": list(self._sampling.stop),
        }

    def ask(self, chats: Iterable[Chat], stopped: Stopped) -> Iterator[tuple[Chat, Reply | Unanswered]]:
        """As `Asker.ask`, in order."""
        by_key = {chat.key: chat for chat in chats}
        records = [
            Record(int(chat.key[:_LINE_DIGITS], 16), chat.key, chat.messages, options={}) for chat in by_key.values()
        ]
        settings = resolve(make_principles((), None, None), sampling=self._sampling, options={"ratio": 0.0})
        ticks = self._aligner.ticks(records, settings, system=None, execution=self._execution)
        try:
            for outcomes in ticks:
                for outcome in outcomes:
                    yield by_key[str(outcome.id)], _reply(outcome)
                if stopped():
                    return
        finally:
            ticks.close()


def _reply(outcome: Result | Failure) -> Reply | Unanswered:
    if isinstance(outcome, Failure):
        return Unanswered(outcome.type, outcome.message)
    if not outcome.response.strip():
        return Unanswered("empty_reply", f"no text (finish_reason {outcome.finish_reason!r})")
    return Reply(outcome.response, cut=outcome.finish_reason == "length")

"""The replies that have come, kept on disk as they come, so that what was asked and answered is never asked again."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from lalign.asking.chats import Asker, Chat, Reply, Stopped, Unanswered
from lalign.errors import OutputError
from lalign.jobs.header import beside, differences
from lalign.jobs.stream import faults, write_all

SUFFIX = ".replies"
_SETTINGS = "settings"


class Replies:
    """Replies by the keys of their chats, in a file beside an output, or in memory alone where there is none.

    The file begins with the settings under which its replies were made; after a `force` others stand before the
    replies that they are for. A line is written whole and unbuffered once its reply is there, and so outlives the
    process. The output's lock is that of this file too. Entered and left around a job; until `start` the file stays
    as it was.

    Args:
        output: the file that the job writes in the end; None for a stream.
        resume: whether what an earlier run has left there counts, and `force` whether also under other settings.
        overwrite: whether it may be thrown away.

    Raises `OutputError` where an earlier run has left replies that neither count nor may be thrown away.
    """

    def __init__(
        self, output: Path | None, *, resume: bool = False, overwrite: bool = False, force: bool = False
    ) -> None:
        self._stored: dict[str, Reply] = {}
        self._settings: Mapping[str, Any] | None = None
        self._name = str(output)
        self._path = None if output is None else beside(Path(os.path.realpath(output)), SUFFIX)
        self._resume = resume
        self._force = force
        self._stream: io.FileIO | None = None
        if self._path is not None and not (resume or overwrite):
            with faults(str(self._path)):
                _refuse_paid_for(self._path)

    def start(self, settings: Mapping[str, Any]) -> None:
        """Begin the file, or go on with it; `settings` are all that its replies depend on: flat, JSON values.

        Raises `OutputError` where it cannot be read or written, holds a line that is no reply, or replies that were
        made under other settings, each named.
        """
        if self._path is None:
            return
        with faults(str(self._path)):
            end = self._load(self._path) if self._resume and self._path.exists() else 0
            is_new = self._settings is None or bool(differences(self._settings, settings))
            if not self._stored:  # nothing that could be of other settings
                end, is_new = 0, True
            elif is_new and not self._force:
                self._refuse(self._settings, settings)
            self._stream = io.FileIO(self._path, "a")
            self._stream.truncate(end)
            if is_new:
                write_all(self._stream, _line({_SETTINGS: settings}))

    def __contains__(self, chat: Chat) -> bool:
        return chat.key in self._stored

    def __getitem__(self, chat: Chat) -> Reply:
        return self._stored[chat.key]

    def add(self, chat: Chat, reply: Reply) -> None:
        """Keep a reply. Raises `OutputError`."""
        self._stored[chat.key] = reply
        if self._stream is not None:
            with faults(str(self._path)):
                write_all(self._stream, _line({"key": chat.key, "text": reply.text, "cut": reply.cut}))

    def remove(self) -> None:
        """The job is done: all replies are in its output."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def __enter__(self) -> Replies:
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            self._stream.close()

    def _load(self, path: Path) -> int:
        """Read what is there; returns where its last whole line ends."""
        end = 0
        with path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                if not raw.endswith(b"\n"):
                    break
                try:
                    line = orjson.loads(raw)
                    if _SETTINGS in line:
                        self._settings = line[_SETTINGS]
                    else:
                        self._stored[line["key"]] = Reply(line["text"], line["cut"])
                except (ValueError, KeyError, TypeError):
                    raise OutputError(
                        f"{path}:{number}: is not a reply; without this file, all is asked anew"
                    ) from None
                end += len(raw)
        return end

    def _refuse(self, stored: Mapping[str, Any] | None, current: Mapping[str, Any]) -> None:
        told = "which it does not name" if stored is None else "; ".join(differences(stored, current))
        raise OutputError(
            f"{self._name}: the replies in {self._path} were made with other settings ({told}); --force goes on with "
            "them all the same, --overwrite in place of --resume asks all anew"
        )


def _refuse_paid_for(path: Path) -> None:
    if not path.exists():
        return
    settings = _line({_SETTINGS: None}).partition(b":")[0]
    with path.open("rb") as file:
        if any(raw.endswith(b"\n") and not raw.startswith(settings) for raw in file):
            raise OutputError(
                f"{path}: holds replies of a job that did not end; --resume goes on with them, --overwrite asks all "
                "anew"
            )


def _line(fields: Mapping[str, Any]) -> bytes:
    return orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)


def ask_once(
    asker: Asker, chats: Iterable[Chat], replies: Replies, stopped: Stopped
) -> Iterator[tuple[Chat, Reply | Unanswered]]:
    """The reply to each chat, each key once: those that are kept first, then those of `asker`, which are kept."""
    unique = {chat.key: chat for chat in chats}
    for chat in unique.values():
        if chat in replies:
            yield chat, replies[chat]
    for chat, reply in asker.ask([chat for chat in unique.values() if chat not in replies], stopped):
        if isinstance(reply, Reply):
            replies.add(chat, reply)
        yield chat, reply

"""The replies that have come, kept on disk as they come, so that what was asked and answered is never asked again."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import orjson

from lalign.asking.chats import Asker, Chat, Reply, Stopped, Unanswered
from lalign.errors import OutputError
from lalign.jobs.header import beside
from lalign.jobs.stream import faults, write_all

SUFFIX = ".replies"


class Replies:
    """Replies by the keys of their chats, in a file beside an output, or in memory alone where there is none.

    A line is written whole and unbuffered once its reply is there, and so outlives the process. The output's lock is
    that of this file too. Entered and left around a job.

    Args:
        output: the file that the job writes in the end; None for a stream.
        resume: whether what an earlier run has left there counts.

    Raises `OutputError` where the file cannot be read or written, or holds a line that is no reply.
    """

    def __init__(self, output: Path | None, *, resume: bool) -> None:
        self._stored: dict[str, Reply] = {}
        self._path = None if output is None else beside(Path(os.path.realpath(output)), SUFFIX)
        self._stream: io.FileIO | None = None
        if self._path is None:
            return
        with faults(str(self._path)):
            end = self._load(self._path) if resume and self._path.exists() else 0
            self._stream = io.FileIO(self._path, "a")
            self._stream.truncate(end)

    def __contains__(self, chat: Chat) -> bool:
        return chat.key in self._stored

    def __getitem__(self, chat: Chat) -> Reply:
        return self._stored[chat.key]

    def add(self, chat: Chat, reply: Reply) -> None:
        """Keep a reply. Raises `OutputError`."""
        self._stored[chat.key] = reply
        if self._stream is not None:
            line = {"key": chat.key, "text": reply.text, "cut": reply.cut}
            with faults(str(self._path)):
                write_all(self._stream, orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))

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
                    self._stored[line["key"]] = Reply(line["text"], line["cut"])
                except (ValueError, KeyError, TypeError):
                    raise OutputError(
                        f"{path}:{number}: is not a reply; without this file, all is asked anew"
                    ) from None
                end += len(raw)
        return end


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

"""Asking by files in OpenAI's Batch form: requests are written, and the file of responses is read another day."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from lalign.asking.chats import Chat, Reply, Stopped, Unanswered, as_json
from lalign.asking.completions import completion_reply
from lalign.errors import InputError, OutputError
from lalign.records.json_line import json_object, line_text
from lalign.records.problems import Unusable
from lalign.records.source import json_lines, open_lines
from lalign.text import shortened

URL = "/v1/chat/completions"


def write_requests(path: Path, chats: Iterable[Chat], model: str, body: Mapping[str, Any]) -> int:
    """Write each chat once, its key for `custom_id`; returns how many. Raises `OutputError`."""
    unique = {chat.key: chat for chat in chats}
    try:
        with path.open("wb") as file:
            for chat in unique.values():
                asked = {"model": model, "messages": as_json(chat), **body}
                request = {"custom_id": chat.key, "method": "POST", "url": URL, "body": asked}
                file.write(orjson.dumps(request, option=orjson.OPT_APPEND_NEWLINE))
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror}") from None
    return len(unique)


class BatchResponses:
    """Files of responses as `Asker`: the replies to what `write_requests` wrote.

    Attributes:
        unknown: how many responses were read and not asked for, once `ask` is done.

    Raises `InputError` for a file that cannot be read, a line that is no response, or two that differ for one request.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.unknown = 0
        self._names = ", ".join(map(str, paths))
        self._replies: dict[str, Reply | Unanswered] = {}
        for path in paths:
            for number, key, reply in _responses(path):
                stored = self._replies.get(key)
                if isinstance(stored, Reply) and isinstance(reply, Reply) and stored != reply:
                    raise InputError(f"{path}:{number}: custom_id: {key!r} has another response before")
                if not isinstance(stored, Reply):
                    self._replies[key] = reply

    def fingerprint(self) -> dict[str, Any]:
        """As `Asker.fingerprint`: which model it was is not for certain told by a file of responses."""
        return {"model": "batch responses"}

    def ask(self, chats: Iterable[Chat], stopped: Stopped) -> Iterator[tuple[Chat, Reply | Unanswered]]:
        """As `Asker.ask`, in order."""
        missing = Unanswered("no_response", f"{self._names}: no response to this request")
        asked = set()
        for chat in chats:
            asked.add(chat.key)
            yield chat, self._replies.get(chat.key, missing)
        self.unknown = len(self._replies.keys() - asked)


def _responses(path: Path) -> Iterator[tuple[int, str, Reply | Unanswered]]:
    with open_lines(path) as stream:
        for raw in json_lines(stream, str(path)):
            try:
                fields = json_object(line_text(raw))
            except Unusable as error:
                raise InputError(f"{path}:{raw.number}: {error}") from None
            key = fields.get("custom_id")
            if not isinstance(key, str):
                raise InputError(f"{path}:{raw.number}: custom_id: must be a string, not {shortened(key)}")
            yield raw.number, key, response_reply(fields)


def response_reply(fields: Mapping[str, Any]) -> Reply | Unanswered:
    """The reply that a line of a Batch output holds."""
    match fields:
        case {"error": {"message": str(message)}}:
            return Unanswered("batch_error", message)
        case {"response": {"status_code": int(status), "body": body}} if status != 200:
            return Unanswered("batch_error", f"status {status}: {shortened(body, 120)}")
        case {"response": {"body": body}}:
            return completion_reply(body)
        case _:
            return Unanswered("batch_error", "the line holds neither a response nor an error")

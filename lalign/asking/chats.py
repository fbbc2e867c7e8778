"""What is asked of a model beside the job's own records, what comes back, and who may be asked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from lalign.records.parsing import Message

KEY_DIGITS = 32


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation that ends with a user turn.

    key: a digest of all that the reply may depend on, so that a reply can be kept and found again.
    """

    key: str
    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model said, and whether it was cut off by the limit of tokens."""

    text: str
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Unanswered:
    """Why there is no reply: a short machine-readable name and one clear sentence, as in `results.Failure`."""

    type: str
    message: str


Stopped = Callable[[], bool]


class Asker(Protocol):
    """A model that can be asked, wherever it runs."""

    def fingerprint(self) -> dict[str, Any]:
        """Everything about it that a reply depends on: flat, JSON values."""

    def ask(self, chats: Iterable[Chat], stopped: Stopped) -> Iterator[tuple[Chat, Reply | Unanswered]]:
        """Replies as they come, in any order. Once `stopped` nothing new is asked; what was begun may be given up.

        Raises `LalignError` where it makes no sense to go on; what came before has been given.
        """


def user_chat(text: str, salt: str = "") -> Chat:
    """A chat of one user turn. Chats of the same text have one key, unless their salts differ."""
    message = Message("user", text)
    return Chat(hashlib.sha256(orjson.dumps([salt, text])).hexdigest()[:KEY_DIGITS], (message,))


def as_json(chat: Chat) -> list[dict[str, str]]:
    """The messages of a chat as OpenAI's interface has them."""
    return [{"role": message.role, "content": message.content} for message in chat.messages]

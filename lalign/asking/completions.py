"""The reply in a chat completion, as OpenAI and servers that are compatible with it write them."""

from __future__ import annotations

from typing import Any

import orjson

from lalign.asking.chats import Reply, Unanswered
from lalign.text import shortened


def completion_reply(body: bytes | Any) -> Reply | Unanswered:
    """The reply that a body holds, given as bytes or as the JSON value in them; nonsense is `Unanswered`."""
    if isinstance(body, bytes):
        try:
            body = orjson.loads(body)
        except orjson.JSONDecodeError:
            return Unanswered("not_a_completion", f"the reply is not JSON: {shortened(body[:60], 60)}")
    match body:
        case {"choices": [{"message": {"content": str(text)}} as choice, *_]} if text.strip():
            return Reply(text, cut=choice.get("finish_reason") == "length")
        case {"choices": [{"message": {"refusal": str(refusal)}}, *_]}:
            return Unanswered("refused", f"the model refused: {shortened(refusal, 120)}")
        case {"choices": [{"message": dict()} as choice, *_]}:
            return Unanswered("empty_reply", f"no text (finish_reason {choice.get('finish_reason')!r})")
        case _:
            return Unanswered("not_a_completion", f"the reply is no chat completion: {shortened(body, 60)}")

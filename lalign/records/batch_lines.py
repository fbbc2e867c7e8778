"""Lines of OpenAI's batch results, lalign's own (`--output-format openai-batch`) and others': what stands where."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Keys of lalign's own lines that a line of batch results has in another place, or its own of that name.
_PLACED = ("id", "custom_id", "response", "lalign")


def is_batch_line(fields: Mapping[str, Any]) -> bool:
    """Whether a line is one of batch results: it has `custom_id`, and its `response` is no text."""
    return fields.get("custom_id") is not None and "response" in fields and not isinstance(fields["response"], str)


def id_fields(fields: Mapping[str, Any]) -> tuple[str, str]:
    """The keys that hold a line's id, the one that counts first: in batch results `id` is that of the result."""
    return ("custom_id", "id") if is_batch_line(fields) else ("id", "custom_id")


def unpacked(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """A line of batch results that lalign wrote as one of `--output-format jsonl`; any other line as it is."""
    own = fields.get("lalign")
    if not (is_batch_line(fields) and isinstance(own, Mapping)):
        return fields
    added = {name: value for name, value in fields.items() if name not in _PLACED}
    return {**own, **added, "id": fields["custom_id"], "response": _text(fields["response"])}


def _text(response: Any) -> str | None:
    match response:
        case {"body": {"choices": [{"message": {"content": str(text)}}, *_]}}:
            return text
    return None

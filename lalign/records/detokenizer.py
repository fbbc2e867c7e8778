"""From generated tokens to text: where it begins, where it ends, and whether a stop string has come."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")


class Detokenizer:
    """Turns the tokens of responses into text, as they follow a prompt.

    Args:
        tokenizer: the model's.
        stop_ids: token ids that end a response and are no part of its text.
    """

    def __init__(self, tokenizer: Any, stop_ids: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._stop_ids = stop_ids
        added = getattr(tokenizer, "added_tokens_decoder", {})
        self._special = {*tokenizer.all_special_ids, *(number for number, token in added.items() if token.special)}
        # Tokenizers that mark the beginning of a word drop the space before the first token of a text.
        self._before: list[int] = list(tokenizer("a", add_special_tokens=False)["input_ids"][-1:])
        self._before_text: str = self._decoded(self._before)
        pieces = tokenizer.convert_ids_to_tokens(list(tokenizer("é", add_special_tokens=False)["input_ids"]))
        self._bytes = _byte_alphabet() if "".join(pieces).endswith("Ã©") else {}
        self.token_text = lru_cache(maxsize=1 << 16)(self._token_text)
        self._token_bytes = lru_cache(maxsize=1 << 16)(self._read_bytes)

    def text(self, tokens: list[int], stop: tuple[str, ...] = ()) -> str:
        """The response's text: no stop token, no special tokens, cut where a stop string begins or within a character.

        The space that a first token brings with it is part of it.
        """
        kept = tokens[:-1] if tokens and tokens[-1] in self._stop_ids else tokens
        kept = [token for token in kept if token not in self._special]
        missing = self._unfinished(kept)
        if missing and self._is_byte(kept[-1]):  # decoded with others that make no character, it spoils those before
            text = self._behind_prompt(kept[:-missing])
        else:
            text = self._behind_prompt(kept)
            text = text.removesuffix("\ufffd") if missing else text
        ends = [start for string in stop if (start := text.find(string)) >= 0]
        return text[: min(ends)] if ends else text

    def token_bytes(self, token: int) -> bytes:
        """The bytes that a token stands for within a text."""
        piece = self._piece(token)
        if _BYTE_PIECE.fullmatch(piece) or (self._bytes and all(character in self._bytes for character in piece)):
            return self._token_bytes(token)
        return self.token_text(token).encode()

    def stops(self, strings: tuple[str, ...]) -> Callable[[list[int]], bool]:
        """A test of whether one of the strings stands in the text of the tokens so far."""
        # Each token holds at least a byte of text, but for special tokens: a tail this long shows any new ending.
        reach = max(len(string.encode()) for string in strings) + 8

        def stops(tokens: list[int]) -> bool:
            tail = self._behind_prompt(self._tail(tokens, reach))
            return any(string in tail for string in strings) and any(string in self.text(tokens) for string in strings)

        return stops

    def _tail(self, tokens: list[int], reach: int) -> list[int]:
        """The last `reach` tokens that are text, and as many before them as it takes to begin with a character."""
        start, length = len(tokens), 0
        while start > 0 and (length < reach or self._continues(tokens[start])):
            start -= 1
            length += tokens[start] not in self._special
        return tokens[start:]

    def _continues(self, token: int) -> bool:
        return self._is_byte(token) or self._token_bytes(token)[:1] in _CONTINUATION

    def _is_byte(self, token: int) -> bool:
        return _BYTE_PIECE.fullmatch(self._piece(token)) is not None

    def _unfinished(self, tokens: list[int]) -> int:
        """How many bytes of a character that is not complete the tokens end with."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        decoder.decode(b"".join(map(self._token_bytes, tokens[-4:])))
        return len(decoder.getstate()[0])

    def _read_bytes(self, token: int) -> bytes:
        piece = self._piece(token)
        if byte := _BYTE_PIECE.fullmatch(piece):
            return bytes([int(byte[1], 16)])
        if all(character in self._bytes for character in piece):
            return bytes(self._bytes[character] for character in piece)
        return piece.encode(errors="replace")

    def _piece(self, token: int) -> str:
        return str(self._tokenizer.convert_ids_to_tokens(token) or "")

    def _behind_prompt(self, tokens: list[int]) -> str:
        text = self._decoded([*self._before, *tokens])
        return text[len(self._before_text) :] if text.startswith(self._before_text) else self._decoded(tokens)

    def _decoded(self, tokens: list[int], *, skip_special_tokens: bool = True) -> str:
        text: str = self._tokenizer.decode(
            tokens, skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False
        )
        return text

    def _token_text(self, token: int) -> str:
        return self._decoded([*self._before, token], skip_special_tokens=False).removeprefix(self._before_text)


_CONTINUATION = {bytes([byte]) for byte in range(0x80, 0xC0)}


def _byte_alphabet() -> dict[str, int]:
    """The characters that byte-level tokenizers write bytes with, as GPT-2's program assigns them."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + index): byte for index, byte in enumerate(others)}

"""From the text of a prompt to token ids, where what users write never becomes a special token."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cached_property
from itertools import chain, pairwise
from typing import Any

from lalign.errors import PromptError

# Marks are characters for private use, the last of their plane: each is one that no text at hand contains.
_LAST_PRIVATE = 0x10FFFD
# Added tokens that are not marked as special, but look like markup.
_MARKUP = re.compile(r"[<>\[\]{}|]")
# Of a text that is far too long, as many characters as this for each token that would fit are tokenised.
_CHARACTERS_PER_TOKEN = 16


def unused_characters(texts: Iterable[str], count: int) -> list[str]:
    """Characters that none of the texts contains."""
    texts = tuple(texts)
    found: list[str] = []
    code = _LAST_PRIVATE
    while len(found) < count:
        if not any(chr(code) in text for text in texts):
            found.append(chr(code))
        code -= 1
    return found


class Encoder:
    """Encodes prompts with one tokenizer.

    The text of a special token, where a user wrote it, is broken behind its first character: what stands before the
    break and what stands after it are encoded apart, so that neither can be that token. Text without any is encoded
    in one piece, as stock code does. Tokens that the tokenizer does not call special count where they look like
    markup and the chat template writes them.

    Attributes:
        adds_bos: whether the tokenizer puts its BOS before a plain text.
    """

    def __init__(self, tokenizer: Any, *, allow_special_tokens: bool = False) -> None:
        self.tokenizer = tokenizer
        added = getattr(tokenizer, "added_tokens_decoder", {})
        template = str(getattr(tokenizer, "chat_template", None) or "")
        texts = {
            token.content
            for token in added.values()
            if token.special or (token.content in template and _MARKUP.search(token.content))
        }
        texts = {text for text in (*texts, *tokenizer.all_special_tokens) if text.strip()}
        self._markup = None if allow_special_tokens or not texts else re.compile(_either(texts))
        # Looked for in a text that the tokenizer has changed already.
        self._normalized = {
            number: token.content
            for number, token in added.items()
            if token.normalized and token.content in texts and token.content != tokenizer.unk_token
        }
        self._anchor = next((text for text in tokenizer.all_special_tokens if self._is_token(text)), "")
        self._lead, self._trail = self._added_around()
        self.adds_bos = tokenizer.bos_token_id is not None and tokenizer.bos_token_id in self._lead

    def broken(self, text: str, mark: str) -> str:
        """A text with `mark`, a character that it does not contain, wherever a special token must be broken."""
        if self._markup is None or not self._markup.search(text):
            return text
        starts = [match.start() for match in re.finditer(f"(?={self._markup.pattern})", text)]
        if any(text[start] in self.tokenizer.all_special_tokens for start in starts):
            raise PromptError("the text holds a special token of a single character; see --allow-special-tokens")
        ends = [0, *(start + 1 for start in starts), len(text)]
        return mark.join(text[start:end] for start, end in pairwise(ends))

    def encode(self, text: str, mark: str, *, add_special_tokens: bool) -> list[int]:
        """The ids of a text that is broken at each `mark`. Raises `PromptError` where a break does not help."""
        first, *rest = text.split(mark)
        lead, trail = (self._lead, self._trail) if add_special_tokens else ([], [])
        if not rest:
            ids = self._ids(first, add_special_tokens)
        else:
            ids = [*lead, *self._ids(first), *chain.from_iterable(map(self._behind_anchor, rest)), *trail]
        if self._markup is not None and self._normalized:
            self._refuse_disguised(ids, [first, *rest], lead + trail)
        return ids

    def least_tokens(self, text: str, limit: int) -> int:
        """A number of tokens that a text has at the least, found without tokenising much more than `limit` of it."""
        least = len(text.encode(errors="replace")) // self._longest_token
        head = _CHARACTERS_PER_TOKEN * limit
        if least <= limit and len(text) > head:
            # Where the text is cut it may be split in another way; never into twice as many tokens.
            least = max(least, len(self._ids(text[:head])) // 2)
        return least

    @cached_property
    def _longest_token(self) -> int:
        return max((len(text.encode(errors="replace")) for text in self.tokenizer.get_vocab()), default=1)

    def _ids(self, text: str, add_special_tokens: bool = False) -> list[int]:
        try:
            return list(self.tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"])
        except Exception as error:  # such as for half a surrogate pair
            raise PromptError(f"the tokenizer refuses the text: {' '.join(str(error).split())}") from error

    def _behind_anchor(self, text: str) -> list[int]:
        # Many tokenizers put a space before a text, but not before what follows a special token.
        return self._ids(self._anchor + text)[1:] if self._anchor else self._ids(text)

    def _is_token(self, text: str) -> bool:
        return len(self._ids(text)) == 1 and self._ids(f"{text}a")[:1] == self._ids(text)

    def _added_around(self) -> tuple[list[int], list[int]]:
        plain, whole = self._ids("a"), self._ids("a", True)
        for start in range(len(whole) - len(plain) + 1):
            if whole[start : start + len(plain)] == plain:
                return whole[:start], whole[start + len(plain) :]
        return [], []

    def _refuse_disguised(self, ids: list[int], pieces: list[str], own: list[int]) -> None:
        """Raise where the tokenizer changes a text, such as its case, and then takes it for a special token."""
        read = sum(number in self._normalized for number in ids)
        written = sum(piece.count(text) for piece in pieces for text in self._normalized.values())
        if read > written + sum(number in self._normalized for number in own):
            raise PromptError("the tokenizer reads a special token into the text; see --allow-special-tokens")


def _either(texts: Iterable[str]) -> str:
    return "|".join(re.escape(text) for text in sorted(texts, key=len, reverse=True))

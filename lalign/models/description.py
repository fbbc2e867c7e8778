"""A model that another engine than torch runs: all that lalign itself needs to know of it, without its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from lalign.engine.interface import Limits
from lalign.errors import ModelError, OptionError
from lalign.models.loading import (
    DTYPES,
    ModelOptions,
    converted_folder,
    fingerprint,
    load_problem,
    multiplied,
    stop_ids,
)
from lalign.models.location import adapter_base, default_model, gguf_file, refuse_unsafe_files
from lalign.models.support import context, refuse_misfits, refuse_unsupported


@dataclass(frozen=True, slots=True)
class Description:
    """A model's name, where its files are (a folder or a hub id), and what the files say of it.

    stated: the end-of-sequence ids of the generation config, one or several.
    """

    name: str
    location: str
    dtype: str
    config: Any
    tokenizer: Any
    stated: int | list[int] | None

    @property
    def stop_ids(self) -> frozenset[int]:
        """Every end-of-sequence id of the generation config, and the tokenizer's."""
        return stop_ids(self.stated, self.tokenizer)

    @property
    def limits(self) -> Limits:
        """How much context the model has, and how many tokens it knows."""
        found = context(self.config)
        return Limits(found.tokens, found.reason or "", self.config.get_text_config(decoder=True).vocab_size)

    def parameters(self) -> int | None:
        """How many weights a decoding step multiplies with; None where transformers does not know the model."""
        from transformers import AutoModelForCausalLM

        try:
            with torch.device("meta"):
                return multiplied(AutoModelForCausalLM.from_config(self.config))
        except Exception:  # code of others, which need not run
            return None

    def fingerprint(self) -> str:
        """As `LoadedModel.fingerprint`."""
        return fingerprint(self.location, self.config)


def describe(options: ModelOptions, engine: str, dtype: str) -> Description:
    """Find a model and read its tokenizer and configuration. A GGUF is converted first, to weights of `dtype`.

    Raises `ModelError` where it is not there, or of a kind that is refused; `OptionError` for what `engine` lacks.
    """
    for option, is_given in (
        ("device", options.device != "auto"),
        ("device_map", options.device_map is not None),
        ("compile", options.compile),
    ):
        if is_given:
            raise OptionError(option, f"is for the engine torch; {engine} has options of its own")
    name = options.name or default_model()
    if adapter_base(name) is not None:
        raise ModelError(f"{name}: {engine} does not take adapters; merge it into its model, or use --engine torch")
    gguf = gguf_file(name)
    location = name if gguf is None else converted_folder(gguf, DTYPES[dtype])
    try:
        config, tokenizer, stated = _read(location, name, options)
    except ModelError:
        raise
    except Exception as error:  # a damaged file fails in its parser with whatever the bytes lead to
        raise ModelError(load_problem(name, location, options, error)) from error
    refuse_misfits(config.get_text_config(decoder=True).vocab_size, stated, tokenizer, name)
    called = options.name or name.rpartition("/")[2]
    return Description(called, location, dtype, config, tokenizer, stated)


def _read(location: str, name: str, options: ModelOptions) -> tuple[Any, Any, Any]:
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    trust = {"trust_remote_code": options.trust_remote_code}
    config = AutoConfig.from_pretrained(location, **trust)
    refuse_unsupported(config, name)
    if not options.allow_pickle:
        refuse_unsafe_files(location)
    tokenizer = AutoTokenizer.from_pretrained(location, **trust)
    try:
        stated = GenerationConfig.from_pretrained(location).eos_token_id
    except OSError:  # there is none: transformers then makes one of the configuration
        stated = GenerationConfig.from_model_config(config).eos_token_id
    return config, tokenizer, stated

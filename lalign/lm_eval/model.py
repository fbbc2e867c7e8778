"""The model `lalign` of lm-evaluation-harness: its `hf` model, scored and generating under the aligned distribution."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text
from tqdm import tqdm

from lalign.engine.forced import Forced, Likelihood, token_likelihoods
from lalign.engine.interface import Point, Request
from lalign.engine.torch_backend import TorchBackend
from lalign.errors import LalignError, OptionError
from lalign.lm_eval.generation import generated, sampling_of
from lalign.lm_eval.twins import Twins
from lalign.method.recipe import Recipe
from lalign.method.recipes import option_names, recipe_of
from lalign.models.loading import DTYPES, LoadedModel, converted_folder
from lalign.models.location import default_model, gguf_file
from lalign.models.selfcheck import check_rows
from lalign.models.support import refuse_unsupported
from lalign.options import Execution, Placement, Prompting, Sampling
from lalign.records.detokenizer import Detokenizer

_log = logging.getLogger(__name__)
# Texts sorted by length at a time, with a batch size of "auto".
AUTO_WINDOW = 64


@register_model("lalign")
class AlignedLM(HFLM):
    """lm-evaluation-harness's `hf` model, aligned to a principle.

    Args:
        pretrained: as `hf` has it; None for lalign's default model.
        principle: a file with the principle, `principle_text` the text itself; none is needed where the recipe looks at
            the base model alone.
        recipe: a name of `lalign.method.recipes.RECIPES`.
        placement: see `lalign.options.Prompting`.
        options: options of the recipe by their names; all else is for `hf`.

    Raises `OptionError`, and `ModelError` for a model that lalign cannot run.
    """

    _taken = 0  # tokens of the context that the principle takes

    def __init__(
        self,
        pretrained: Any = None,
        *,
        principle: str | None = None,
        principle_text: str | None = None,
        recipe: str = "lalign",
        placement: Placement = "joined",
        **options: Any,
    ) -> None:
        given = {name: options.pop(name) for name in option_names() & options.keys()}
        self.recipe = _recipe(recipe, given)
        Prompting(placement)
        text = _principle(principle, principle_text)
        if text is None and self.recipe.needs((1.0,)) != "base":
            raise OptionError("principle", "is needed, a file or principle_text, unless the ratio is 0")
        if options.get("backend", "causal") == "seq2seq":
            raise OptionError("backend", "must be causal")
        super().__init__(_where(pretrained, options), **options)
        if self.backend != "causal":
            raise OptionError("backend", f"must be causal, and the model is {self.backend}")
        name = "the default model" if pretrained is None else pretrained if isinstance(pretrained, str) else "the model"
        refuse_unsupported(self.model.config, name)
        check_rows(self.model, name)
        self._backend = TorchBackend(LoadedModel(self.model, self.tokenizer, name, name))
        self._twins: Twins | None = None
        if text is not None and self.recipe.needs((1.0,)) != "base":
            self._twins = Twins(self.tokenizer, text, placement, self.chat_template_args)
            self._lead = self.tok_encode(self._twins.lead, add_special_tokens=False)
            self._taken = len(self._lead)
        self._point = Point(self.recipe, Sampling())

    @property
    def max_length(self) -> int:
        """What is left of the model's context with the principle in it, so that both twins see the same text."""
        return int(super().max_length) - self._taken

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """As `hf` has it; the principled twin of the conversation is remembered."""
        text: str = super().apply_chat_template(chat_history, add_generation_prompt)
        if self._twins is not None:
            self._twins.remember(chat_history, text)
        return text

    def _detect_batch_size(self, requests: Sequence[Any] | None = None, pos: int = 0) -> int:
        """With "auto", texts are run together as long as they fill the device."""
        return AUTO_WINDOW

    def _loglikelihood_tokens(
        self,
        requests: list[tuple[tuple[str, str] | None, list[int], list[int]]],
        disable_tqdm: bool = False,
        override_bs: int | None = None,
    ) -> list[tuple[float, bool]]:
        """As `hf` has it, each token under the aligned distribution at its place."""
        forced = [self._forced(number, *request) for number, request in enumerate(requests)]
        forced.sort(key=lambda each: -max(map(len, each.rows)))
        size = override_bs or (AUTO_WINDOW if self.batch_size == "auto" else int(self.batch_size))
        answers: dict[int, tuple[float, bool]] = {}
        bar = tqdm(total=len(forced), disable=disable_tqdm or self.rank != 0, desc="Running loglikelihood requests")
        for start in range(0, len(forced), size):
            for each, (likelihood,) in token_likelihoods(self._backend, forced[start : start + size]):
                number = each.request.key
                answers[number] = _answer(likelihood)
                if requests[number][0] is not None:
                    self.cache_hook.add_partial("loglikelihood", requests[number][0], answers[number])
                bar.update()
        bar.close()
        return [answers[number] for number in range(len(requests))]

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """As `hf` has it, by lalign's engine."""
        stops = Detokenizer(self.tokenizer, self._backend.stop_ids).stops
        asked = [request.args[:2] for request in requests]
        wanted = [self._wanted(number, context, options, stops) for number, (context, options) in enumerate(asked)]
        size: Any = self.batch_size if self.batch_size == "auto" else int(self.batch_size)
        bar = tqdm(total=len(wanted), disable=disable_tqdm or self.rank != 0, desc="Running generate_until requests")
        texts: dict[int, str] = {}
        for number, tokens in generated(self._backend, wanted, Execution(batch_size=size, statistics="none")):
            context, options = asked[number]
            texts[number] = self._text(tokens, options)
            self.cache_hook.add_partial("generate_until", (context, options), texts[number])
            bar.update()
        bar.close()
        return [texts[number] for number in range(len(requests))]

    def _forced(
        self, number: int, texts: tuple[str, str] | None, context: list[int], continuation: list[int]
    ) -> Forced:
        room = self.max_length + 1 - len(continuation)
        if not (context and continuation) or room < 1:
            raise LalignError(f"{len(continuation)} tokens after {len(context)} cannot be scored")
        text = "" if texts is None else texts[0]
        # As hf's `_encode_pair`: white space at the end of a context belongs to what is scored.
        twins = self._principled(text, len(text) - len(text.rstrip()), context, len(continuation) - 1)
        request = Request(number, self._cut(context, room), twins, (1.0,) * len(twins), (self._point,))
        return Forced(request, continuation)

    def _wanted(
        self,
        number: int,
        context: str,
        options: Mapping[str, Any],
        stops: Callable[[tuple[str, ...]], Callable[[list[int]], bool]],
    ) -> Request:
        given = normalize_gen_kwargs(dict(options), self.max_gen_toks)
        until = tuple(text for text in self._until(given.pop("until", None)) if text)
        sampling = sampling_of(given, self.model.generation_config)
        most = sampling.max_new_tokens
        ids, room = self.tok_encode(context), self.max_length - most
        if not ids or room < 1:
            raise LalignError(f"{most} tokens after a prompt of {len(ids)} cannot be generated")
        twins = self._principled(context, 0, ids, most)
        point = Point(self.recipe, sampling, (sampling.seed, number), stops(until) if until else None)
        return Request(number, self._cut(ids, room), twins, (1.0,) * len(twins), (point,))

    def _principled(self, text: str, dropped: int, ids: list[int], more: int) -> tuple[list[int], ...]:
        """The principled twin of `text` less its last `dropped` characters, which are `ids`; `more` tokens follow."""
        if self._twins is None:
            return ()
        if text:
            twin = self._twins.of(text)
            principled = self.tok_encode(twin[: len(twin) - dropped])
        else:
            first = ids[:1] if ids[:1] == [self.prefix_token_id] else []
            principled = [*first, *self._lead, *ids[len(first) :]]
        most, longest = self.max_length + self._taken, max(len(principled), len(ids)) + more
        if longest > most:
            raise LalignError(
                f"a prompt with the principle and what comes after it has {longest} tokens, more than the model's "
                f"context of {most}; fewer shots may help"
            )
        return (principled,)

    def _cut(self, ids: list[int], room: int) -> list[int]:
        """As `hf`: a text too long loses its beginning. (With a principle such a one has been refused.)"""
        if self._twins is None and len(ids) > room:
            _log.warning("a context of %d tokens is cut on the left to %d", len(ids), room)
            return ids[-room:]
        return ids

    def _until(self, until: str | list[str] | None) -> list[str]:
        eos = self.tok_decode(self.eot_token_id, skip_special_tokens=False)
        return cast(list[str], handle_stop_sequences(until, eos=eos))

    def _text(self, tokens: list[int], options: Mapping[str, Any]) -> str:
        """What `hf` makes of generated tokens."""
        end = self.think_end_token
        thought = isinstance(end, int) and end in tokens
        if thought:
            tokens = tokens[len(tokens) - tokens[::-1].index(end) :]
        text = self.tok_decode(tokens)
        until = self._until(normalize_gen_kwargs(dict(options)).pop("until", None))
        ending = end if isinstance(end, str) else None
        return str(postprocess_generated_text(text.lstrip() if thought else text, until, ending))


def _answer(likelihood: Likelihood) -> tuple[float, bool]:
    return float(likelihood.logprobs.sum(dtype=np.float64)), bool(likelihood.greedy.all())


def _recipe(name: str, given: Mapping[str, Any]) -> Recipe:
    """Options as lm-evaluation-harness parses them, where `none` is None."""
    named = {option: "none" if option == "support" and value is None else value for option, value in given.items()}
    return recipe_of(name, **named)


def _principle(file: str | None, text: str | None) -> str | None:
    if file is None:
        if text is not None and not str(text).strip():
            raise OptionError("principle_text", "is empty")
        return None if text is None else str(text).strip()
    if text is not None:
        raise OptionError("principle_text", "goes in place of principle")
    try:
        read = Path(str(file)).read_text(encoding="utf-8-sig").strip()
    except (OSError, ValueError) as error:
        raise OptionError("principle", f"{file}: {getattr(error, 'strerror', None) or 'not UTF-8'}") from None
    if not read:
        raise OptionError("principle", f"{file}: is empty")
    return read


def _where(pretrained: Any, options: Mapping[str, Any]) -> Any:
    """The model for `hf` to load; of a .gguf file what lalign has made of it, float32 unless a dtype is given."""
    found = default_model() if pretrained is None else pretrained
    if not isinstance(found, str) or "gguf_file" in options or (gguf := gguf_file(found)) is None:
        return found
    return converted_folder(gguf, DTYPES.get(str(options.get("dtype")), torch.float32))

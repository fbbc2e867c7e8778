"""One look, at load, whether rows of one batch answer as each does alone (design section 7)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lalign.engine.cache import KVStore
from lalign.engine.forward import Forward
from lalign.errors import ModelError, first_line

# Tokens of the two prompts that are run as rows of one batch; the short one is how the long one begins.
LONG, SHORT = 4, 2
# How far logits may lie apart, as a share of their spread: what rounding explains, by the weights' type. In bfloat16
# the 30 layers of SmolLM2-135M come to 0.15 on a CPU that has no instructions for it; in float32 to 0.00001.
TOLERANCE = {torch.float32: 1e-3, torch.float16: 0.1, torch.bfloat16: 0.3}
# The same where shapes are equal, so that rounding is.
SAME_SHAPE_TOLERANCE = {torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 2e-2}


def check_rows(model: Any, name: str) -> None:
    """Run two short prompts as lalign does, and what they begin as transformers does: the logits must agree.

    The two prompts are rows of one batch, the shorter one padded, and take one decoding step on their keys and
    values. Both are how one longer prompt begins, which is run whole and without a cache: each of its positions gives
    what the prompt that ends there must give. It stands in a batch with another that differs in the last token, which
    may change nothing before it. That is three forward passes of 10, 8 and 2 tokens.

    Raises `ModelError`, one line, for a model that looks ahead, whose positions count padding, whose cache is of
    another kind, or that does not run.
    """
    kind = model.config.model_type
    token_ids = _probe(model)
    try:
        with torch.no_grad():
            whole = _whole(model, token_ids)
            prompts, steps = _rows(model, token_ids)
    except Exception as error:  # a model that is called as it does not expect fails with whatever comes of it
        raise ModelError(f"{name}: {kind} does not run in rows of keys and values ({first_line(error)})") from error
    if not all(bool(logits.isfinite().all()) for logits in (whole, prompts, steps)):
        raise ModelError(f"{name}: in {str(model.dtype).removeprefix('torch.')} the model's logits are not finite")
    if distance(whole[0, :LONG], whole[1, :LONG]) > SAME_SHAPE_TOLERANCE[model.dtype]:
        raise ModelError(f"{name}: {kind} is no decoder: its logits change with tokens that follow")
    for got, position, problem in (
        (prompts[0], LONG - 1, "they are not those of the prompt alone"),
        (prompts[1], SHORT - 1, "they count padding"),
        (steps[0], LONG, "its key/value cache is of another kind"),
        (steps[1], SHORT, "they count padding"),
    ):
        if distance(got, whole[0, position]) > TOLERANCE[model.dtype]:
            raise ModelError(f"{name}: {kind} would give wrong logits to the rows of a batch: {problem}")


def distance(got: Tensor, wanted: Tensor) -> float:
    """How far logits lie from those wanted, as a share of the spread of the latter."""
    got, wanted = got.float(), wanted.float()
    return float((got - wanted).norm() / (wanted - wanted.mean(-1, keepdim=True)).norm().clamp_min(1e-30))


def _whole(model: Any, token_ids: list[int]) -> Tensor:
    """Logits at every position of two prompts that differ in the last token: `[2, LONG + 1, vocab]`."""
    batch = torch.tensor([token_ids[: LONG + 1], [*token_ids[:LONG], token_ids[-1]]], device=model.device)
    logits: Tensor = model(input_ids=batch, use_cache=False).logits
    return logits


def _rows(model: Any, token_ids: list[int]) -> tuple[Tensor, Tensor]:
    """Last logits of both prompts, and those of a step after each: `[2, vocab]` twice."""
    forward = Forward(model)
    store = KVStore(forward.num_layers)
    prompts, opened = forward.prompts([token_ids[:LONG], token_ids[:SHORT]], [], store)
    store.admit(opened)
    following = torch.tensor([[token_ids[LONG]], [token_ids[SHORT]]], device=forward.device)
    return prompts, forward.step(following, store)


def _probe(model: Any) -> list[int]:
    """Unlike tokens from all over the vocabulary, `LONG + 2`, none with a meaning that the configuration gives it."""
    config = model.config.get_text_config(decoder=True)
    stated = [value for name, value in (vars(model.config) | vars(config)).items() if name.endswith("token_id")]
    special = {id for value in stated for id in (value if isinstance(value, list) else [value])}
    plain = [id for id in range(min(model.get_input_embeddings().num_embeddings, 4096)) if id not in special]
    return [plain[number * (len(plain) - 1) // (LONG + 2)] for number in range(1, LONG + 3)]

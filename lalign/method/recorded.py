"""A recipe over recorded rows: how a method is checked against its authors' code, with no model at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lalign.method.recipe import Recipe
from lalign.method.recipes import recipe_of, recipe_with

if TYPE_CHECKING:
    from torch import Tensor


def replay(
    recipe: str | Recipe, base: Tensor, principled: Tensor, tokens: Tensor | None = None, **options: Any
) -> Tensor:
    """The final logits of every step of one response, from the logits that its twins had.

    Args:
        recipe: a name, or an instance.
        base: logits of the base twin, a row a step: `[steps, vocab]`, any float type.
        principled: logits of the principled twin, `[steps, vocab]`.
        tokens: the tokens that were taken, `[steps]`; the likeliest at each step where it is None. Rows are recorded,
            so tokens change nothing but for a recipe that looks at them, and none here does.
        options: fields of the recipe, such as `ratio=1.5`.

    Returns the aligned logits, -inf outside the support: `[steps, vocab]` float32. What a recipe carries from step to
    step is carried here. Raises `OptionError` for a recipe or an option that is not there or out of range,
    `ValueError` for shapes that do not fit.
    """
    import torch

    chosen = recipe_of(recipe, **options) if isinstance(recipe, str) else recipe_with(recipe, **options)
    if base.ndim != 2 or base.shape != principled.shape:
        raise ValueError(
            f"base and principled must have one shape [steps, vocab], not {[*base.shape]}, {[*principled.shape]}"
        )
    if tokens is not None and tokens.shape != base.shape[:1]:
        raise ValueError(f"tokens must be [{len(base)}], one a step, not {[*tokens.shape]}")
    strength = torch.full((1,), float(chosen.ratio), dtype=torch.float32, device=base.device)
    state = chosen.opening([len(base)], base.device)
    rows = []
    for mine, its in zip(base.float(), principled.float(), strict=True):
        aligned = chosen.step(mine[None], its[None], strength, state)
        state = aligned.state
        rows.append(aligned.final())
    return torch.cat(rows) if rows else base.float()

"""Every recipe there is, by the name that `--recipe` takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from lalign import validation
from lalign.errors import OptionError
from lalign.method.linear_alignment import Alignment
from lalign.method.recipe import Recipe

RECIPES: Mapping[str, Recipe] = {
    "lalign": Alignment(),
    "paper": Alignment(recipe="paper", scale="absolute", support="none"),
    "released": Alignment(recipe="released", anchor="principle", ratio=2.0),
}


def option_names() -> frozenset[str]:
    """The names of all options that some recipe takes."""
    return frozenset(option.name for recipe in RECIPES.values() for option in fields(recipe)) - {"recipe"}


def recipe_of(name: str = "lalign", **given: Any) -> Recipe:
    """A recipe with the options in `given` that are not None put over its own.

    Raises `OptionError` for an unknown recipe, an option that it does not take, or one out of range.
    """
    validation.choice("recipe", name, RECIPES)
    return recipe_with(RECIPES[name], **{option: value for option, value in given.items() if value is not None})


def recipe_with(recipe: Recipe, **given: Any) -> Recipe:
    """`recipe` with other options. Raises `OptionError` for one that it does not take, or that is out of range."""
    for option in given.keys() - {option.name for option in fields(recipe)}:
        raise OptionError(option, f"is no option of recipe {recipe.recipe}")
    return replace(recipe, **given)

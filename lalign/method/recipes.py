"""Every recipe there is, by the name that `--recipe` takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from lalign import validation
from lalign.errors import OptionError
from lalign.method.adacad import AdaCad
from lalign.method.affine import Cad, Cfg, ContextSteering, Instructive, Preadd, Rose, SelfCd
from lalign.method.amulet import Amulet
from lalign.method.arithmetic import Intersection, Union
from lalign.method.linear_alignment import Alignment
from lalign.method.opad import Opad
from lalign.method.promptcd import PromptCd
from lalign.method.recipe import Recipe
from lalign.method.self_debias import SelfDebias

RECIPES: Mapping[str, Recipe] = {
    recipe.recipe: recipe
    for recipe in (
        Alignment(),
        Alignment(recipe="paper", ratio=3.0, scale="absolute", direction="probabilities", support="none"),
        Alignment(recipe="released", anchor="principle", ratio=2.0),
        Cfg(),
        Cad(),
        ContextSteering(),
        AdaCad(),
        Opad(),
        Amulet(),
        PromptCd(),
        SelfDebias(),
        Rose(),
        SelfCd(),
        Preadd(),
        Instructive(),
        Union(),
        Intersection(),
    )
}


def option_names() -> frozenset[str]:
    """The names of all options that some recipe takes."""
    return frozenset(option.name for recipe in RECIPES.values() for option in fields(recipe)) - {"recipe"}


def recipe_of(name: str = "lalign", **given: Any) -> Recipe:
    """A recipe with the options in `given` that are not None put over its own.

    Raises `OptionError` for an unknown recipe, an option that it does not take, or one out of range.
    """
    validation.choice("recipe", name, RECIPES)
    chosen = {option: value for option, value in given.items() if value is not None}
    if "kl" in chosen:  # nats say the scale by themselves
        chosen.setdefault("scale", "kl")
    return recipe_with(RECIPES[name], **chosen)


def recipes_of(names: Sequence[str], **given: Any) -> tuple[Recipe, ...]:
    """Several recipes, each with those of the options in `given` that it takes and that are not None.

    Raises `OptionError` for an unknown recipe, an option that none of them takes, or one out of range.
    """
    for name in names:
        validation.choice("recipes", name, RECIPES)
    taken = {name: {option.name for option in fields(RECIPES[name])} for name in names}
    given = {option: value for option, value in given.items() if value is not None}
    for option in given.keys() - set[str]().union(*taken.values()):
        raise OptionError(option, f"is no option of any of the recipes {', '.join(taken)}")
    return tuple(
        recipe_of(name, **{option: value for option, value in given.items() if option in options})
        for name, options in taken.items()
    )


def recipe_with(recipe: Recipe, **given: Any) -> Recipe:
    """`recipe` with other options. Raises `OptionError` for one that it does not take, or that is out of range."""
    for option in given.keys() - {option.name for option in fields(recipe)}:
        raise OptionError(option, f"is no option of recipe {recipe.recipe}")
    return replace(recipe, **given)

"""Every option: its range, what it says when it is left, and how recipes and given values go together."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lalign.errors import LalignError, OptionError
from lalign.method.linear_alignment import Alignment
from lalign.method.recipes import RECIPES, recipe_of
from lalign.options import Execution, Sampling

INF = math.inf
NAN = math.nan
NO_NUMBERS: list[Any] = [NAN, True, False, None, "2", [2], 10**400, -(10**400)]
NO_INTEGERS: list[Any] = [NAN, INF, True, False, None, "2", 2.0, 2.5]

# Options, values they take (the ends of the range among them), and values they do not.
RANGES: list[tuple[type, str, list[Any], list[Any]]] = [
    (Alignment, "ratio", [0, 0.0, 2, 3.5, 1e6, 1e37], [-1e-9, -1, 1e39, 1e300, 1e-40, INF, -INF, *NO_NUMBERS]),
    (Alignment, "p", [1, 1.0001, 2, 1e30, INF], [0.9999, 0, -2, -INF, *NO_NUMBERS]),
    (Alignment, "scale", ["relative", "absolute", "norm"], ["Relative", "", None, 1, ["relative"]]),
    (Alignment, "anchor", ["base", "principle"], ["none", "", None, 1]),
    (Alignment, "direction", ["logits", "probabilities"], ["prob", "", None, 1]),
    (Alignment, "kl", [None], [0.5, *NO_NUMBERS[:3]]),
    (Alignment, "kl_total", [None, 1e-4, 100], [0, -0.1, 1e-9, INF, NAN, True, "2"]),
    (Alignment, "support", ["principle", "none"], ["base", "", None, False]),
    (Alignment, "support_top_p", [1e-9, 0.8, 1], [0, -0.1, 1e-300, 1.0001, INF, *NO_NUMBERS]),
    (Alignment, "support_temperature", [1e-9, 0.5, 100], [0, -0.1, 1e-40, INF, *NO_NUMBERS]),
    (Alignment, "max_kl", [None, 1e-4, 0.5, 100], [0, -0.1, 1e-9, INF, NAN, True, "2"]),
    (Sampling, "temperature", [0, 1e-37, 0.5, 100], [-0.1, 1e-40, 1e39, INF, *NO_NUMBERS]),
    (Sampling, "top_p", [1e-9, 0.5, 1], [0, -0.1, 1e-300, 1.0001, INF, *NO_NUMBERS]),
    (Sampling, "top_k", [0, 1, 10**9], [-1, *NO_INTEGERS]),
    (Sampling, "min_p", [0, 0.5, 1], [-0.1, 1.0001, INF, *NO_NUMBERS]),
    (Sampling, "repetition_penalty", [1e-9, 1, 2.5], [0, -1, INF, *NO_NUMBERS]),
    (Sampling, "max_new_tokens", [1, 4096], [0, -1, *NO_INTEGERS]),
    (Sampling, "seed", [0, 2**63 - 1], [-1, 2**63, *NO_INTEGERS]),
    (Sampling, "stop", [(), ("a",), ("\n\n", "Human:")], ["a", ["a"], ("",), ("a", ""), (1,), None]),
    (Execution, "batch_size", [1, 64, "auto"], [0, -1, "automatic", *NO_INTEGERS]),
    (Execution, "memory_share", [1e-9, 0.7, 1], [0, 1.1, INF, *NO_NUMBERS]),
    (Execution, "statistics", ["steps", "summary", "none"], ["all", "", None, True]),
]
ALLOWED = [(kind, name, value) for kind, name, values, _ in RANGES for value in values]
REFUSED = [(kind, name, value) for kind, name, _, values in RANGES for value in values]


@pytest.mark.parametrize(("kind", "name", "value"), ALLOWED)
def test_values_in_range_are_taken_as_they_are(kind: type, name: str, value: Any) -> None:
    assert getattr(kind(**{name: value}), name) is value


@pytest.mark.parametrize(("kind", "name", "value"), REFUSED)
def test_values_out_of_range_are_refused_by_name(kind: type, name: str, value: Any) -> None:
    with pytest.raises(OptionError) as caught:
        kind(**{name: value})
    assert caught.value.option == ("stats" if name == "statistics" else name)  # as the command line calls it
    assert str(caught.value) == f"{caught.value.option}: {caught.value.problem}"
    assert "\n" not in str(caught.value)


def test_every_option_is_in_the_table_above() -> None:
    named = {(kind, name) for kind, name, _, _ in RANGES}
    free = {(Alignment, "recipe")}
    fields = {(kind, field.name) for kind in (Alignment, Sampling, Execution) for field in dataclasses.fields(kind)}
    assert fields == named | free


@pytest.mark.parametrize(
    ("kind", "name", "value", "message"),
    [
        (Alignment, "ratio", -1, "ratio: must be a number of at least 0, not -1"),
        (Alignment, "ratio", NAN, "ratio: must be a number of at least 0, not nan"),
        (Alignment, "ratio", True, "ratio: must be a number of at least 0, not True"),
        (Alignment, "p", 0.5, "p: must be a number of at least 1 (inf allowed), not 0.5"),
        (Alignment, "scale", "big", "scale: must be one of relative, absolute, norm, kl, not 'big'"),
        (Alignment, "support_top_p", 1.5, "support_top_p: must be a number above 0 and at most 1, not 1.5"),
        (Alignment, "max_kl", 0, "max_kl: must be a number of at least 0.0001, not 0"),
        (Alignment, "ratio", 1e39, "ratio: must be a number that float32 can hold, not 1e+39"),
        (Sampling, "top_k", 2.5, "top_k: must be a whole number of at least 0, not 2.5"),
        (Sampling, "seed", 2**63, f"seed: must be a whole number of at least 0 and at most {2**63 - 1}, not {2**63}"),
        (Sampling, "stop", ("",), "stop: must be one or more non-empty strings"),
        (Execution, "statistics", "all", "stats: must be one of steps, summary, none, not 'all'"),
    ],
)
def test_messages_name_the_range_and_the_value(kind: type, name: str, value: Any, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        kind(**{name: value})
    assert str(caught.value) == message


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(OptionError, match=r"not 'x{36}\.\.\.$"):
        Alignment(ratio="x" * 1000)  # type: ignore[arg-type]


def test_an_option_error_is_a_value_error_and_an_error_of_ours() -> None:
    assert issubclass(OptionError, ValueError)
    assert issubclass(OptionError, LalignError)


def test_equation_10_has_no_value_at_p_1() -> None:
    with pytest.raises(OptionError) as caught:
        Alignment(scale="absolute", p=1)
    assert str(caught.value) == "p: must be a number above 1 (inf allowed), not 1"
    assert Alignment(scale="absolute", p=1.01).p == 1.01
    assert Alignment(scale="absolute", p=INF).p == INF


def test_numpy_floats_are_numbers() -> None:
    assert Alignment(ratio=np.float64(1.5)).ratio == 1.5


@given(st.floats() | st.integers() | st.text() | st.none() | st.booleans())
def test_whatever_the_ratio_it_is_taken_or_refused(value: Any) -> None:
    try:
        taken = Alignment(ratio=value).ratio
    except OptionError:
        return
    assert 0 <= taken < INF


# Recipes.


def test_recipes_are_those_of_the_design() -> None:
    ours = Alignment(
        recipe="lalign",
        ratio=1.5,
        p=2.0,
        scale="relative",
        anchor="base",
        support="principle",
        support_top_p=0.8,
        support_temperature=0.5,
        max_kl=None,
        direction="logits",
    )
    assert list(RECIPES)[:3] == ["lalign", "paper", "released"]
    assert RECIPES["lalign"] == ours
    assert RECIPES["paper"] == dataclasses.replace(
        ours, recipe="paper", ratio=3.0, scale="absolute", direction="probabilities", support="none"
    )
    assert RECIPES["released"] == dataclasses.replace(ours, recipe="released", anchor="principle", ratio=2.0)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_alone_is_itself(recipe: str) -> None:
    assert recipe_of(recipe) == RECIPES[recipe]
    assert recipe_of(recipe, ratio=None, max_kl=None) == RECIPES[recipe]


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize(
    ("name", "value"),
    [("ratio", 0.0), ("p", 3.0), ("scale", "relative"), ("anchor", "base"), ("support", "none"), ("max_kl", 0.5)],
)
def test_what_is_given_by_hand_overrides_the_recipe_and_nothing_else_does(recipe: str, name: str, value: Any) -> None:
    if name not in {option.name for option in dataclasses.fields(RECIPES[recipe])}:
        with pytest.raises(OptionError, match=f"^{name}: is no option of recipe {recipe}$"):
            recipe_of(recipe, **{name: value})
        return
    assert recipe_of(recipe, **{name: value}) == dataclasses.replace(RECIPES[recipe], **{name: value})


def test_what_is_given_is_checked_together_with_the_recipe() -> None:
    assert recipe_of("released", p=1) == Alignment(recipe="released", anchor="principle", ratio=2.0, p=1)
    with pytest.raises(OptionError, match=r"^p: must be a number above 1"):
        recipe_of("paper", p=1)


@pytest.mark.parametrize("recipe", ["Paper", "", None, 1, ["paper"]])
def test_an_unknown_recipe_is_refused_with_the_names_of_the_known(recipe: Any) -> None:
    with pytest.raises(OptionError) as caught:
        recipe_of(recipe)
    assert str(caught.value) == f"recipe: must be one of {', '.join(RECIPES)}, not {recipe!r}"


# Which twins a step needs.


@pytest.mark.parametrize(
    ("settings", "is_base", "is_principle"),
    [
        (Alignment(ratio=0), True, False),
        (Alignment(ratio=0, p=3, support="none"), True, False),
        (Alignment(ratio=0, scale="absolute"), True, False),
        (Alignment(ratio=0, max_kl=1), True, False),
        (Alignment(ratio=1), False, True),
        (Alignment(ratio=1, support="none"), False, True),
        (Alignment(ratio=1, p=3), False, False),
        (Alignment(ratio=1, scale="absolute"), False, False),
        (Alignment(ratio=1, max_kl=1), False, False),
        (Alignment(ratio=1, kl_total=1), False, False),
        (Alignment(ratio=1, direction="probabilities"), False, False),
        (Alignment(scale="kl", kl=1, ratio=1), False, False),
        (Alignment(scale="kl", kl=0), True, False),
        (Alignment(ratio=2), False, False),
        (Alignment(anchor="principle", ratio=0), False, True),
        (Alignment(anchor="principle", ratio=0, p=3), False, True),
        (Alignment(anchor="principle", ratio=0, max_kl=1), False, False),
        (Alignment(anchor="principle", ratio=1), False, False),
    ],
)
def test_a_step_that_is_one_twin_alone_is_known(settings: Alignment, is_base: bool, is_principle: bool) -> None:
    assert (settings.is_base, settings.is_principle) == (is_base, is_principle)


@pytest.mark.parametrize(
    ("options", "name"), [(Alignment(), "ratio"), (Sampling(), "seed"), (Execution(), "batch_size")]
)
def test_options_cannot_be_changed(options: Any, name: str) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(options, name, 5)

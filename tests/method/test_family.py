"""Each recipe of the family against its formula, written out here in float64; and which of them are one another."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lalign.errors import OptionError
from lalign.method import replay
from lalign.method.aligned import STATISTICS
from lalign.method.amulet import ftrl_strength
from lalign.method.gauge import preference
from lalign.method.linear_alignment import Alignment
from lalign.method.listing import ABOUT, listing
from lalign.method.recipe import Recipe
from lalign.method.recipes import RECIPES, recipe_of, recipes_of
from lalign.method.update import trust_region_step
from lalign.records.prompts import make_principles
from lalign.records.requests import Settings

INF = math.inf
DOCS = Path(__file__).parents[2] / "docs"
STEPS, VOCAB = 5, 60
Formula = Callable[[Tensor, Tensor, float], Tensor]


def rows(seed: int = 0, spread: float = 3.0, vocab: int = VOCAB) -> tuple[Tensor, Tensor]:
    """What a base and a principled twin may have said over some steps: `[steps, vocab]` float32 each."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(spread * torch.randn(STEPS, vocab, generator=generator) for _ in range(2))  # type: ignore[return-value]


# The formulas: of log-probabilities in float64 and the ratio; b the base or contrast row, p the principled one.


def adacad(b: Tensor, p: Tensor, ratio: float) -> Tensor:
    rows = []
    for lb, lp in zip(b, p, strict=True):
        half = (lb.exp() + lp.exp()) / 2
        jsd = sum((row.exp() * (row - half.log())).sum() for row in (lb, lp)) / 2
        rows.append(lp + ratio * max(float(jsd), 0.0) * (lp - lb))
    return torch.stack(rows)


def opad(b: Tensor, p: Tensor, ratio: float) -> Tensor:
    rows = [p[0]]
    for step in range(1, len(p)):
        rows.append(p[step] + ratio * ((p - b)[step] + (p - b)[step - 1]))
    return torch.stack(rows)


def amulet(b: Tensor, p: Tensor, ratio: float, alpha: float = 2, lam: float = 2, eta: float = 10) -> Tensor:
    """60 rounds of follow-the-regularised-leader, one policy after another."""
    assert ratio == RECIPES["amulet"].ratio
    policies = [p]
    utilities = []
    for t in range(1, 61):
        utilities.append(alpha * (policies[-1] - b))
        total = sum(utilities) / t + lam * p + policies[-1] / (eta * t)
        policies.append((total / (lam + 1 / (eta * t))).log_softmax(-1))
    return policies[-1]


def promptcd(b: Tensor, p: Tensor, ratio: float) -> Tensor:
    kept = []
    for lb, lp in zip(b, p, strict=True):
        floor = min(float(lp.max()) + math.log(0.01), float(lp.sort(descending=True).values[4]))
        kept.append(torch.where(lp >= floor, lp - ratio * lb, -INF))
    return torch.stack(kept)


def self_debias(b: Tensor, n: Tensor, ratio: float) -> Tensor:
    pb, pn = b.exp(), n.exp()
    return (pb * torch.maximum(torch.exp(-ratio * (pn - pb).clamp_min(0)), torch.tensor(0.01))).log()


FORMULAS: dict[str, Formula] = {
    "cfg": lambda b, p, r: b + r * (p - b),
    "cad": lambda b, p, a: p + a * (p - b),
    "context-steering": lambda b, p, r: p + r * (p - b),
    "adacad": adacad,
    "opad": opad,
    "amulet": amulet,
    "promptcd": promptcd,
    "self-debias": self_debias,
    "rose": lambda n, p, a: p - a * n,
    "self-cd": lambda p, s, r: s - r * (s - p),
    "preadd": lambda b, prefix, s: b + s * (prefix - b),
    "instructive": lambda n, p, e: p - e * n,
    "union": lambda b, p, r: b + r * (torch.maximum(b, p) - b),
    "intersection": lambda b, p, r: b + r * (torch.minimum(b, p) - b),
}
STRENGTHS = {
    "cfg": 1.5, "cad": 1, "context-steering": 1, "adacad": 1, "opad": 1, "amulet": 4.6487, "promptcd": 0.5,
    "self-debias": 50, "rose": 0.5, "self-cd": 2.5, "preadd": 1, "instructive": 0.3, "union": 1, "intersection": 1,
}  # fmt: skip


def logs(logits: Tensor) -> Tensor:
    return logits.double().log_softmax(-1)


def assert_same(ours: Tensor, wanted: Tensor, atol: float = 2e-5) -> None:
    """That two tables of logits are the same distributions."""
    torch.testing.assert_close(logs(ours), logs(wanted), atol=atol, rtol=1e-5)


def test_the_family_is_whole() -> None:
    assert {*RECIPES} == {"lalign", "paper", "released", *FORMULAS}
    for name, recipe in RECIPES.items():
        assert recipe.recipe == name
        assert recipe.ratio == pytest.approx(STRENGTHS.get(name, recipe.ratio), abs=5e-5)
        assert recipe.support == ("none" if name in FORMULAS or name == "paper" else "principle")


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("seed", range(4))
def test_a_recipe_is_its_formula(name: str, seed: int) -> None:
    b, p = rows(seed, spread=(0.3, 1, 3, 8)[seed])
    ratios = [RECIPES[name].ratio] if name == "amulet" else [RECIPES[name].ratio, 0.7, 3.0]
    for ratio in ratios:
        wanted = FORMULAS[name](logs(b), logs(p), ratio)
        assert_same(replay(name, b, p, ratio=ratio), wanted, atol=1e-4 if ratio > 2 else 2e-5)


def test_sixty_rounds_come_to_one_number() -> None:
    assert ftrl_strength() == pytest.approx(4.6487, abs=5e-5)
    assert ftrl_strength(rounds=0) == 0
    b, p = (logs(row) for row in rows(9))
    for alpha, lam, eta in ((1.0, 2.0, 10.0), (2.0, 4.0, 0.5), (0.5, 1.0, 3.0)):
        policies, utilities = [p], []
        for t in range(1, 8):
            utilities.append(alpha * (policies[-1] - b))
            total = torch.stack(utilities).mean(0) + lam * p + policies[-1] / (eta * t)
            policies.append((total / (lam + 1 / (eta * t))).log_softmax(-1))
        assert_same(p + ftrl_strength(alpha, lam, eta, 7) * (p - b), policies[-1], atol=1e-9)


# What holds for all of them.


@pytest.mark.parametrize("name", FORMULAS)
@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), constants=st.lists(st.floats(-50, 50), min_size=10, max_size=10))
def test_what_softmax_ignores_changes_nothing(name: str, seed: int, constants: list[float]) -> None:
    b, p = rows(seed)
    first, second = torch.tensor(constants).view(2, STEPS, 1)
    assert (replay(name, b, p).softmax(-1) - replay(name, b + first, p + second).softmax(-1)).abs().max() < 1e-4
    recipe, tokens = RECIPES[name], torch.arange(STEPS)
    strength = torch.full((STEPS,), recipe.ratio)
    plain, moved = (
        recipe.statistics(x, y, recipe.step(x, y, strength), tokens) for x, y in ((b, p), (b + first, p + second))
    )
    torch.testing.assert_close(moved, plain, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", FORMULAS)
def test_statistics_say_what_was_done(name: str) -> None:
    """The shift is the difference of log-probabilities, or the operation's own; the step what the anchor was moved."""
    b, p = rows(3)
    recipe, state = RECIPES[name], torch.randn(STEPS, VOCAB)
    aligned = recipe.step(b, p, torch.full((STEPS,), recipe.ratio), state if name == "opad" else None)
    on_principle = name in {
        "cad",
        "context-steering",
        "adacad",
        "opad",
        "amulet",
        "promptcd",
        "rose",
        "self-cd",
        "instructive",
    }
    anchor = p if on_principle else b
    torch.testing.assert_close(logs(aligned.logits), logs(logs(anchor) + aligned.step), atol=1e-4, rtol=1e-4)
    shift = {"union": logs(b).maximum(logs(p)) - logs(b), "intersection": logs(b).minimum(logs(p)) - logs(b)}
    wanted = shift.get(name, logs(p) - logs(b))
    torch.testing.assert_close(aligned.shift.double(), wanted, atol=1e-4, rtol=1e-4)
    statistics = dict(zip(STATISTICS, recipe.statistics(b, p, aligned, torch.arange(STEPS)).T, strict=True))
    torch.testing.assert_close(statistics["shift_norm"].double(), wanted.norm(dim=-1), atol=1e-3, rtol=1e-3)
    assert statistics["kl_aligned_base"].isfinite().all()


@pytest.mark.parametrize("name", FORMULAS)
def test_tokens_that_both_twins_rule_out_stay_out_and_change_nothing(name: str) -> None:
    """As in models whose vocabulary is padded."""
    b, p = rows(5)
    out = torch.full((STEPS, 4), -INF)
    padded = replay(name, torch.cat([b, out], -1), torch.cat([p, out], -1))
    assert (padded[:, VOCAB:] == -INF).all()
    assert_same(padded[:, :VOCAB], replay(name, b, p))


@pytest.mark.parametrize("name", FORMULAS)
def test_a_limit_in_nats_holds_for_all(name: str) -> None:
    b, p = rows(6)

    def nats(recipe: Recipe) -> Tensor:
        aligned = recipe.step(b, p, torch.full((STEPS,), recipe.ratio))
        return (logs(aligned.logits).exp() * (logs(aligned.logits) - logs(b))).sum(-1)

    free = nats(RECIPES[name])
    limit = float(free.median())
    limited = nats(recipe_of(name, max_kl=limit))
    assert (limited <= limit + 1e-4).all()
    assert (limited[free > limit] > limit - 2e-3 - limit / 5).all()
    torch.testing.assert_close(limited[free < limit], free[free < limit])


@pytest.mark.parametrize("name", [name for name in FORMULAS if name != "self-debias"])
def test_a_support_holds_for_all(name: str) -> None:
    b, p = rows(7)
    plain, kept = replay(name, b, p), replay(name, b, p, support="principle", support_top_p=0.5)
    nucleus = replay("lalign", b, p, support_top_p=0.5).isfinite()
    assert torch.equal(kept.isfinite(), nucleus & plain.isfinite())
    assert torch.equal(kept[kept.isfinite()], plain[kept.isfinite()])


def test_an_unwanted_text_gives_no_support() -> None:
    with pytest.raises(OptionError, match=r"^support: must be none in recipe self-debias: its principle is the unw"):
        recipe_of("self-debias", support="principle")


@pytest.mark.parametrize("name", RECIPES)
def test_rows_are_independent_of_their_batch(name: str) -> None:
    b, p = rows(8)
    recipe = RECIPES[name]
    strength = recipe.ratio * torch.linspace(0.5, 1.5, STEPS)
    together = recipe.step(b, p, strength).final()
    alone = [recipe.step(b[row, None], p[row, None], strength[row, None]).final() for row in range(STEPS)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("ratio", [0, 1, 2])
def test_a_twin_that_is_not_needed_is_not_looked_at(name: str, ratio: float) -> None:
    b, p = rows(2)
    recipe = recipe_of(name, ratio=ratio)
    needs = recipe.needs((1.0,))
    if needs == "base":
        assert_same(replay(recipe, b, p), b)
    if needs == "principled":
        assert_same(replay(recipe, b, p), replay(recipe, p, p), atol=1e-4)
    assert recipe.needs((0.5, 0.5)) in ("base", "both")
    assert replace(recipe, max_kl=1.0).needs((1.0,)) in ("base", "both")


@pytest.mark.parametrize("p", [1, 1.5, 2, 3, INF])
@pytest.mark.parametrize("name", ["lalign", "paper", "released"])
def test_recipes_of_linear_alignment_are_their_formula(name: str, p: float) -> None:
    if (name, p) == ("paper", 1):
        return
    b, mu = rows(1)
    recipe = Alignment(**asdict(recipe_of(name, p=p, support="none")))
    shift = preference(b, mu, recipe.direction)
    step = trust_region_step(shift, torch.full((STEPS,), recipe.ratio), p, recipe.scale)
    assert_same(replay(recipe, b, mu), (mu if name == "released" else b) + step)


# Several texts.


def several(name: str, b: Tensor, texts: list[Tensor], weights: tuple[float, ...], **options: Any) -> Tensor:
    """The logits of first steps with several principles, as the engine makes them."""
    recipe = recipe_of(name, **options)
    merged = recipe.merge(b, texts, weights)
    return recipe.step(b, merged, torch.full((len(b),), float(recipe.ratio)), merged=True).final()


def test_several_contexts_add_up() -> None:
    b, first, second = *rows(1), rows(2)[0]
    wanted = logs(b) + 0.5 * (logs(first) - logs(b)) + 1.5 * (logs(second) - logs(b))
    assert_same(several("context-steering", b, [first, second], (0.5, 1.5), ratio=0), wanted)
    assert_same(several("context-steering", b, [first, second], (0.25, 0.75), ratio=1), wanted)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_several_texts_have_their_largest_or_smallest(count: int) -> None:
    b, texts = rows(1)[0], [rows(seed)[1] for seed in range(2, 2 + count)]
    weights = (1.0,) * count
    all_rows = torch.stack([logs(row) for row in (b, *texts)])
    assert_same(several("union", b, texts, weights), all_rows.amax(0))
    assert_same(several("intersection", b, texts, weights), all_rows.amin(0))
    wanted = self_debias(logs(b), torch.stack([logs(row) for row in texts]).amax(0), 50)
    assert_same(several("self-debias", b, texts, weights), wanted)


@pytest.mark.parametrize("name", ["union", "intersection", "self-debias"])
def test_weights_that_mean_nothing_are_refused(name: str) -> None:
    principles = make_principles(["a", "b"], [1.0, 0.5])
    with pytest.raises(OptionError, match=f"^weight: means nothing to recipe {name}: only 1 can be given$"):
        Settings(principles, (RECIPES[name],))
    Settings(make_principles(["a", "b"]), (RECIPES[name],))
    Settings(principles, (RECIPES["cad"],))


def test_a_token_that_one_twin_rules_out_is_in_the_union_and_not_in_the_intersection() -> None:
    b, p = torch.tensor([[0.0, 0.0, -INF]]), torch.tensor([[0.0, -INF, 0.0]])
    assert_same(replay("union", b, p), torch.zeros(1, 3))
    assert replay("intersection", b, p).isfinite().tolist() == [[True, False, False]]
    for name in ("union", "intersection"):
        assert_same(replay(name, b, p, ratio=0), b)


# Options.


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("option", ["p", "anchor"])
def test_an_option_that_a_recipe_does_not_take_is_refused(name: str, option: str) -> None:
    with pytest.raises(OptionError, match=f"^{option}: is no option of recipe {name}$"):
        recipe_of(name, **{option: 2.0})


def test_options_go_to_the_recipes_that_take_them() -> None:
    lalign, opad = recipes_of(["lalign", "opad"], p=3.0, max_kl=0.5, ratio=None)
    assert (lalign, opad) == (recipe_of("lalign", p=3.0, max_kl=0.5), recipe_of("opad", max_kl=0.5))
    with pytest.raises(OptionError, match=r"^p: is no option of any of the recipes opad, cad$"):
        recipes_of(["opad", "cad"], p=3.0)
    with pytest.raises(OptionError, match=r"^recipes: must be one of lalign, .*, not 'soup'$"):
        recipes_of(["lalign", "soup"])


def test_every_recipe_is_listed_with_its_formula_and_source() -> None:
    entries = list(listing())
    assert [entry["recipe"] for entry in entries] == [*RECIPES]
    assert {*ABOUT} == {*RECIPES}
    rows = {
        re.split(r" \| ", row)[0]: row
        for row in reversed((DOCS / "recipes.md").read_text(encoding="utf-8").splitlines())
    }
    for entry in entries:
        name = "union" if entry["recipe"] == "intersection" else entry["recipe"]
        row = next(row for start, row in rows.items() if start.startswith(f"| `{name}`"))
        assert entry["formula"]
        assert entry["options"]["ratio"] == RECIPES[name].ratio
        if name not in ("lalign", "paper", "released"):
            assert f"| {RECIPES[name].ratio:.5g} |" in row
            assert f"[{entry['source']}](https://arxiv.org/abs/{entry['source']})" in row
            assert f"arXiv:{entry['source']}" in source_of(name)


def source_of(name: str) -> str:
    """The text of the file that holds a recipe."""
    return Path(str(sys.modules[type(RECIPES[name]).__module__].__file__)).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_equal_to_itself_and_to_no_other(name: str) -> None:
    assert [other for other, recipe in RECIPES.items() if recipe == RECIPES[name]] == [name]
    assert hash(RECIPES[name]) == hash(recipe_of(name))
    assert {option.name for option in fields(RECIPES[name])} >= {option.name for option in fields(Recipe)}


def test_listing_recipes_loads_no_torch() -> None:
    program = "import sys, lalign.method.listing; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# Which of them are one rule.


def as_affine(name: str, **options: Any) -> tuple[float, float] | None:
    """(ratio, temperature) where a recipe is (b + ratio (p - b)) / temperature at every step; None where it is not."""
    b, p = rows(11, vocab=200)
    ours = replay(name, b, p, **options).double()
    if not ours.isfinite().all():
        return None
    centred = [row - row.mean(-1, keepdim=True) for row in (ours, b.double(), p.double())]
    target, base, principled = (row.flatten() for row in centred)
    design = torch.stack([base, principled], -1)
    weights = torch.linalg.lstsq(design, target[:, None]).solution[:, 0]
    if (design @ weights - target).abs().max() > 1e-3:
        return None
    on_base, on_principled = weights.tolist()
    return on_principled / (on_base + on_principled), 1 / (on_base + on_principled)


def table_of_one_rule() -> list[str]:
    """The table of `docs/recipes.md`: every recipe that is the affine rule, at its default ratio."""
    lines = []
    for name, recipe in RECIPES.items():
        found = as_affine(name, support="none")
        if found is not None:
            ratio, temperature = found
            lines.append(
                f"| `{name}` | {recipe.ratio:.5g} | {ratio:.4f} | {temperature:.4f} |".replace("-0.0000", "0.0000")
            )
    return lines


def test_the_table_of_one_rule_is_what_is_computed() -> None:
    text = (DOCS / "recipes.md").read_text(encoding="utf-8").split("\n## ")
    section = next(part for part in text if part.startswith("One rule under nine names"))
    assert re.findall(r"^\| `[\w-]+` \| [\d.]+ \|.*", section, re.MULTILINE) == table_of_one_rule()


def test_nine_are_the_affine_rule_besides_our_own() -> None:
    found = [name for name in RECIPES if as_affine(name, support="none") is not None]
    names = {"released", "cfg", "cad", "context-steering", "amulet", "rose", "self-cd", "preadd", "instructive"}
    assert {*found} == {"lalign"} | names


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("cfg", lambda r: r),
        ("preadd", lambda r: r),
        ("cad", lambda r: 1 + r),
        ("context-steering", lambda r: 1 + r),
        ("amulet", lambda r: 1 + r),
        ("released", lambda r: 1 + r),
    ],
)
@pytest.mark.parametrize("ratio", [0.0, 0.3, 1.0, 2.5])
def test_at_which_ratio_they_are_lalign(name: str, there: Callable[[float], float], ratio: float) -> None:
    b, p = rows(12)
    assert_same(
        replay(name, b, p, ratio=ratio, support="none"), replay("lalign", b, p, ratio=there(ratio), support="none")
    )


@pytest.mark.parametrize("ratio", [0.0, 0.3, 1.0, 2.5])
def test_self_cd_is_lalign_towards_or_away(ratio: float) -> None:
    """Below 1 at ratio 1 - r; above it away from the principle: at a weight of -1 and ratio r - 1."""
    b, p = rows(13)
    away = recipe_of("lalign", support="none").merge(b, [p], (-1.0,))
    wanted = ("lalign", b, p, 1 - ratio) if ratio <= 1 else ("lalign", b, away, ratio - 1)
    assert_same(replay("self-cd", b, p, ratio=ratio), replay(*wanted[:3], ratio=wanted[3], support="none"))


@pytest.mark.parametrize("name", ["rose", "instructive"])
@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.5, 0.8])
def test_rose_is_lalign_at_a_temperature(name: str, ratio: float) -> None:
    b, p = rows(14)
    there = replay("lalign", b, p, ratio=1 / (1 - ratio), support="none")
    assert_same(replay(name, b, p, ratio=ratio), there * (1 - ratio))
    assert torch.equal(replay(name, b, p, ratio=ratio).argmax(-1), there.argmax(-1))

"""What people are told of each recipe: its formula and where it comes from. Loads no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

from lalign.method.recipes import RECIPES
from lalign.text import json_number

NOTATION = (
    "b: base or contrast row; p: principled row; n: row of an unwanted text; l: log-softmax. The strength (R, r, a, "
    "c, ...) is --ratio."
)


class About(NamedTuple):
    """A recipe's formula, and its source as an arXiv number or in words."""

    formula: str
    source: str


ABOUT: Mapping[str, About] = {
    "lalign": About("b + s, s along sign(d) |d|^(1/(p-1)), d = l_p - l_b, |s| = R |d|", "2401.11458"),
    "paper": About("b + R sign(d) (|d| / ||d||)^(1/(p-1)), d = softmax p - softmax b", "2401.11458, Eq. 10, 12"),
    "released": About("p + s", "2401.11458, program"),
    "cfg": About("b + r(p - b)", "2306.17806"),
    "cad": About("p + a(p - b)", "2305.14739"),
    "context-steering": About("l_p + r(l_p - l_b); several: l_b + sum r_k(l_k - l_b)", "2405.01768"),
    "adacad": About("p + a_t(p - b), a_t = r JSD(softmax p, softmax b)", "2409.07394"),
    "opad": About("first p; then p + c[(l_p - l_b)_t + (l_p - l_b)_t-1]", "2502.14204"),
    "amulet": About("p + c(p - b), c of 60 rounds of FTRL", "2502.19148"),
    "promptcd": About("l_p - r l_b where l_p >= min(max l_p + ln 0.01, 5th largest)", "2602.20696"),
    "self-debias": About("l_b + ln max(exp(-r max(0, softmax n - softmax b)), 0.01)", "2103.00453"),
    "rose": About("p - a n", "2402.11889"),
    "self-cd": About("s - r(s - p), s the principled row, p the base row", "2401.17633"),
    "preadd": About("b + s(prefix - b)", "2307.03214"),
    "instructive": About("p - r n", "2311.00233"),
    "union": About("l_b + r(max of all l - l_b)", "2311.14479"),
    "intersection": About("l_b + r(min of all l - l_b)", "2311.14479"),
}


def listing() -> Iterator[dict[str, Any]]:
    """Each recipe as JSON values: `recipe`, `formula`, `source`, and `options`, its own defaults by name."""
    for name, recipe in RECIPES.items():
        options = {option: json_number(value) for option, value in asdict(recipe).items() if option != "recipe"}
        yield {"recipe": name, **ABOUT[name]._asdict(), "options": options}

"""The set-ups of the paper and of its authors' program, as the options they are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lalign.evaluation.preferences import Permute
from lalign.evaluation.scoring import Scoring

# What Llama 2 is told, which the authors' program puts into both twins of every model that it writes as one.
SYSTEM = "You are a helpful, respectful and honest assistant. Always answer as helpfully as possible, while being safe."


@dataclass(frozen=True, slots=True)
class Preset:
    """What stands in the place of each option that is not given."""

    system: str
    prefill: str
    one_user: bool
    permute: Permute
    scoring: Scoring
    seed: int
    ratios: str
    recipe: str


PRESETS: Mapping[str, Preset] = {
    "paper": Preset(SYSTEM, "Answer:", True, "none", "letter", 0, "0:5", "lalign"),
    "released": Preset(SYSTEM, "Answer:", True, "none", "first", 42, "5", "released"),
}

"""Amulet: 60 rounds of follow-the-regularised-leader at every token, which come to one number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lalign.method.affine import Along


def ftrl_strength(
    alpha: float = 2.0, regularisation: float = 2.0, learning_rate: float = 10.0, rounds: int = 60
) -> float:
    """c_T, for which Amulet's last policy is l_p + c_T (l_p - l_b), normalised.

    Round t of theirs is pi_t = softmax([1/t sum_{i<t} u_i + lambda l_p + log pi_{t-1} / (eta t)] / [lambda +
    1/(eta t)]) with the utility u_i = alpha (log pi_i - l_b) and pi_0 = softmax(p). Each is softmax(l_p + c_t (l_p -
    l_b)), so that c_0 = 0 and c_t = [alpha/t sum_{i<t} (1 + c_i) + c_{t-1} / (eta t)] / [lambda + 1/(eta t)].
    """
    strength = gathered = 0.0
    for step in range(1, rounds + 1):
        gathered += 1 + strength
        pull = 1 / (learning_rate * step)
        strength = (alpha / step * gathered + pull * strength) / (regularisation + pull)
    return strength


@dataclass(frozen=True)
class Amulet(Along):
    """p + c(p - b), c = c_60 = 4.6487 of `ftrl_strength` at the authors' alpha 2, lambda 2, eta 10 (Zhang et al. 2025,
    ICLR, arXiv:2502.19148).

    The ratio is c itself, so that it compares with that of the other affine rules.
    """

    recipe: str = "amulet"
    ratio: float = ftrl_strength()
    anchor: ClassVar[str] = "principle"

"""A blind ballot: which answer stands on the left, in which order pairs come, told by a seed and a pair's own digest.

So neither the page nor the votes that people save say whose answer is whose, and whoever has the answers can tell.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence

from lalign import validation
from lalign.judging.matches import Match

_KEY_DIGITS = 16
# What a browser's numbers hold to the digit: the page gives the seed back with each vote.
MOST_SEED = 2**53 - 1


def check_seed(seed: int) -> None:
    """Raises `OptionError` for a seed that a page could not give back as it was."""
    validation.integer("seed", seed, low=0, high=MOST_SEED)


def pair_key(match: Match) -> str:
    """A digest of the match: of its contestants, conversation and answers, not of its place."""
    return hashlib.sha256(match.as_line().data).hexdigest()[:_KEY_DIGITS]


def is_swapped(key: str, seed: int) -> bool:
    """Whether the first contestant's answer stands on the right."""
    return random.Random(f"{seed}/{key}").random() < 0.5


def on_ballot(matches: Sequence[Match], seed: int) -> list[Match]:
    """The matches that people are asked about, in random order: answers that are the same are a tie without them."""
    differing = [match for match in matches if match.texts[0] != match.texts[1]]
    return random.Random(seed).sample(differing, len(differing))

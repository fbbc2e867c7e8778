"""The ways of answering prompts that `lalign bench` sets side by side."""

from __future__ import annotations

from dataclasses import dataclass

from lalign.method.linear_alignment import Alignment
from lalign.method.recipe import Recipe
from lalign.options import Statistics

BASE, PRINCIPLE, ALIGNED = "base", "principle", "aligned"
WITHOUT_STATISTICS, WITHOUT_SUPPORT = "aligned, no statistics", "aligned, no support"
STOCK, GUIDED, GUIDED_SINGLY = "stock generate", "stock guidance_scale", "stock guidance_scale, singly"


@dataclass(frozen=True, slots=True)
class Contender:
    """One way of answering the prompts.

    peer: in stock transformers. alignment, statistics: for lalign. guidance: for stock, None for plain. singly: one
    prompt at a time whatever the batch size. same_as: the contender whose tokens must come out equal.
    """

    name: str
    peer: bool = False
    alignment: Recipe | None = None
    statistics: Statistics = "none"
    guidance: float | None = None
    singly: bool = False
    same_as: str | None = None


def contenders(alignment: Recipe, peers: bool, singly: bool) -> tuple[Contender, ...]:
    """All that run: the paper's three rows, and what tells the costs of statistics and of stock transformers apart."""
    rows = [
        Contender(BASE, alignment=Alignment(ratio=0), statistics="none"),
        Contender(PRINCIPLE, alignment=Alignment(ratio=1, support="none"), statistics="none"),
        Contender(ALIGNED, alignment=alignment, statistics="steps"),
        Contender(WITHOUT_STATISTICS, alignment=alignment, statistics="none", same_as=ALIGNED),
    ]
    if peers:
        plain = Alignment(ratio=alignment.ratio, support="none")
        rows += [
            Contender(WITHOUT_SUPPORT, alignment=plain, statistics="steps"),
            Contender(STOCK, peer=True, same_as=BASE),
            Contender(GUIDED, peer=True, guidance=alignment.ratio, same_as=WITHOUT_SUPPORT),
        ]
    if peers and singly:
        rows.append(Contender(GUIDED_SINGLY, peer=True, guidance=alignment.ratio, singly=True, same_as=WITHOUT_SUPPORT))
    return tuple(rows)

"""The ways of answering prompts that `lalign bench` sets side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lalign.errors import OptionError
from lalign.method.linear_alignment import Alignment
from lalign.method.recipe import Recipe
from lalign.options import Statistics

BASE, PRINCIPLE, ALIGNED, WITHOUT_STATISTICS, WITHOUT_SUPPORT = "base", "principle", "aligned", "no-stats", "no-support"
STOCK, GUIDED, GUIDED_SINGLY = "stock", "guided", "guided-1"


@dataclass(frozen=True, slots=True)
class Contender:
    """One way of answering the prompts.

    name: short, for tables; meaning: what it stands for. engine: what runs the model. peer: that engine without lalign.
    alignment, statistics: for lalign. guidance: of stock transformers, None for plain. singly: one prompt at a time
    whatever the batch size. same_as: the contender whose tokens must come out equal.
    """

    name: str
    meaning: str
    engine: str = "torch"
    peer: bool = False
    alignment: Recipe | None = None
    statistics: Statistics = "none"
    guidance: float | None = None
    singly: bool = False
    same_as: str | None = None


def contenders(
    alignment: Recipe, engine: str = "torch", peers: Iterable[str] = (), singly: bool = False
) -> tuple[Contender, ...]:
    """All that run.

    The paper's three rows on an engine, what tells the costs of statistics apart, and each engine of `peers` by itself
    and with lalign.
    """
    peers = tuple(peers)
    bare, asked = Alignment(ratio=0), f"ratio {alignment.ratio:g}"
    rows = [
        Contender(BASE, f"lalign on {engine}, ratio 0, no statistics", engine, alignment=bare),
        Contender(
            PRINCIPLE,
            "the same with the principle as a prompt (ratio 1)",
            engine,
            alignment=Alignment(ratio=1, support="none"),
        ),
        Contender(ALIGNED, f"lalign on {engine}, {asked}, all statistics", engine, False, alignment, "steps"),
        Contender(WITHOUT_STATISTICS, "aligned, no statistics", engine, alignment=alignment, same_as=ALIGNED),
    ]
    if "torch" in peers:
        plain = Alignment(ratio=alignment.ratio, support="none")
        meaning = "aligned, without the support, as guidance_scale is"
        rows += [
            Contender(WITHOUT_SUPPORT, meaning, engine, False, plain, "steps"),
            *_transformers(alignment.ratio, singly),
        ]
    for peer in peers:
        if peer != engine:
            rows += _lalign_on(peer, alignment, bare, asked)
        if peer != "torch":
            rows.append(_by_itself(peer))
    return tuple(rows)


def chosen(rows: Sequence[Contender], names: Sequence[str]) -> tuple[Contender, ...]:
    """Those of the names, in the order of `rows`; all where none is named. Raises `OptionError` for an unknown one."""
    known = [row.name for row in rows]
    for name in names:
        if name not in known:
            raise OptionError("contenders", f"there is no {name!r} here, but {', '.join(known)}")
    return tuple(row for row in rows if not names or row.name in names)


def _transformers(ratio: float, singly: bool) -> list[Contender]:
    guided = f"stock transformers, generate(guidance_scale={ratio:g})"
    rows = [
        Contender(STOCK, "stock transformers, generate, no principle", peer=True, same_as=BASE),
        Contender(GUIDED, guided, peer=True, guidance=ratio, same_as=WITHOUT_SUPPORT),
    ]
    if singly:
        meaning = f"{guided}, one prompt at a time"
        rows.append(Contender(GUIDED_SINGLY, meaning, peer=True, guidance=ratio, singly=True, same_as=WITHOUT_SUPPORT))
    return rows


def _lalign_on(engine: str, alignment: Recipe, bare: Recipe, asked: str) -> list[Contender]:
    return [
        Contender(f"{engine}-{BASE}", f"lalign on {engine}, ratio 0, no statistics", engine, False, bare, same_as=BASE),
        Contender(
            f"{engine}-{ALIGNED}",
            f"lalign on {engine}, {asked}, all statistics",
            engine,
            alignment=alignment,
            statistics="steps",
            same_as=ALIGNED,
        ),
    ]


def _by_itself(engine: str) -> Contender:
    meaning, singly = {
        "vllm": ("vLLM by itself, no principle", False),
        "llamacpp": ("llama-cpp-python by itself, one prompt at a time, no principle", True),
    }[engine]
    return Contender(f"{engine}-{STOCK}", meaning, engine, peer=True, singly=singly, same_as=BASE)

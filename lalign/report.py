"""A sweep as one HTML page: the curves, the table, and every prompt's responses side by side, shaded by their KL.

The page needs no network and no matplotlib. Texts travel as JSON and become text nodes, never markup; a policy in the
page forbids all scripts but its own, and all requests.
"""

from __future__ import annotations

import hashlib
import math
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps

from lalign.errors import OutputError
from lalign.metrics import KNEE_MARK, KNEE_RULE, PointSummary, by_p, columns, knees
from lalign.plot import PANELS, Panel
from lalign.results import Failure, Result

Outcomes = Sequence[Result | Failure]
MOST_PROMPTS = 200
# About 15 MB of page.
MOST_TOKENS = 400_000
# Nats at which a token's shade grows deeper by one.
SHADES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
# What a token decodes to when it is only a part of a character.
BROKEN = "\ufffd"
JOINERS = "\u200c\u200d"


def write_report(
    path: Path, summaries: Sequence[PointSummary], results_by_prompt: Iterable[tuple[str, Outcomes]], title: str
) -> None:
    """Write the page of a sweep.

    Args:
        path: of the file, written over.
        summaries: the points, in the order of the table.
        results_by_prompt: each prompt's text and what came of it at every point, with steps. Of these the first
            `MOST_PROMPTS` are shown, or as many as have `MOST_TOKENS` tokens together; the page tells how many.
        title: of the page.

    Raises `OutputError` where the file cannot be written, `ValueError` for a result without steps.
    """
    marked = knees(summaries)
    sheets = list(_sheets(results_by_prompt, {point.alignment for point in marked.values()}))
    data = htmlsafe_json_dumps({"panels": [_curves(panel, summaries) for panel in PANELS], "prompts": sheets})
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True).from_string(
        files("lalign").joinpath("report.html").read_text(encoding="utf-8")
    )
    page = template.render(
        title=visible(title),
        # Text in the data cannot hold the hash of the data, so no script in it passes for the page's own.
        nonce=hashlib.sha256(data.encode()).hexdigest(),
        data=data,
        columns=columns(summaries),
        rows=[(point, KNEE_MARK if point in marked.values() else "") for point in summaries],
        knee_rule=KNEE_RULE,
        knee_mark=KNEE_MARK,
        shades=SHADES,
        shown=len(sheets),
        total=max((point.responses + point.failures for point in summaries), default=0),
    )
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror or error}") from None


def visible(text: str) -> str:
    """`text` with characters that command a terminal, turn the writing direction or end a line written as escapes."""
    return "".join(character if _is_harmless(character) else _escaped(character) for character in text)


def _is_harmless(character: str) -> bool:
    return character in "\n\t" + JOINERS or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _curves(panel: Panel, summaries: Iterable[PointSummary]) -> dict[str, Any]:
    marked = knees(summaries := list(summaries))
    curves = []
    for p, points in by_p(summaries).items():
        measures = [panel.measure(point) for point in points]
        curves.append(
            {
                "p": f"{p:g}",
                "knee": points.index(marked[p]) if p in marked else None,
                "ratio": [point.alignment.ratio for point in points],
                **{
                    name: [_rounded(panel.scale * getattr(measure, name)) for measure in measures]
                    for name in ("low", "mean", "high")
                },
            }
        )
    return {"title": panel.title, "unit": panel.unit, "curves": curves}


def _sheets(results_by_prompt: Iterable[tuple[str, Outcomes]], marked: set[Any]) -> Iterator[dict[str, Any]]:
    tokens = 0
    for number, (prompt, outcomes) in enumerate(islice(results_by_prompt, MOST_PROMPTS)):
        tokens += sum(len(outcome.token_ids) for outcome in outcomes if isinstance(outcome, Result))
        if number and tokens > MOST_TOKENS:
            return
        yield {"prompt": visible(prompt), "outcomes": [_card(outcome, marked) for outcome in outcomes]}


def _card(outcome: Result | Failure, marked: set[Any]) -> dict[str, Any]:
    if isinstance(outcome, Failure):
        point = {name: f"{value:g}" for name, value in (outcome.point or {"ratio": math.nan, "p": math.nan}).items()}
        return {**point, "error": visible(f"{outcome.type}: {outcome.message}")}
    if outcome.steps is None or outcome.summary is None:
        raise ValueError("a report needs results with their steps")
    return {
        "ratio": f"{outcome.alignment.ratio:g}",
        "p": f"{outcome.alignment.p:g}",
        "knee": outcome.alignment in marked,
        "kl": _rounded(outcome.summary["kl_aligned_base_mean"]),
        "flipped": _rounded(100 * outcome.summary["flipped_share"]),
        "length": len(outcome.token_ids),
        "finish": outcome.finish_reason,
        "spans": list(_spans(outcome.response, outcome.steps)),
    }


def _spans(response: str, steps: dict[str, Any]) -> Iterator[list[Any]]:
    """[text, KL, log p base, log p principled, flipped] of each run of tokens that has a text of its own."""
    for text, tokens in pieces(steps["tokens"], response):
        yield [
            visible(text),
            _rounded(max(steps["kl_aligned_base"][tokens])),
            _rounded(sum(steps["logprob_base"][tokens])),
            _rounded(sum(steps["logprob_principle"][tokens])),
            int(any(steps["flipped"][tokens])),
        ]


def pieces(tokens: Sequence[str], response: str) -> Iterator[tuple[str, slice]]:
    """The response in the pieces that its tokens wrote, each with the tokens that wrote it.

    A token decoded alone may be a part of a character, or lack the space before it; the response has the whole text.
    Tokens that are not in the response, such as the stop token, stand for themselves.
    """
    cursor = begin = 0
    for index, token in enumerate(tokens):
        if BROKEN in token or not token:
            continue
        reach = cursor + sum(map(len, tokens[begin:index]))
        at = response.find(token, cursor, reach + 1 + len(token))
        parts = response[cursor : at if at >= 0 else reach]
        if begin < index:
            yield parts, slice(begin, index)
            parts = ""
        yield parts + token, slice(index, index + 1)
        cursor = at + len(token) if at >= 0 else reach
        begin = index + 1
    if begin < len(tokens):
        yield response[cursor:], slice(begin, len(tokens))


def _rounded(value: float) -> float | None:
    """Three decimals; None for what JSON cannot say."""
    return round(float(value), 3) if math.isfinite(value) else None

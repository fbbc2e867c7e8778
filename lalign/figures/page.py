"""A sweep as one HTML page: the curves, the table, and every prompt's responses side by side, shaded by their KL.

The page needs no network and no matplotlib. Texts travel as packed JSON and become text nodes, never markup; a policy
in the page forbids all scripts but its own, and all requests.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import math
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
from jinja2 import Environment, StrictUndefined

from lalign.errors import OutputError
from lalign.figures.canvas import About, counted
from lalign.figures.plot import MOST_BANDS, PANELS, Over, Panel, axis
from lalign.method.recipe import Recipe
from lalign.results import Failure, Result
from lalign.sweep.curves import by_curve, has_several_recipes, labels
from lalign.sweep.knee import KNEE_MARK, KNEE_RULE, knees, shortages
from lalign.sweep.metrics import PointSummary
from lalign.sweep.table import columns

Outcomes = Sequence[Result | Failure]
MOST_PROMPTS = 500
MOST_TOKENS = 400_000
# Of the data once they are packed; with the rest of the page less than 3 MB.
MOST_BYTES = 2_800_000
# Nats at which a token's shade grows deeper by one.
SHADES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
# What a token decodes to when it is only a part of a character.
BROKEN = "\ufffd"
JOINERS = "\u200c\u200d"


def write_report(
    path: Path,
    summaries: Sequence[PointSummary],
    results_by_prompt: Iterable[tuple[str, Outcomes]],
    title: str,
    about: About | None = None,
    *,
    over: Over = "ratio",
) -> None:
    """Write the page of a sweep.

    Args:
        path: of the file, written over.
        summaries: the points, in the order of the table.
        results_by_prompt: each prompt's text and what came of it at every point, with steps. Of these the first
            `MOST_PROMPTS` are shown, or as many as have `MOST_TOKENS` tokens together and fit into `MOST_BYTES`; the
            page tells how many.
        title, about: what stands above all.
        over: what the curves are drawn over, as in `plot.plot_sweep`.

    Raises `OutputError` where the file cannot be written, `ValueError` for a result without steps.
    """
    marked = knees(summaries)
    knee_points = {point.alignment for point in marked.values()}
    points = [point.alignment for point in summaries]
    several = has_several_recipes(points)
    sheets = list(_sheets(results_by_prompt, knee_points, labels(points)))
    panels = [_panel(panel, summaries, marked, over) for panel in PANELS]
    data, sheets = _packed(panels, sheets)
    source = files("lalign.figures").joinpath("page.html").read_text(encoding="utf-8")
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(source)
    page = template.render(
        title=visible(title),
        about=visible((about or About()).line(counted(point.responses for point in summaries))),
        # Nothing in the data can hold the hash of the data, so no script in it passes for the page's own.
        nonce=hashlib.sha256(data.encode()).hexdigest(),
        data=data,
        columns=columns(summaries),
        rows=[(point, KNEE_MARK if point.alignment in knee_points else "") for point in summaries],
        several=several,
        least=_least(points),
        over_kl=over == "kl" or several,
        whiskers=len(by_curve(summaries)) > MOST_BANDS,
        knee_rule=KNEE_RULE,
        knee_mark=KNEE_MARK,
        shortages=shortages(summaries),
        shades=SHADES,
        shown=len(sheets),
        total=max((point.responses + point.failures for point in summaries), default=0),
    )
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror or error}") from None


def _least(points: Sequence[Recipe]) -> str:
    """What each response is held against, in words."""
    least = min(points, key=lambda point: point.strength, default=None)
    return "the base model" if least is None else f"{least.axis} {least.strength:g}"


def _packed(panels: Sequence[Any], sheets: list[dict[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
    """The data of the page, compressed, as letters; and those of the prompts for which there is room."""
    while True:
        data = orjson.dumps({"panels": panels, "prompts": sheets})
        packed = base64.b64encode(gzip.compress(data, mtime=0)).decode()
        if len(packed) <= MOST_BYTES or len(sheets) <= 1:
            return packed, sheets
        sheets = sheets[: max(1, min(len(sheets) - 1, len(sheets) * MOST_BYTES // len(packed)))]


def visible(text: str) -> str:
    """`text` with characters that command a terminal, turn the writing direction or end a line written as escapes."""
    return "".join(character if _is_harmless(character) else _escaped(character) for character in text)


def _is_harmless(character: str) -> bool:
    return character in "\n\t" + JOINERS or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _panel(
    panel: Panel, summaries: Sequence[PointSummary], marked: Mapping[str, PointSummary], over: Over
) -> dict[str, Any]:
    name, across = axis(panel, summaries, over)
    curves = []
    for label, points in by_curve(summaries).items():
        curve: dict[str, Any] = {
            "label": label,
            "axis": points[0].alignment.axis,
            "ratio": [point.alignment.strength for point in points],
        }
        curve["x"] = [_rounded(across(point)) for point in points]
        for bound in ("low", "mean", "high"):
            curve[bound] = [_rounded(panel.scale * getattr(panel.measure(point), bound)) for point in points]
        curve["knee"] = points.index(marked[label]) if label in marked else None
        curves.append(curve)
    return {"title": panel.title, "unit": panel.unit, "across": name, "curves": curves}


def _sheets(
    results_by_prompt: Iterable[tuple[str, Outcomes]], knee_points: set[Recipe], names: Mapping[Recipe, str]
) -> Iterator[dict[str, Any]]:
    tokens = 0
    for number, (prompt, outcomes) in enumerate(islice(results_by_prompt, MOST_PROMPTS)):
        tokens += sum(len(outcome.token_ids) for outcome in outcomes if isinstance(outcome, Result))
        if number and tokens > MOST_TOKENS:
            return
        shown = visible(prompt)
        cards = [_card(outcome, knee_points, names) for outcome in outcomes]
        yield {"prompt": shown, **_exact(prompt, shown), "outcomes": cards}


def _card(outcome: Result | Failure, knee_points: set[Recipe], names: Mapping[Recipe, str]) -> dict[str, Any]:
    if isinstance(outcome, Failure):
        at = next((point for point in names if point.point == outcome.point), None)
        where = {
            "axis": "" if at is None else at.axis,
            "ratio": "" if at is None else f"{at.strength:g}",
            "curve": "" if at is None else names[at],
        }
        error = f"{outcome.type}: {outcome.message}"
        return {**where, "error": visible(error), **_exact(error, visible(error))}
    if outcome.steps is None or outcome.summary is None:
        raise ValueError("a report needs results with their steps")
    spans = list(_spans(outcome.response, outcome.steps))
    own = _own(outcome.response, outcome.steps["tokens"])
    return {
        "axis": outcome.alignment.axis,
        "ratio": f"{outcome.alignment.strength:g}",
        "curve": names[outcome.alignment],
        "knee": outcome.alignment in knee_points,
        "kl": _rounded(outcome.summary["kl_aligned_base_mean"]),
        "flipped": _rounded(100 * outcome.summary["flipped_share"]),
        "length": len(outcome.token_ids),
        "finish": outcome.finish_reason,
        "spans": spans,
        "own": own,
        **_exact(outcome.response, "".join(text for text, *_ in spans[:own])),
    }


def _exact(text: str, shown: str) -> dict[str, str]:
    """What is saved of a text in place of what is shown of it, where the two are not the same."""
    exact = text.encode("utf-8", "backslashreplace").decode()  # JSON has no half of a surrogate pair
    return {} if exact == shown else {"exact": exact}


def _spans(response: str, steps: dict[str, Any]) -> Iterator[list[Any]]:
    """[text, KL, log p base, log p principled, flipped] of each run of tokens that has a text of its own."""
    for text, tokens in pieces(steps["tokens"], response):
        yield [
            visible(text),
            _rounded(max(steps["kl_aligned_base"][tokens])),
            _rounded(sum(steps["logprob_base"][tokens]), 2),
            _rounded(sum(steps["logprob_principle"][tokens]), 2),
            int(any(steps["flipped"][tokens])),
        ]


def _own(response: str, tokens: Sequence[str]) -> int:
    """How many pieces from the first are of the response, and no stop token after it.

    The last of them may go on behind the response, where a stop string begins inside a token.
    """
    length = count = 0
    for text, _ in pieces(tokens, response):
        if length >= len(response):
            break
        length, count = length + len(text), count + 1
    return count


def pieces(tokens: Sequence[str], response: str) -> Iterator[tuple[str, slice]]:
    """The response in the pieces that its tokens wrote, each with the tokens that wrote it.

    A token decoded alone may be a part of a character, or lack the space before it; the response has the whole text.
    Tokens that are not in the response, such as the stop token, stand for themselves.
    """
    cursor = begin = 0
    for index, token in enumerate(tokens):
        if BROKEN in token or not token:
            continue  # the next whole token tells where its text ends
        is_split = begin < index
        at = response.find(token, cursor + is_split)
        found = at >= 0
        gap = response[cursor : at if found else len(response) if is_split else cursor]
        cursor += len(gap) + found * len(token)
        if is_split:
            yield gap or BROKEN, slice(begin, index)
            gap = ""
        yield gap + token, slice(index, index + 1)
        begin = index + 1
    if begin < len(tokens):
        yield response[cursor:] or BROKEN, slice(begin, len(tokens))


def _rounded(value: float, digits: int = 3) -> float | None:
    """So many decimals; None for what JSON cannot say."""
    return round(float(value), digits) if math.isfinite(value) else None

"""Several evaluations side by side, of several models say (the paper's Fig. 4), by the JSON that each has written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from lalign.errors import InputError
from lalign.evaluation.named_table import named_table

if TYPE_CHECKING:
    from rich.console import Group

# A table of 80 columns has room for this many ratios.
RATIOS_IN_TABLE = 7


@dataclass(frozen=True, slots=True)
class Run:
    """One evaluation.

    name: the model, and what else tells it from the others.
    points: (ratio, accuracy, low, high), shares of 1; low and high are the accuracy itself where there is no interval.
    stored: the JSON object that it comes from.
    """

    name: str
    questions: int
    chance: float
    points: tuple[tuple[float, float, float, float], ...]
    stored: Mapping[str, Any]


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """The runs of files that `lalign eval` has written, one or several a file. Raises `InputError`."""
    stored = [(run, path) for path in paths for run in _stored(path)]
    return named([_run(run, str(path)) for run, path in stored])


def to_runs(stored: Sequence[Mapping[str, Any]]) -> list[Run]:
    """Evaluations that `Evaluation.to_dict` has made."""
    return named([_run(run, "eval") for run in stored])


def named(runs: Sequence[Run]) -> list[Run]:
    """Runs by the name of their model; where several have one, by recipe and scoring too, at last by their place.

    Raises `InputError` where runs cannot stand side by side.
    """
    if len({round(run.chance, 9) for run in runs}) > 1:
        raise InputError("the runs ask questions of different numbers of answers, where guessing does not score alike")
    names = [run.name for run in runs]
    longer = [f"{run.name}, {_kind(run.stored)}" for run in runs]
    names = [long if names.count(name) > 1 else name for name, long in zip(names, longer, strict=True)]
    counts: Counter[str] = Counter()
    found = []
    for run, name in zip(runs, names, strict=True):
        counts[name] += 1
        shown = f"{name} ({counts[name]})" if names.count(name) > 1 else name
        found.append(Run(shown, run.questions, run.chance, run.points, run.stored))
    return found


def to_json(runs: Sequence[Run]) -> dict[str, Any]:
    """The JSON object of several runs, which is read like that of one."""
    return {"runs": [run.stored for run in runs]}


def table(runs: Sequence[Run]) -> Group:
    """A row a run, a column a ratio: the accuracy in per cent, below it the 95 % interval."""
    ratios = sorted({ratio for run in runs for ratio, *_ in run.points})
    shown = ratios[:RATIOS_IN_TABLE]
    left = f" {len(ratios) - len(shown)} more ratios are in the JSON." if len(shown) < len(ratios) else ""
    caption = f"Accuracy in %, below it the 95 % interval. Chance: {100 * runs[0].chance:.1f}.{left}"
    headings = ["n", *(f"{ratio:g}" for ratio in shown)]
    return named_table("model", headings, [((run.name,), _figures(run, shown)) for run in runs], caption)


def _figures(run: Run, ratios: Sequence[float]) -> list[str]:
    by_ratio = {ratio: point for ratio, *point in run.points}
    cells = [_cell(by_ratio[ratio]) if ratio in by_ratio else "" for ratio in ratios]
    return [str(run.questions), *cells]


def _cell(point: Sequence[float]) -> str:
    accuracy, low, high = (100 * value for value in point)
    return f"{accuracy:.1f}\n{low:.0f}–{high:.0f}"


def _kind(stored: Mapping[str, Any]) -> str:
    recipe = stored["ratios"][0].get("recipe", "lalign")
    return f"{recipe}, {stored.get('settings', {}).get('scoring', '')}"


def _stored(path: Path) -> list[Any]:
    try:
        found = orjson.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except orjson.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from None
    runs = found.get("runs") if isinstance(found, dict) and "runs" in found else [found]
    if not isinstance(runs, list) or not runs:
        raise InputError(f"{path}: runs: must be a list of evaluations")
    return runs


def _run(stored: Any, where: str) -> Run:
    match stored:
        case {
            "settings": dict(settings),
            "questions": int(questions),
            "chance": float() | int() as chance,
            "ratios": [
                _,
                *_,
            ] as points,
        }:
            try:
                return Run(str(settings.get("model")), questions, float(chance), tuple(map(_point, points)), stored)
            except (KeyError, TypeError, ValueError):
                pass
    raise InputError(f"{where}: is not what lalign eval has written")


def _point(point: Mapping[str, Any]) -> tuple[float, float, float, float]:
    total = point["total"]
    accuracy = float(total["accuracy"])
    low, high = (accuracy if total[bound] is None else float(total[bound]) for bound in ("low", "high"))
    return float(point["ratio"]), accuracy, low, high

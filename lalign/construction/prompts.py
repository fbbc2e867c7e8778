"""The instructions of each stage: what the paper's Appendices E.2 and H ask, in our own words."""

from __future__ import annotations

from importlib.resources import files
from typing import Literal

from lalign.asking.instructions import check_places

Stage = Literal["questions", "answers", "principles", "principles_described"]

PLACES: dict[Stage, tuple[str, ...]] = {
    "questions": ("examples",),
    "answers": ("question", "preference", "letter"),
    "principles": ("conversation",),
    "principles_described": ("conversation", "preference"),
}


def instructions(stage: Stage, own: str | None = None) -> str:
    """The instructions of a stage, or `own` in their place. Raises `OptionError` where these lack a place."""
    if own is not None:
        return check_places(own, PLACES[stage], "prompt")
    return files("lalign.construction").joinpath(f"construct_{stage}.txt").read_text(encoding="utf-8").strip()

"""The page on which people judge pairs of answers: blind, from disk, with mouse or keyboard; it saves JSON Lines."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps

from lalign.asking.instructions import transcript
from lalign.errors import OutputError
from lalign.figures.page import visible
from lalign.judging.ballots import check_seed, is_swapped, on_ballot, pair_key
from lalign.judging.matches import Match


def write_ballot(path: Path, matches: Sequence[Match], seed: int) -> int:
    """Write the page; returns how many pairs are on it.

    It needs no network. Texts travel as JSON and become text nodes, never markup; a policy in the page forbids all
    scripts but its own, and all requests. Raises `OutputError` where the file cannot be written, `OptionError` for a
    seed that the page could not give back.
    """
    check_seed(seed)
    asked = on_ballot(matches, seed)
    data = htmlsafe_json_dumps({"seed": seed, "pairs": [_pair(match, seed) for match in asked]})
    digest = hashlib.sha256(data.encode()).hexdigest()
    source = files("lalign.figures").joinpath("ballot.html").read_text(encoding="utf-8")
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(source)
    try:
        # Text in the data cannot hold the hash of the data, so no script in it passes for the page's own.
        path.write_text(template.render(nonce=digest, data=data, ballot=digest[:16]), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror or error}") from None
    return len(asked)


def _pair(match: Match, seed: int) -> dict[str, str]:
    key = pair_key(match)
    left, right = match.texts[::-1] if is_swapped(key, seed) else match.texts
    conversation = transcript(match.conversation)
    return {"pair": key, "conversation": visible(conversation), "left": visible(left), "right": visible(right)}

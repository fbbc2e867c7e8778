"""A model that writes questions, answers and principles as it is told, and what it is asked with."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
from conftest import SAMPLES, Finished, Lalign
from scripted_endpoint import ScriptedEndpoint

SEEDS = SAMPLES / "seeds.jsonl"
USERS = "abcd"


def records(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def lines(path: Path, found: list[dict[str, Any]]) -> Path:
    path.write_bytes(b"".join(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE) for record in found))
    return path


def word(*parts: object) -> str:
    """A word that no other is like."""
    return hashlib.sha256("-".join(map(str, parts)).encode()).hexdigest()[:24]


def question(mark: str) -> dict[str, str]:
    people = {f"preference_{user}": f"{word(mark, user)} {word(user, mark)}" for user in USERS}
    return {"domain": "life", "question": f"{word(mark)}?", **people}


def block(fields: dict[str, str]) -> str:
    return "[[\n" + "\n".join(f"<<{name.capitalize()}>>: {text}" for name, text in fields.items()) + "\n]]"


def model(text: str, before: int = 0) -> str:
    """A model that does as it is told: questions that depend on the examples, answers, principles."""
    if letter := re.search(r"<<Answer_(\w)>>", text):
        return f"Here it is.\n<<Answer_{letter[1]}>>: For ease of use, take {len(text)} of these."
    if "<<Principle>>" in text:
        return "<<Principle>>: Be " + ("kind to this person." if "known of who asks" in text else "kind to all.")
    mark = str(sum(text.encode()))
    return "Sure!\n" + "\n\n".join(block(question(f"{mark}.{n}")) for n in range(5))


def command(endpoint: ScriptedEndpoint | None, *arguments: object) -> list[object]:
    asked = ["--url", endpoint.url, "--url-model", "m"] if endpoint else []
    return ["construct", *arguments, *asked]


def constructing(lalign: Lalign) -> Callable[..., Finished]:
    """`run(endpoint, stage, ...)`: `lalign construct`, in a folder with `four.jsonl`, of four questions."""
    lines(lalign.folder / "four.jsonl", [{"id": f"q{n}", **question(f"four{n}")} for n in range(4)])

    def run(endpoint: ScriptedEndpoint | None, *arguments: object) -> Finished:
        return lalign(*command(endpoint, *arguments))

    return run

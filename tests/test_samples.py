"""The prompts among the samples are those that lalign uses."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROMPTS = sorted((ROOT / "samples/prompts").glob("*.txt"))


def test_every_prompt_of_the_package_is_among_the_samples() -> None:
    packaged = {path.name for path in (ROOT / "lalign").rglob("*.txt")}
    assert {path.name for path in PROMPTS} == packaged


@pytest.mark.parametrize("path", PROMPTS, ids=lambda path: path.name)
def test_a_prompt_is_that_of_the_package(path: Path) -> None:
    (packaged,) = [file for file in (ROOT / "lalign").rglob(path.name) if file.is_file()]
    assert packaged.read_text(encoding="utf-8") == path.read_text(encoding="utf-8")

"""The README holds: its option table is the program's, and its commands run as they stand."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from lalign.cli.arguments import AlignmentArguments, ModelArguments, OutputArguments, RunArguments, SamplingArguments

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
GENERATE = (AlignmentArguments, SamplingArguments, OutputArguments, ModelArguments, RunArguments)
# So that an example takes seconds; what it shows is that it runs.
SHORTER = {
    "lalign generate": "lalign generate --limit 2 --max-new-tokens 4",
    "lalign sweep": "lalign sweep --limit 2 --max-new-tokens 4",
    "lalign eval samples/preferences.jsonl": "head -2 samples/preferences.jsonl | lalign eval",
    "lalign bench": "lalign bench --limit 1 --max-new-tokens 2 --repeats 1",
    " --peers": "",
}


def option_table() -> list[str]:
    """The rows of the README's table, from the declarations that the program parses by."""
    rows = []
    for kind in GENERATE:
        hints = get_type_hints(kind, include_extras=True)
        for option in fields(kind):
            info = hints[option.name].__metadata__[0]
            meaning = info.help.replace("|", r"\|")
            names = ", ".join(f"`{name}`" for name in info.param_decls or [f"--{option.name.replace('_', '-')}"])
            rows.append(f"| {names} | {default(option.default, info.show_default)} | {meaning} |")
    return rows


def default(value: Any, shown: bool | str) -> str:
    if isinstance(shown, str):
        return shown
    return "" if value is None or value is False else str(value)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """The README's shell blocks that run lalign, without the installing that a test run has behind it."""
    return [
        re.sub(r"^pip install.*&& (?=lalign)", "", block.strip())
        for block in blocks("sh")
        if "lalign " in block and "pytest" not in block
    ]


def test_the_option_table_is_that_of_the_program() -> None:
    table = README.split("## Options of `lalign generate`", 1)[1].split("\n## ", 1)[0]
    assert [line for line in table.splitlines() if line.startswith("| `-")] == option_table()


def test_there_are_commands_to_run() -> None:
    assert {command.split("lalign ")[1].split()[0] for command in commands()} >= {"generate", "sweep", "eval", "bench"}


@pytest.mark.real
@pytest.mark.parametrize("command", commands())
def test_a_command_runs_as_it_stands(command: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "samples", tmp_path / "samples")
    for full, shorter in SHORTER.items():
        command = command.replace(full, shorter)
    command = command.replace("lalign ", f"{sys.executable} -m lalign ").replace(f"/{sys.executable} -m lalign", "")
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.real
def test_the_python_example_runs(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "samples", tmp_path / "samples")
    first = blocks("python")[0]
    done = subprocess.run([sys.executable, "-c", first], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.strip().splitlines()) >= 2

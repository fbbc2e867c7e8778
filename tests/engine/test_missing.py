"""Engines whose packages are not here: one line that says what to install, and nothing else."""

from __future__ import annotations

import sys

import pytest
from conftest import SAMPLES

from lalign.backends import is_installed
from lalign.cli.run import run
from lalign.engine.llamacpp import backend
from lalign.engine.llamacpp.library import library


@pytest.mark.parametrize(
    ("engine", "package", "told"),
    [
        ("llamacpp", "llama_cpp", "--engine llamacpp takes the package llama-cpp-python: pip install"),
        ("vllm", "vllm", "--engine: vllm takes the package vllm, which is not installed here; see docs/engines.md"),
    ],
)
@pytest.mark.parametrize("command", ["generate", "sweep"])
def test_a_missing_package_is_named_in_a_line(
    engine: str,
    package: str,
    told: str,
    command: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(backend, "library", library.__wrapped__)
    asked = ("--principle", str(SAMPLES / "hh.txt"), "--engine", engine)
    assert run([command, str(SAMPLES / "prompts.jsonl"), *asked]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"lalign: {told}")
    assert err.count("\n") == 1
    assert not is_installed(engine)

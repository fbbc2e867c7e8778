"""What is brought from the hub before a model loads is told, and its bars are seen in a terminal."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, enable_progress_bars
from transformers.utils import logging

from lalign.cli.run import run
from lalign.models.download import to_be_downloaded
from lalign.models.quiet import silence_libraries


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub that has one model, of which nothing is in the cache: the path of that."""
    files = [("model.safetensors", 250_000_000), ("onnx/model.safetensors", 7), ("config.json", 3), ("odd.bin", None)]

    def model_info(self: Any, name: str, **_: Any) -> Any:
        if name != "org/tiny":
            raise OSError("no such model")
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=file, size=size) for file, size in files])

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", model_info)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub" / "models--org--tiny"


def in_cache(cache: Path, file: str) -> None:
    (cache / "refs").mkdir(parents=True, exist_ok=True)
    (cache / "refs" / "main").write_text("c0ffee")
    (cache / "snapshots" / "c0ffee").mkdir(parents=True, exist_ok=True)
    (cache / "snapshots" / "c0ffee" / file).touch()


def test_of_a_model_that_is_not_here_the_size_is_told(hub: Path) -> None:
    assert to_be_downloaded("org/tiny") == "org/tiny (250 MB)"
    in_cache(hub, "config.json")
    assert to_be_downloaded("org/tiny") == "org/tiny (250 MB)"
    in_cache(hub, "model.safetensors")
    assert to_be_downloaded("org/tiny") is None


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("name", ["org/other", "no/such/model", "-", "/gone", None])
def test_of_any_other_name_nothing_is_told(name: str | None) -> None:
    assert to_be_downloaded(name) is None


def test_a_folder_of_the_same_name_prevails(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("org/tiny").mkdir(parents=True)
    assert to_be_downloaded("org/tiny") is None


@pytest.mark.usefixtures("hub")
def test_a_hub_that_is_not_to_be_asked_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert to_be_downloaded("org/tiny") is None


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("quiet", [False, True])
def test_a_command_tells_it_before_it_loads(
    quiet: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def loads(*_: Any, **__: Any) -> Any:
        raise RuntimeError("here it loads")

    monkeypatch.setattr("lalign.backends.open_backend", loads)
    (tmp_path / "in.jsonl").write_text('{"prompt": "Hi"}\n')
    arguments = [str(tmp_path / "in.jsonl"), "--model", "org/tiny", "--principle-text", "Be kind."]
    assert run(["generate", *arguments, *(["-q"] if quiet else [])]) == 1
    told = capsys.readouterr().err.splitlines()
    assert told[:-1] == ([] if quiet else ["lalign: downloading org/tiny (250 MB)"])
    assert "here it loads" in told[-1]


@pytest.mark.parametrize("hidden", [False, True])
def test_only_the_bars_of_downloads_are_left(hidden: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TQDM_DISABLE", "1" if hidden else "")
    try:
        silence_libraries()
        assert are_progress_bars_disabled("huggingface_hub.http_get") is hidden
        assert not logging.is_progress_bar_enabled()
    finally:
        enable_progress_bars()

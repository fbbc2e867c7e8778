"""Where a model's files are, and which of them are not followed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TinyModel, TinyTokenizer

from lalign.errors import ModelError
from lalign.models.loading import ModelOptions, load
from lalign.models.location import INDEX, gguf_file


@pytest.fixture
def folder(tmp_path: Path, tiny_model: TinyModel, tiny_tokenizer: TinyTokenizer) -> Path:
    """A tiny llama in several files with an index."""
    path = tmp_path / "model"
    tiny_model("llama").save_pretrained(path, max_shard_size="40KB")
    tiny_tokenizer("chatml").save_pretrained(path)
    return path


def refusal(folder: Path, **options: Any) -> str:
    with pytest.raises(ModelError) as raised:
        load(ModelOptions(name=str(folder), **options))
    message = str(raised.value)
    assert len(message.splitlines()) == 1
    assert message.startswith(f"{folder}: ")
    return message


def point_to(folder: Path, file: str) -> str:
    """Make the index name a file for its first tensor; returns what it named before."""
    index = json.loads((folder / INDEX).read_text())
    tensor = min(index["weight_map"])
    before: str = index["weight_map"][tensor]
    index["weight_map"] = {name: file if kept == before else kept for name, kept in index["weight_map"].items()}
    (folder / INDEX).write_text(json.dumps(index))
    return before


def test_a_model_in_several_files_is_read(folder: Path) -> None:
    assert len(list(folder.glob("*.safetensors"))) > 1
    assert load(ModelOptions(name=str(folder))).stop_ids


def test_an_index_that_names_a_pickle_is_followed_only_when_asked_for(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    shard = point_to(folder, "evil.bin")
    torch.save(load_file(folder / shard), folder / "evil.bin")
    assert "evil.bin" in (message := refusal(folder))
    assert "--allow-pickle" in message
    assert load(ModelOptions(name=str(folder), allow_pickle=True)).stop_ids


@pytest.mark.parametrize(
    "file", ["../a/b.safetensors", "a/../../b/c.safetensors", "..\\a\\b.safetensors", "C:\\a.safetensors"]
)
def test_an_index_that_leads_elsewhere_is_refused(folder: Path, tmp_path: Path, file: str) -> None:
    point_to(folder, file)
    assert "lies elsewhere" in refusal(folder)


def test_an_index_that_leads_to_a_path_from_the_root_is_refused(folder: Path, tmp_path: Path) -> None:
    shard = point_to(folder, str(tmp_path / "elsewhere.safetensors"))
    (folder / shard).rename(tmp_path / "elsewhere.safetensors")
    assert "lies elsewhere" in refusal(folder)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}'])
def test_an_index_that_is_none_is_one_line(folder: Path, content: str) -> None:
    (folder / INDEX).write_text(content)
    assert INDEX in refusal(folder)


def test_a_tokenizer_model_without_sentencepiece_names_the_package(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "tokenizer.json").rename(folder / "tokenizer.model")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    monkeypatch.setattr("lalign.models.loading._has", lambda package: False)
    assert "its tokenizer.model takes the package sentencepiece" in refusal(folder)


def test_what_is_no_gguf(tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    assert gguf_file(str(tmp_path)) is None
    assert gguf_file("acme/model") is None
    with pytest.raises(ModelError, match="a file that is no"):
        gguf_file(str(tmp_path / "config.json"))
    (tmp_path / "config.json").unlink()
    with pytest.raises(ModelError, match="is not a model"):
        gguf_file(str(tmp_path))

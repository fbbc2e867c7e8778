"""GGUF files are converted once: keyed by content, whole or absent, and as the file says."""

from __future__ import annotations

import importlib.metadata
import json
import os
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from conftest import VOCABULARY, TinyTokenizer
from filelock import FileLock
from transformers import AutoModelForCausalLM

from lalign.errors import ModelError
from lalign.models import conversion
from lalign.models.conversion import cache_folder, converted, file_digest
from lalign.models.loading import ModelOptions, load


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("LALIGN_CACHE", str(folder))
    return folder


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Where conversions were written; each is a file that holds the GGUF's content."""
    written: list[Path] = []

    def convert(source: Path, dtype: torch.dtype, folder: Path) -> None:
        written.append(folder)
        (folder / "model.safetensors").write_bytes(source.read_bytes())

    monkeypatch.setattr(conversion, "_convert", convert)
    return written


def refusal(path: Path) -> str:
    """The one line that a model is refused with."""
    with pytest.raises(ModelError) as raised:
        load(ModelOptions(name=str(path)))
    message = str(raised.value)
    assert len(message.splitlines()) == 1
    return message


def gguf_file(path: Path, content: bytes = b"weights") -> Path:
    path.write_bytes(content)
    return path


def finished(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if path.is_dir())


def test_a_file_is_converted_once(tmp_path: Path, cache: Path, conversions: list[Path]) -> None:
    source = gguf_file(tmp_path / "a.gguf")
    folder = converted(source, torch.float32)
    assert converted(source, torch.float32) == folder
    assert len(conversions) == 1
    assert folder.parent == cache
    assert (folder / "model.safetensors").read_bytes() == b"weights"


def test_the_key_is_the_content_not_the_place_or_the_time(tmp_path: Path, cache: Path, conversions: list[Path]) -> None:
    first = converted(gguf_file(tmp_path / "a.gguf"), torch.float32)
    (tmp_path / "elsewhere").mkdir()
    moved = gguf_file(tmp_path / "elsewhere" / "a.gguf")
    os.utime(moved, (0, 0))
    assert converted(moved, torch.float32) == first
    other = converted(gguf_file(tmp_path / "a.gguf", b"Weights"), torch.float32)
    assert other != first
    assert len(conversions) == 2


def test_each_type_of_weights_is_a_conversion_of_its_own(tmp_path: Path, cache: Path, conversions: list[Path]) -> None:
    source = gguf_file(tmp_path / "a.gguf")
    assert converted(source, torch.float32) != converted(source, torch.bfloat16)
    assert len(conversions) == 2


def test_each_version_of_what_converts_is_a_conversion_of_its_own(
    tmp_path: Path, cache: Path, conversions: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = gguf_file(tmp_path / "a.gguf")
    folders = set()
    for version in ("1.0", "1.1"):
        monkeypatch.setattr(importlib.metadata, "version", lambda name, version=version: version)
        folders.add(converted(source, torch.float32))
    assert len(folders) == 2


def test_a_conversion_is_written_aside_and_renamed(tmp_path: Path, cache: Path, conversions: list[Path]) -> None:
    folder = converted(gguf_file(tmp_path / "a.gguf"), torch.float32)
    assert conversions[0] != folder
    assert conversions[0].parent == folder.parent  # a rename within one file system
    assert finished(cache) == [folder.name]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("no space left"), ValueError("damaged")])
def test_an_interrupted_conversion_leaves_nothing(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    source = gguf_file(tmp_path / "a.gguf")

    def half(source: Path, dtype: torch.dtype, folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(conversion, "_convert", half)
        with pytest.raises(type(error)):
            converted(source, torch.float32)
    assert finished(cache) == []


def test_what_a_killed_conversion_left_is_removed_and_not_taken_for_a_model(
    tmp_path: Path, cache: Path, conversions: list[Path]
) -> None:
    source = gguf_file(tmp_path / "a.gguf")
    folder = converted(source, torch.float32)
    folder.rename(conversions[0])  # as if the process had ended before the rename
    assert converted(source, torch.float32) == folder
    assert len(conversions) == 2
    assert finished(cache) == [folder.name]


def test_what_a_killed_conversion_of_another_file_left_is_removed_too(
    tmp_path: Path, cache: Path, conversions: list[Path]
) -> None:
    converted(gguf_file(tmp_path / "a.gguf"), torch.float32).rename(conversions[0])
    folder = converted(gguf_file(tmp_path / "b.gguf", b"others"), torch.float32)
    assert finished(cache) == [folder.name]


def test_a_conversion_that_is_running_and_folders_of_others_are_let_be(
    tmp_path: Path, cache: Path, conversions: list[Path]
) -> None:
    folder = converted(gguf_file(tmp_path / "a.gguf"), torch.float32)
    folder.rename(conversions[0])
    (cache / "notes.of.mine").mkdir()
    with FileLock(f"{folder}.lock"):
        other = converted(gguf_file(tmp_path / "b.gguf", b"others"), torch.float32)
    assert finished(cache) == sorted([conversions[0].name, other.name, "notes.of.mine"])


def torn(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"w")


def lost(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def unfinished(folder: Path) -> None:
    (folder / conversion.CONTENTS).unlink()


def emptied(folder: Path) -> None:
    (folder / conversion.CONTENTS).write_bytes(b"")


@pytest.mark.parametrize("damage", [torn, lost, unfinished, emptied])
def test_a_damaged_conversion_is_made_anew(
    tmp_path: Path, cache: Path, conversions: list[Path], damage: Callable[[Path], None]
) -> None:
    source = gguf_file(tmp_path / "a.gguf")
    folder = converted(source, torch.float32)
    damage(folder)
    assert converted(source, torch.float32) == folder
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    converted(source, torch.float32)
    assert len(conversions) == 2


def test_a_conversion_that_another_process_has_just_finished_is_taken(
    tmp_path: Path, cache: Path, conversions: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = gguf_file(tmp_path / "a.gguf")
    folder = converted(source, torch.float32)
    folder.rename(tmp_path / "kept")

    class Lock:
        """Is waited for until the other process has renamed its folder."""

        def __init__(self, path: str, timeout: float) -> None:
            assert (path, timeout) == (f"{folder}.lock", -1)

        def __enter__(self) -> None:
            (tmp_path / "kept").rename(folder)

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(conversion, "FileLock", Lock)
    assert converted(source, torch.float32) == folder
    assert len(conversions) == 1


def test_the_cache_is_where_the_variable_says_else_the_users(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == cache
    monkeypatch.delenv("LALIGN_CACHE")
    assert cache_folder().name == "lalign"
    assert cache_folder() != cache


def test_the_digest_is_sha_256(tmp_path: Path) -> None:
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert file_digest(gguf_file(tmp_path / "empty", b"")) == empty
    long = gguf_file(tmp_path / "long", b"x" * (conversion.CHUNK + 1))
    assert file_digest(long) != file_digest(gguf_file(tmp_path / "short", b"x" * conversion.CHUNK))


# A real file.

HIDDEN, HEADS, LAYERS, FEED_FORWARD = 32, 4, 1, 64


def write_tiny_llama(
    path: Path, tokenizer: Any, *, without: Container[str] = (), parts: int | None = None
) -> dict[str, np.ndarray[Any, Any]]:
    """A llama of one layer, as llama.cpp would write it, `without` some tensors or as the first of several parts.

    Gives its tensors by their names in the file.
    """
    random = np.random.default_rng(0)
    shapes = {
        "token_embd.weight": (VOCABULARY, HIDDEN),
        "output_norm.weight": (HIDDEN,),
        "output.weight": (VOCABULARY, HIDDEN),
        "blk.0.attn_norm.weight": (HIDDEN,),
        "blk.0.ffn_norm.weight": (HIDDEN,),
        "blk.0.ffn_gate.weight": (FEED_FORWARD, HIDDEN),
        "blk.0.ffn_up.weight": (FEED_FORWARD, HIDDEN),
        "blk.0.ffn_down.weight": (HIDDEN, FEED_FORWARD),
        **{f"blk.0.attn_{name}.weight": (HIDDEN, HIDDEN) for name in ("q", "k", "v", "output")},
    }
    tensors = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    tensors = {name: tensor for name, tensor in tensors.items() if name not in without}
    writer = gguf.GGUFWriter(path, "llama")
    if parts is not None:
        writer.add_uint16(gguf.Keys.Split.LLM_KV_SPLIT_COUNT, parts)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(VOCABULARY)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    special = set(tokenizer.all_special_ids)
    writer.add_token_list([token for token, _ in vocabulary])
    writer.add_token_types(
        [gguf.TokenType.CONTROL if token in special else gguf.TokenType.NORMAL for _, token in vocabulary]
    )
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_chat_template(tokenizer.chat_template)
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


def test_a_gguf_becomes_a_model_with_its_weights_tokens_and_template(
    tmp_path: Path, cache: Path, tiny_tokenizer: TinyTokenizer
) -> None:
    source = tmp_path / "tiny.gguf"
    tokenizer = tiny_tokenizer("chatml")
    tensors = write_tiny_llama(source, tokenizer)
    loaded = load(ModelOptions(name=str(source), compile=True))
    assert Path(loaded.location).parent == cache
    assert loaded.name == str(source)
    weights = loaded.model.state_dict()
    for name, written in {
        "model.embed_tokens.weight": "token_embd.weight",
        "lm_head.weight": "output.weight",
        "model.layers.0.mlp.down_proj.weight": "blk.0.ffn_down.weight",
        "model.layers.0.self_attn.v_proj.weight": "blk.0.attn_v.weight",
    }.items():
        np.testing.assert_array_equal(weights[name].numpy(), tensors[written])
    text = "What is the capital of Australia?"
    assert loaded.tokenizer(text)["input_ids"] == tokenizer(text, add_special_tokens=False)["input_ids"]
    assert loaded.tokenizer.chat_template == tokenizer.chat_template
    assert loaded.stop_ids == {1}
    assert loaded.limits.context_length == 128


TENSORS = (
    *("token_embd.weight", "output_norm.weight", "blk.0.attn_norm.weight", "blk.0.ffn_norm.weight"),
    *(f"blk.0.ffn_{name}.weight" for name in ("gate", "up", "down")),
    *(f"blk.0.attn_{name}.weight" for name in ("q", "k", "v", "output")),
)


@pytest.mark.parametrize("tensor", TENSORS)
def test_a_gguf_that_lacks_a_tensor_is_refused_by_its_name(
    tmp_path: Path, cache: Path, tiny_tokenizer: TinyTokenizer, tensor: str
) -> None:
    source = tmp_path / "tiny.gguf"
    write_tiny_llama(source, tiny_tokenizer("chatml"), without=[tensor])
    assert refusal(source) == f"{source}: lacks 1 of the model's tensors, such as {tensor}"
    assert finished(cache) == []


def test_a_gguf_without_an_output_matrix_takes_the_embedding_as_llama_cpp_does(
    tmp_path: Path, cache: Path, tiny_tokenizer: TinyTokenizer
) -> None:
    source = tmp_path / "tiny.gguf"
    tensors = write_tiny_llama(source, tiny_tokenizer("chatml"), without=["output.weight"])
    head = load(ModelOptions(name=str(source), compile=True)).model.lm_head.weight
    np.testing.assert_array_equal(head.numpy(), tensors["token_embd.weight"])


def test_a_gguf_of_a_vocabulary_alone_is_refused_before_a_model_is_made(
    tmp_path: Path, cache: Path, tiny_tokenizer: TinyTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "vocabulary.gguf"
    write_tiny_llama(source, tiny_tokenizer("chatml"), without=[*TENSORS, "output.weight"])
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", None)
    assert refusal(source) == f"{source}: a vocabulary without weights is not a model"


def test_one_part_of_a_gguf_is_refused_and_a_file_of_one_part_is_read(
    tmp_path: Path, cache: Path, tiny_tokenizer: TinyTokenizer
) -> None:
    source = tmp_path / "tiny-00001-of-00003.gguf"
    write_tiny_llama(source, tiny_tokenizer("chatml"), parts=3)
    assert refusal(source).startswith(f"{source}: one of 3 parts; join them")
    write_tiny_llama(source, tiny_tokenizer("chatml"), parts=1)
    assert load(ModelOptions(name=str(source))).limits.context_length == 128


def test_a_gguf_is_found_by_a_suffix_in_capitals_and_by_its_folder(
    tmp_path: Path, cache: Path, tiny_tokenizer: TinyTokenizer
) -> None:
    source = tmp_path / "models" / "TINY.GGUF"
    source.parent.mkdir()
    write_tiny_llama(source, tiny_tokenizer("chatml"))
    by_name = load(ModelOptions(name=str(source)))
    by_folder = load(ModelOptions(name=str(source.parent)))
    assert by_name.location == by_folder.location
    assert (by_name.name, by_folder.name) == (str(source), str(source.parent))
    (source.parent / "other.gguf").touch()
    assert refusal(source.parent).startswith(f"{source.parent}: holds 2 GGUF files; name one")


def test_a_conversion_that_no_longer_loads_is_made_anew(
    tmp_path: Path, cache: Path, tiny_tokenizer: TinyTokenizer
) -> None:
    source = tmp_path / "tiny.gguf"
    write_tiny_llama(source, tiny_tokenizer("chatml"))
    loaded = load(ModelOptions(name=str(source)))
    before = loaded.fingerprint()
    for file in ("model.safetensors", "config.json", "tokenizer.json"):
        path = Path(loaded.location) / file
        path.write_bytes(b"x" * path.stat().st_size)
        assert load(ModelOptions(name=str(source))).fingerprint() == before

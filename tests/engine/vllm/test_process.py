"""What is said before vLLM starts, and what of vLLM reaches the user."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from conftest import TinyModel, TinyTokenizer

from lalign.backends import open_backend
from lalign.engine.interface import Weights
from lalign.engine.vllm import engine_args
from lalign.engine.vllm.backend import _weights
from lalign.engine.vllm.process import _reason, _silenced
from lalign.errors import LalignError, ModelError, OptionError
from lalign.models.description import describe
from lalign.models.loading import ModelOptions, load


def test_where_there_is_no_vllm_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_args, "is_installed", lambda: False)
    with pytest.raises(OptionError, match="engine: vllm takes the package vllm, which is not installed here"):
        open_backend(ModelOptions("nowhere"), "vllm")


def test_its_log_goes_to_who_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_args, "is_installed", lambda: False)
    for given, wanted in ((None, "INFO"), ("DEBUG", "DEBUG")):
        monkeypatch.setenv("VLLM_LOGGING_LEVEL", given or "")
        if given is None:
            monkeypatch.delenv("VLLM_LOGGING_LEVEL")
        with pytest.raises(OptionError):
            open_backend(ModelOptions("nowhere"), "vllm", verbose=True)
        assert os.environ["VLLM_LOGGING_LEVEL"] == wanted


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("one line", "one line"),
        ("\n  first\nsecond", "first"),
        (
            "1 validation error for X\n  Value error, no such thing [type=value_error, input_value=1]\n    more",
            "Value error, no such thing",
        ),
        ("", "ValueError"),
    ],
)
def test_of_an_error_one_line_is_said(text: str, line: str) -> None:
    assert _reason(ValueError(text)) == line


@pytest.mark.parametrize("is_silent", [True, False])
def test_what_libraries_write_as_they_start_is_kept_off_stdout(
    capfd: pytest.CaptureFixture[str], is_silent: bool
) -> None:
    with _silenced(is_silent):
        os.write(1, b"out\n")
        os.write(2, b"err\n")
    os.write(1, b"after\n")
    out, err = capfd.readouterr()
    assert out == "after\n"
    assert err == ("" if is_silent else "out\nerr\n")


# Models, without their weights.


def test_a_description_says_what_the_loaded_model_does(tiny_folder: Path) -> None:
    model = ModelOptions(str(tiny_folder))
    loaded, described = load(model), describe(model, "vllm", "float32")
    for name in ("name", "location", "stop_ids", "limits"):
        assert getattr(described, name) == getattr(loaded, name), name
    assert described.fingerprint() == loaded.fingerprint()
    assert described.parameters() == loaded.parameters > 0
    assert described.tokenizer.get_vocab() == loaded.tokenizer.get_vocab()


@pytest.mark.real
def test_a_gguf_is_described_as_it_is_loaded() -> None:
    loaded, described = load(ModelOptions()), describe(ModelOptions(), "vllm", "float32")
    for name in ("name", "location", "stop_ids", "limits"):
        assert getattr(described, name) == getattr(loaded, name), name
    assert described.fingerprint() == loaded.fingerprint()
    assert described.parameters() == loaded.parameters > 0


@pytest.mark.parametrize(
    ("dtype", "quantization", "expected"),
    [
        ("torch.float32", None, Weights("cpu", "torch.float32", 1000, 4000)),
        ("torch.bfloat16", None, Weights("cpu", "torch.bfloat16", 1000, 2000)),
        ("torch.bfloat16", "awq", Weights("cpu", "torch.bfloat16 awq", 1000)),
    ],
)
def test_the_bytes_of_quantised_weights_are_not_guessed(
    dtype: str, quantization: str | None, expected: Weights
) -> None:
    assert _weights(1000, "cpu", dtype, quantization) == expected


@pytest.mark.parametrize("given", [{"device": "cpu"}, {"device_map": "auto"}, {"compile": True}])
def test_options_of_torch_are_refused(tiny_folder: Path, given: dict[str, Any]) -> None:
    (option,) = given
    with pytest.raises(OptionError, match=f"^{option}: is for the engine torch; vllm has options of its own$"):
        describe(ModelOptions(str(tiny_folder), **given), "vllm", "float32")


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json"])
def test_a_model_that_cannot_be_read_is_one_line(
    tiny_model: TinyModel, tiny_tokenizer: TinyTokenizer, tmp_path: Path, missing: str
) -> None:
    tiny_model("llama").save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    (tmp_path / missing).write_text("{")
    with pytest.raises(ModelError) as raised:
        describe(ModelOptions(str(tmp_path)), "vllm", "float32")
    assert "\n" not in str(raised.value)


def test_an_adapter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "base"}')
    with pytest.raises(LalignError, match="vllm does not take adapters; merge it into its model"):
        describe(ModelOptions(str(tmp_path)), "vllm", "float32")

"""`--dry-run`: prompts as the model would get them, with what the principle changes marked, and no model."""

from __future__ import annotations

import shutil
from pathlib import Path

import orjson
import pytest
from conftest import Lalign, TinyModel, TinyTokenizer
from tiny_gguf import write_tiny_gguf

from lalign.cli.run import run


@pytest.fixture
def tokenizer_only(tmp_path: Path, tiny_folder: Path) -> Path:
    """The tiny model's folder without its weights."""
    folder = tmp_path / "no-weights"
    shutil.copytree(tiny_folder, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    return folder


def lines(*records: object) -> bytes:
    return b"".join(orjson.dumps(record) + b"\n" for record in records)


@pytest.mark.parametrize("command", ["generate", "sweep"])
def test_shows_the_twins_of_the_first_records(lalign: Lalign, tokenizer_only: Path, command: str) -> None:
    given = lines({"id": "one", "prompt": "Hi"}, {"prompt": "Ho"}, {"prompt": "Third"})
    finished = lalign(command, "--model", tokenizer_only, "--principle-text", "Be kind.", "--dry-run", 2, stdin=given)
    shown = finished.out.decode()
    assert (finished.status, finished.err) == (0, "")
    assert [line for line in shown.splitlines() if line.startswith("stdin:")] == ["stdin:1  id 'one'", "stdin:2  id 2"]
    assert "Third" not in shown
    # Plain ChatML: the principled twin opens a system block.
    assert shown.count("[+system") == shown.count("Be kind.<|im_end|>") == 2
    assert "[-" not in shown


def test_its_counts_are_those_of_the_job(lalign: Lalign, tokenizer_only: Path) -> None:
    given = lines({"prompt": "What is the capital of Australia?"})
    usage = lalign.generate(stdin=given).records[0]["usage"]
    shown = lalign.generate("--model", tokenizer_only, "--dry-run", 1, stdin=given).out.decode()
    base, more = usage["prompt_tokens"], usage["principle_tokens"]
    assert f"base: {base} tokens" in shown
    assert f"principled: {base + more} tokens (+{more})" in shown


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (("--shard", "2/2"), (2, 4)),
        (("--limit", 1), (1,)),
        (("--limit", 3, "--shard", "1/2"), (1, 3)),
        (("--limit", 1, "--shard", "2/2"), ()),
    ],
)
def test_shows_what_the_job_would_answer(
    lalign: Lalign, tokenizer_only: Path, arguments: tuple[object, ...], shown: tuple[int, ...]
) -> None:
    given = lines(*({"prompt": str(number)} for number in range(1, 8)))
    dry = lalign.generate("--model", tokenizer_only, "--dry-run", 2, *arguments, stdin=given)
    assert [line for line in dry.out.decode().splitlines() if line.startswith("stdin:")] == [
        f"stdin:{number}  id {number}" for number in shown
    ]
    answered = lalign.generate(*arguments, stdin=given).records
    assert [record["line"] for record in answered][:2] == [*shown]


def test_a_gguf_is_not_converted_for_it(
    tmp_path: Path,
    tiny_model: TinyModel,
    tiny_tokenizer: TinyTokenizer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("LALIGN_CACHE", str(cache))
    gguf = write_tiny_gguf(tmp_path / "tiny.gguf", tiny_model("llama"), tiny_tokenizer("chatml"))
    (tmp_path / "in.jsonl").write_bytes(lines({"prompt": "Hi"}))
    job = ["generate", str(tmp_path / "in.jsonl"), "--model", str(gguf), "--principle-text", "Be kind."]
    assert run([*job, "--dry-run", "1"]) == 0
    shown = capsys.readouterr().out
    assert "Be kind." in shown
    assert not cache.exists()
    assert run([*job, "--max-new-tokens", "1"]) == 0
    assert cache.exists()
    capsys.readouterr()
    assert run([*job, "--dry-run", "1"]) == 0
    assert capsys.readouterr().out == shown
    gguf.write_bytes(b"GGUF" + b"\xff" * 100)
    assert run([*job, "--dry-run", "1"]) == 2
    assert capsys.readouterr().err.startswith(f"lalign: {gguf}: not a GGUF model that transformers can read (")


def test_a_record_that_cannot_be_answered_says_why(lalign: Lalign, tokenizer_only: Path) -> None:
    given = lines({"prompt": " "}, {"prompt": "words " * 500})
    finished = lalign.generate("--model", tokenizer_only, "--dry-run", 9, stdin=given)
    assert finished.status == 1
    shown = finished.out.decode()
    assert "error: prompt: must not be blank" in shown
    assert "are more than the model's context of 512" in " ".join(shown.split())


def test_text_cannot_command_the_terminal(lalign: Lalign, tokenizer_only: Path) -> None:
    finished = lalign.generate("--model", tokenizer_only, "--dry-run", 1, stdin=lines({"prompt": "\x1b[2J[red]\u202e"}))
    assert b"\x1b" not in finished.out
    assert r"\x1b[2J[red]\u202e" in finished.out.decode()


def test_nothing_is_written(lalign: Lalign, tokenizer_only: Path, tmp_path: Path) -> None:
    arguments = ("--model", tokenizer_only, "--dry-run", 1, "-o", "out.jsonl")
    assert lalign.generate(*arguments, stdin=lines({"prompt": "Hi"})).status == 0
    assert not (tmp_path / "out.jsonl").exists()


def test_of_nothing_it_says_that_there_is_nothing(lalign: Lalign, tokenizer_only: Path) -> None:
    finished = lalign.generate("--model", tokenizer_only, "--dry-run", 1)
    assert (finished.status, finished.out, finished.err) == (0, b"", "lalign: stdin: holds no records\n")

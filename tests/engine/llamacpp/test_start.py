"""What a job on llama.cpp loads: no transformers, which takes seconds to import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from conftest import TinyModel, TinyTokenizer
from tiny_gguf import write_tiny_gguf

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

JOB = """
import sys
from lalign.cli.run import run
status = run(sys.argv[1:])
sys.stderr.write(f"{status} {sorted({'torch', 'transformers', 'accelerate', 'gguf'} & set(sys.modules))}")
"""


@pytest.mark.parametrize("how", [(), ("--temperature", "1", "--stop", "q", "--logprobs", "2")], ids=["greedy", "drawn"])
def test_a_job_loads_no_transformers(
    tiny_model: TinyModel, tiny_tokenizer: TinyTokenizer, tmp_path: Path, how: tuple[str, ...]
) -> None:
    model = write_tiny_gguf(tmp_path / "tiny.gguf", tiny_model("llama"), tiny_tokenizer("chatml"))
    asked = (
        "--model",
        str(model),
        "--engine",
        "llamacpp",
        "--principle-text",
        "Be kind.",
        "--max-new-tokens",
        "2",
        "-q",
    )
    done = subprocess.run(
        [sys.executable, "-c", JOB, "generate", *asked, *how],
        input=b'{"prompt": "Hi"}\n',
        cwd=tmp_path,
        capture_output=True,
        timeout=300,
    )
    assert done.stderr.decode() == "0 ['torch']"
    assert orjson.loads(done.stdout)["usage"]["completion_tokens"] == 2

"""What to run where a GPU is at hand: `pytest tests/gpu`. Skipped elsewhere.

`LALIGN_TEST_DEVICE=cpu` runs it on a CPU, which shows that the tests themselves hold.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from conftest import Lalign

from lalign.aligner import Aligner
from lalign.backends import open_backend
from lalign.engine.vllm import process
from lalign.engine.vllm.engine_args import is_installed
from lalign.models.loading import ModelOptions
from lalign.options import Execution
from lalign.results import Result

DEVICE = os.environ.get("LALIGN_TEST_DEVICE", "cuda")
PROMPTS = [f"{'word ' * (number % 7)}{number}?" for number in range(40)]

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def answers(model: Path, device: str, temperature: float = 0.0, **options: Any) -> list[Result]:
    aligner = Aligner.from_pretrained(str(model), device=device, **options)
    found = aligner.generate(
        PROMPTS,
        principle="Be kind.",
        ratio=2,
        temperature=temperature,
        max_new_tokens=16,
        execution=Execution(batch_size=8),
    )
    return [outcome for outcome in found if isinstance(outcome, Result)]


def tokens(results: list[Result]) -> list[tuple[int, ...]]:
    return [result.token_ids for result in results]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_float32_tokens_are_those_of_the_cpu(tiny_folder: Path, temperature: float) -> None:
    expected = tokens(answers(tiny_folder, "cpu", temperature, dtype="float32"))
    assert len(expected) == len(PROMPTS)
    assert tokens(answers(tiny_folder, DEVICE, temperature, dtype="float32")) == expected


def test_compiled_steps_take_the_same_tokens(tiny_folder: Path) -> None:
    expected = tokens(answers(tiny_folder, DEVICE, dtype="float32"))
    assert tokens(answers(tiny_folder, DEVICE, dtype="float32", compile=True)) == expected


def test_bfloat16_begins_as_float32_does(tiny_folder: Path) -> None:
    """Its rounding may part responses later on; most first tokens and the mean divergence must be alike."""
    exact = answers(tiny_folder, DEVICE, dtype="float32")
    rounded = answers(tiny_folder, DEVICE, dtype="bfloat16")
    same = sum(one.token_ids[0] == other.token_ids[0] for one, other in zip(exact, rounded, strict=True))
    assert same >= 0.9 * len(PROMPTS)
    means = [sum((one.summary or {})["kl_aligned_base_mean"] for one in some) / len(some) for some in (exact, rounded)]
    assert means[1] == pytest.approx(means[0], rel=0.2)


@pytest.mark.real
@pytest.mark.skipif(DEVICE != "cuda" or not is_installed(), reason="needs a CUDA device and vLLM")
def test_the_processor_of_vllm_s_second_runner_takes_the_tokens_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "PROCESSORS", {True: process.PROCESSORS[True]})  # vLLM must take none but this
    options = {"max_model_len": "512", "gpu_memory_utilization": "0.3"}
    backend = open_backend(ModelOptions(dtype="float32"), "vllm", options)
    given: dict[str, Any] = {"principle": "Be kind.", "ratio": 2, "max_new_tokens": 16}
    found = list(Aligner(backend).generate(PROMPTS[:8], **given))
    expected = list(Aligner.from_pretrained(device=DEVICE, dtype="float32").generate(PROMPTS[:8], **given))
    assert len(expected) == 8
    assert tokens([one for one in found if isinstance(one, Result)]) == tokens(
        [one for one in expected if isinstance(one, Result)]
    )


def test_bench_measures_the_device(lalign: Lalign) -> None:
    prompts = b"".join(b'{"prompt": "%d?"}\n' % number for number in range(4))
    done = lalign("bench", *lalign.tiny, "--ratio", 2, "--device", DEVICE, "--repeats", 1, stdin=prompts)
    assert done.status == 0, done.err
    assert torch.device(orjson.loads(done.out)["model"]["device"]).type == torch.device(DEVICE).type

"""`lalign bench` on engines other than torch, each beside its own program; `.ci/engines` has their environments."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from conftest import Lalign

from lalign.backends import is_installed

pytestmark = pytest.mark.real
PARAMETERS = 134_515_008  # of the embedded model, whose embedding is multiplied with too


@pytest.mark.parametrize(
    ("engine", "dtype", "options"),
    [
        pytest.param("llamacpp", "Q4_1", (), id="llamacpp"),
        pytest.param("vllm", "torch.float32", ("max_model_len=512", "kv_cache_memory_bytes=268435456"), id="vllm"),
    ],
)
def test_an_engine_is_measured_beside_its_own_program(
    lalign: Lalign, engine: str, dtype: str, options: tuple[str, ...]
) -> None:
    if not is_installed(engine):
        pytest.skip(f"{engine} is not installed here; .ci/engines keeps an environment with it")
    prompts = b"".join(b'{"prompt": "Name %d of them."}\n' % number for number in range(2))
    asked: list[object] = ["bench", "--engine", engine, "--principle-text", "Be kind.", "--ratio", 2]
    asked += ["--peers", "--contenders", f"base,{engine}-stock", "--max-new-tokens", 4]
    asked += ["--repeats", 1, "--batch-sizes", 1, *(word for option in options for word in ("--engine-option", option))]
    done = lalign(*asked, stdin=prompts)
    assert done.status == 0, done.err
    found: dict[str, Any] = orjson.loads(done.out)
    model = found["model"]
    assert (model["device"], model["dtype"], model["parameters"]) == ("cpu", dtype, PARAMETERS)
    assert found["left_out"] == {}
    assert found["machine"]["read_bandwidth"] > 0
    runs = {row["contender"]: row for row in found["runs"]}
    assert list(runs) == ["base", f"{engine}-stock"]
    for row in runs.values():
        assert row["tokens"] == 8, row
        assert row["peak_memory"]["median"] > 1 << 20
        assert row["step_seconds"]["median"] > 0
    stock = runs[f"{engine}-stock"]
    assert (stock["same_as"], stock["responses"]) == ("base", 2)
    # What bounds a step in 4 bits is not what was measured.
    assert ("floor_seconds" in runs["base"]) == (engine == "vllm")

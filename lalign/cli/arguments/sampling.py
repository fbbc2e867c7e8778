"""How tokens are drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from lalign.cli.arguments.declaring import SAMPLING, option


@dataclass(frozen=True, slots=True)
class SampleArguments:
    """How many responses a record gets."""

    samples: Annotated[
        int,
        option(
            "Responses of each record, >= 1; sample k, from 0, is that of a run whose --seed is k more.",
            SAMPLING,
            "--samples",
            "-n",
        ),
    ] = 1


@dataclass(frozen=True, slots=True)
class SamplingArguments:
    """How tokens are drawn and when a response ends."""

    max_new_tokens: Annotated[int, option("Tokens of a response at the most, >= 1.", SAMPLING)] = 128
    temperature: Annotated[float, option("0 is greedy; above 0 samples.", SAMPLING)] = 0.0
    top_p: Annotated[float, option("Nucleus to sample from, above 0 and at most 1 (off).", SAMPLING)] = 1.0
    top_k: Annotated[int, option("Sample from the k likeliest; 0 is off.", SAMPLING)] = 0
    min_p: Annotated[
        float, option("Least probability, as a share of the likeliest token's, 0 (off) to 1.", SAMPLING)
    ] = 0.0
    repetition_penalty: Annotated[
        float, option("Divides the logits of tokens seen already, above 0; 1 is off.", SAMPLING)
    ] = 1.0
    seed: Annotated[int, option("Seed of the run, >= 0; each record has its own stream from it.", SAMPLING)] = 0
    stop: Annotated[
        list[str] | None,
        option("End a response where this text begins. Several times for several.", SAMPLING, metavar="TEXT"),
    ] = None

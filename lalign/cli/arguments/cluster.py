"""A cluster to run on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from lalign.cli.arguments.declaring import RAY, option


@dataclass(frozen=True, slots=True)
class ClusterArguments:
    """A Ray cluster, and how much of it a job takes."""

    ray: Annotated[
        str | None,
        option(
            "Run on a Ray cluster, or local for one made here: IN is a file or folder, OUT a folder.",
            RAY,
            metavar="ADDRESS",
        ),
    ] = None
    workers: Annotated[int | None, option("With --ray: how many engines, >= 1.", RAY, default="1")] = None
    gpus_per_worker: Annotated[
        float | None, option("With --ray: GPUs that each worker takes, >= 0.", RAY, default="0")
    ] = None

"""How a command uses the machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from lalign.cli.arguments.declaring import RUN, flag, option


@dataclass(frozen=True, slots=True)
class RunArguments:
    """How the job uses the machine, and what it says."""

    batch_size: Annotated[
        str,
        option(
            "Pairs in flight, >= 1, or auto: what fits in --memory-share of the free memory.", RUN, metavar="N|auto"
        ),
    ] = "16"
    memory_share: Annotated[
        float, option("For --batch-size auto, above 0 and at most 1; vllm has options of its own.", RUN)
    ] = 0.7
    compile: Annotated[
        bool,
        flag(
            "Compile the decoding step with torch.compile: a minute at the start, for long jobs on GPUs.",
            RUN,
            "--compile",
        ),
    ] = False
    quiet: Annotated[
        bool, flag("No progress and no summary; errors and warnings still show.", RUN, "--quiet", "-q")
    ] = False
    verbose: Annotated[
        bool, flag("What the libraries that run the model say, on stderr; not from a cluster.", RUN, "--verbose")
    ] = False
    debug: Annotated[bool, flag("Show tracebacks.", RUN, "--debug")] = False


DebugFlag = Annotated[bool, flag("Show tracebacks.", RUN, "--debug")]

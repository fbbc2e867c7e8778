"""What is scored, by which reward model, and where scores go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from lalign.cli.arguments.declaring import MODEL, OUTPUT, RUN, flag, option
from lalign.cli.arguments.files import PackedOutput

ScoredFiles = Annotated[
    list[Path],
    typer.Argument(metavar="OUT.jsonl", help="What lalign generate or sweep has written; - is stdin."),
]
ScoredFile = Annotated[Path, typer.Argument(metavar="SCORED.jsonl", help="What lalign score has written; - is stdin.")]


@dataclass(frozen=True, slots=True)
class ScoreArguments:
    """Which rewards, and how they are shown."""

    reward_model: Annotated[
        str | None,
        option("A folder or hub id: a sequence classifier of transformers with one label.", MODEL, metavar="NAME"),
    ] = None
    input: Annotated[
        Path | None,
        option(
            "The input of the job, for outputs without --keep; matched by line and id.",
            OUTPUT,
            metavar="IN.jsonl",
        ),
    ] = None
    plot: Annotated[
        Path | None,
        option("Draw the rewards of all files, normalised together: .pdf, .png or .svg.", OUTPUT, metavar="FILE"),
    ] = None
    device: Annotated[str, option("auto, cpu, cuda, cuda:1, mps, ...", MODEL, metavar="NAME")] = "auto"
    batch_size: Annotated[int, option("Answers scored at a time, >= 1.", RUN)] = 16
    quiet: Annotated[bool, flag("No progress and no table.", RUN, "--quiet", "-q")] = False


@dataclass(frozen=True, slots=True)
class WrittenArguments:
    """Where records go, of a command that begins its output anew."""

    output: PackedOutput = None
    overwrite: Annotated[bool, flag("Replace the output, and the plot, if they exist.", OUTPUT, "--overwrite")] = False

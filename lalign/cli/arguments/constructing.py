"""What `lalign construct` makes, and of what."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from lalign.cli.arguments.declaring import CONSTRUCT, flag, option

STAGES = ("questions", "filter", "answers", "principles")

StageName = Annotated[
    str,
    typer.Argument(
        metavar="STAGE",
        help="questions: more questions like the seeds of IN; filter: without those that are alike; answers: one for "
        "each description; principles: the style that suits each.",
    ),
]
ConstructedFile = Annotated[
    Path | None,
    typer.Argument(metavar="IN.jsonl", help="What the stage begins with; - or nothing is stdin."),
]


@dataclass(frozen=True, slots=True)
class ConstructArguments:
    """Options of single stages."""

    count: Annotated[
        int | None,
        option("questions: how many to ask for, five a request, >= 1.", CONSTRUCT, default="100", metavar="N"),
    ] = None
    seed: Annotated[
        int | None, option("questions: seed of which examples a request shows, >= 0.", CONSTRUCT, default="0")
    ] = None
    similarity: Annotated[
        float | None,
        option(
            "filter: from here on two questions, or descriptions, are too much alike; above 0, at most 100.",
            CONSTRUCT,
            default="80",
        ),
    ] = None
    besides: Annotated[
        list[Path] | None,
        option(
            "filter: leave out what is like the questions of this file too, as the seeds. Several times for several.",
            CONSTRUCT,
            metavar="FILE.jsonl",
        ),
    ] = None
    report: Annotated[
        Path | None,
        option("filter: write what was left out, and what it is like, as JSON.", CONSTRUCT, metavar="FILE.json"),
    ] = None
    general: Annotated[
        bool,
        flag("principles: what people generally prefer, whatever descriptions there are.", CONSTRUCT, "--general"),
    ] = False
    prompt: Annotated[
        Path | None,
        option(
            "Other instructions than lalign's own, with their places in braces.",
            CONSTRUCT,
            default="lalign's own",
            metavar="FILE",
        ),
    ] = None

"""What `lalign plot` draws, and how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from lalign.cli.arguments.declaring import OUTPUT, flag, option

PlottedFiles = Annotated[
    list[Path],
    typer.Argument(
        metavar="FILE...",
        help="What lalign sweep, eval (its JSON), judge or score has written. With a sweep, what the others found of "
        "its points is drawn over their KL.",
    ),
]


@dataclass(frozen=True, slots=True)
class PlotArguments:
    """Where a figure goes, and how it looks."""

    output: Annotated[
        Path,
        option(
            "The figure: .pdf, .png or .svg; of a sweep also a page, .html.", OUTPUT, "--output", "-o", metavar="FILE"
        ),
    ]
    x: Annotated[
        str, option("What is drawn across: the ratio, or the KL that it comes to.", OUTPUT, choices=("ratio", "kl"))
    ] = "ratio"
    width: Annotated[
        str,
        option("As wide as a column (3.3 in) or the page (6.9 in).", OUTPUT, choices=("column", "full")),
    ] = "full"
    input: Annotated[
        Path | None,
        option("The input of the sweep, for the prompts on a page.", OUTPUT, metavar="IN.jsonl"),
    ] = None
    overwrite: Annotated[bool, flag("Replace the figure if it exists.", OUTPUT, "--overwrite")] = False

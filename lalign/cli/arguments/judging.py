"""What `lalign judge` compares, and how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from lalign.cli.arguments.declaring import JUDGE, option

AnswerFiles = Annotated[
    list[Path],
    typer.Argument(metavar="A.jsonl B.jsonl ...", help="Answers to the same prompts, one file a contestant."),
]


@dataclass(frozen=True, slots=True)
class JudgeArguments:
    """Who meets whom, by which instructions, and what is drawn of it."""

    prompts: Annotated[
        Path | None,
        option("The prompts that were answered, by id, where the answers do not hold them.", JUDGE, metavar="IN.jsonl"),
    ] = None
    match: Annotated[
        str,
        option(
            "first: the first file against each other; all: each against each; two: 1 and 2, 3 and 4, ...",
            JUDGE,
            choices=("first", "all", "two"),
        ),
    ] = "first"
    name: Annotated[
        list[str] | None,
        option("Name of each file, in the same order.", JUDGE, default="the files' own", metavar="NAME"),
    ] = None
    response_field: Annotated[
        list[str] | None,
        option(
            "The key that holds an answer. Several times, in the order of the files: one for each.",
            JUDGE,
            default="response",
            metavar="NAME",
        ),
    ] = None
    judge_prompt: Annotated[
        Path | None,
        option(
            "Other instructions, with {conversation}, {answer_a} and {answer_b} in them.",
            JUDGE,
            default="lalign's own",
            metavar="FILE",
        ),
    ] = None
    plot: Annotated[
        Path | None, option("Draw wins, ties and losses as bars: .pdf, .png or .svg.", JUDGE, metavar="FILE")
    ] = None
    summary: Annotated[Path | None, option("Write the table's figures as JSON.", JUDGE, metavar="FILE.json")] = None
    page: Annotated[
        Path | None,
        option("Ask nobody: write a page for people to judge, blind and in random order.", JUDGE, metavar="FILE.html"),
    ] = None
    votes: Annotated[
        list[Path] | None,
        option("What a person saved from that page, merged by majority. Several times for several.", JUDGE),
    ] = None
    compare: Annotated[
        Path | None,
        option("With --votes: an output of `lalign judge`, for its agreement with people.", JUDGE, metavar="OUT.jsonl"),
    ] = None
    seed: Annotated[int, option("Seed of the page's order and of the intervals, >= 0.", JUDGE)] = 0

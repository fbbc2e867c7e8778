"""What is read and written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, get_args

import typer

from lalign.cli.arguments.declaring import OUTPUT, flag, option
from lalign.options import Statistics

InputFile = Annotated[
    Path | None,
    typer.Argument(
        metavar="IN.jsonl", help="Records, one JSON object a line (.gz and .zst too); - or nothing is stdin."
    ),
]


InputFiles = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="IN.jsonl...",
        help="Records: JSON Lines or an array in a .json (.gz and .zst too), .csv, .tsv, .parquet, .arrow, a folder of "
        "a Hugging Face data set; several, or a pattern in quotes, are read as one. - or nothing is stdin.",
    ),
]


PackedOutput = Annotated[
    Path | None,
    option(
        "Output file, .gz, .zst and .parquet too; - or nothing is stdout.",
        OUTPUT,
        "--output",
        "-o",
        metavar="OUT.jsonl",
    ),
]


@dataclass(frozen=True, slots=True)
class ResultArguments:
    """Where results go, and what becomes of what stands there."""

    output: Annotated[
        Path | None, option("Output file; - or nothing is stdout.", OUTPUT, "--output", "-o", metavar="OUT.jsonl")
    ] = None
    overwrite: Annotated[
        bool,
        flag(
            "Replace the output, and other files that are written, if they exist; --resume replaces those others too.",
            OUTPUT,
            "--overwrite",
        ),
    ] = False
    resume: Annotated[bool, flag("Continue an interrupted job into its output.", OUTPUT, "--resume")] = False
    retry_errors: Annotated[
        bool, flag("With --resume: answer the lines that failed again.", OUTPUT, "--retry-errors")
    ] = False
    force: Annotated[bool, flag("With --resume: even if settings or input have changed.", OUTPUT, "--force")] = False


@dataclass(frozen=True, slots=True)
class OutputArguments(ResultArguments):
    """What is read and written."""

    output: PackedOutput = None
    overwrite: Annotated[bool, flag("Replace the output if it exists.", OUTPUT, "--overwrite")] = False
    output_format: Annotated[
        str,
        option(
            "jsonl: lalign's own lines; openai-batch: lines of OpenAI's batch results, with the rest under `lalign`.",
            OUTPUT,
            choices=("jsonl", "openai-batch"),
        ),
    ] = "jsonl"
    prompt_template: Annotated[
        Path | None,
        option(
            "File with the user's turn, in Jinja: {{ field }} is a field of the record. Principles may have them too.",
            OUTPUT,
            metavar="FILE",
        ),
    ] = None
    prompt_field: Annotated[
        str | None, option("Field with the prompt: a text, or a list of messages.", OUTPUT, metavar="NAME")
    ] = None
    messages_field: Annotated[
        str | None,
        option("Field with the conversation: role and content, or from and value.", OUTPUT, metavar="NAME"),
    ] = None
    id_field: Annotated[
        str | None, option("Field with the record's id.", OUTPUT, metavar="NAME", default="id, custom_id")
    ] = None
    prefill: Annotated[
        str | None,
        option(
            "What every response begins with; a record whose last turn is the assistant's has its own.",
            OUTPUT,
            metavar="TEXT",
        ),
    ] = None
    stats: Annotated[
        str,
        option(
            "steps: statistics of every token and a summary; summary; or none.", OUTPUT, choices=get_args(Statistics)
        ),
    ] = "steps"
    logprobs: Annotated[
        int | None,
        option(
            "Also the K likeliest tokens at each token, >= 1: of the aligned, base and principled distributions.",
            OUTPUT,
            metavar="K",
            default="off",
        ),
    ] = None
    keep: Annotated[bool, flag("Copy each input object to the output, under `input`.", OUTPUT, "--keep")] = False
    limit: Annotated[int | None, option("Read this many records at the most, >= 1.", OUTPUT, default="all")] = None
    shard: Annotated[
        str | None,
        option(
            "Answer every N-th line from the K-th, 1/4 to 4/4 in four jobs; lalign merge joins what they write.",
            OUTPUT,
            metavar="K/N",
        ),
    ] = None
    dry_run: Annotated[
        int | None,
        option(
            "Show the first N prompts, twin beside twin; no weights are loaded or converted, nothing answered. "
            "For torch alone.",
            OUTPUT,
            metavar="N",
        ),
    ] = None
    strict: Annotated[
        bool, flag("End at the first line that cannot be answered, with status 1.", OUTPUT, "--strict")
    ] = False


OutputFiles = Annotated[list[Path], typer.Argument(metavar="OUT.*.jsonl", help="The outputs of all shards of a job.")]


@dataclass(frozen=True, slots=True)
class MergeArguments:
    """Where merged records go."""

    output: Annotated[
        Path,
        option(
            "File for the records of all, which must not exist, .gz, .zst and .parquet too.",
            OUTPUT,
            "--output",
            "-o",
            metavar="OUT.jsonl",
        ),
    ]

"""The options that single commands have for themselves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from lalign.cli.arguments.declaring import EVAL, OUTPUT, RUN, SWEEP, flag, option


@dataclass(frozen=True, slots=True)
class SweepArguments:
    """Which points, and how they are shown."""

    ratios: Annotated[
        str | None,
        option(
            "Ratios: a list 0,1,2.5, a range 0:5 (both ends, step 1) or 0:5:0.5.",
            SWEEP,
            metavar="RANGE",
            default="0:5",
        ),
    ] = None
    kls: Annotated[
        str | None,
        option(
            "In place of --ratios: nats of each step (--kl), likewise; 0 is the base model.",
            SWEEP,
            metavar="RANGE",
            default="off",
        ),
    ] = None
    recipes: Annotated[
        str | None,
        option(
            "Recipes to compare, each at every ratio: lalign,opad,amulet.", SWEEP, metavar="NAMES", default="--recipe"
        ),
    ] = None
    ps: Annotated[
        str | None,
        option("Values of p, likewise; inf may be one. Each with every ratio.", SWEEP, metavar="RANGE", default="--p"),
    ] = None
    plot: Annotated[
        Path | None,
        option(
            "Draw the curves: .pdf, .png or .svg, or .html with the responses side by side. --overwrite replaces it, "
            "also with --resume.",
            SWEEP,
            metavar="FILE",
        ),
    ] = None


EvalFiles = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="IN.jsonl",
        help="Questions: JSON Lines (.gz and .zst too), a JSON array (.json) or .parquet; - or nothing is stdin. With "
        "--merge the JSON of evaluations.",
    ),
]


@dataclass(frozen=True, slots=True)
class EvalArguments:
    """What is asked, and how answers are scored."""

    preset: Annotated[
        str | None,
        option(
            "The set-up of the paper, or of its authors' program, for all options that are not given.",
            EVAL,
            choices=("paper", "released"),
        ),
    ] = None
    ratios: Annotated[
        str | None,
        option(
            "Ratios: a list 0,1,2.5, a range 0:5 (both ends, step 1) or 0:5:0.5.", EVAL, metavar="RANGE", default="0:5"
        ),
    ] = None
    scoring: Annotated[
        str | None,
        option(
            "logit: the likeliest of the letters, nothing generated; letter: the first letter generated, the paper's; "
            "first: the first character generated; ppl: the whole answer of the least perplexity.",
            EVAL,
            choices=("logit", "letter", "first", "ppl"),
            default="logit",
        ),
    ] = None
    one_user: Annotated[
        bool | None,
        flag("Ask as one user, or as all four of each question.", EVAL, "--one-user/--all-users", default="all-users"),
    ] = None
    permute: Annotated[
        str | None,
        option(
            "Order of the answers: one drawn per question (seed), all orders, or none but the file's.",
            EVAL,
            choices=("seed", "all", "none"),
            default="seed",
        ),
    ] = None
    seed: Annotated[int | None, option("Seed of what is drawn, >= 0.", EVAL, default="0")] = None
    prefill: Annotated[
        str | None,
        option("What every response begins with, in place of the `Answer:` of the prompt.", EVAL, metavar="TEXT"),
    ] = None
    limit: Annotated[int | None, option("Ask this many questions at the most, >= 1.", EVAL, default="all")] = None
    output: Annotated[
        Path | None,
        option("What was chosen each time a question was asked, a JSON line each.", EVAL, "-o", metavar="FILE"),
    ] = None
    resume: Annotated[
        bool, flag("Go on with the file of -o, without asking anything again; replaces the plot.", EVAL, "--resume")
    ] = False
    models: Annotated[
        list[str] | None,
        option(
            "In place of --model, several times: the models are asked in turn, for one table.", EVAL, metavar="NAME"
        ),
    ] = None
    merge: Annotated[
        bool, flag("Ask nothing: one table, JSON and plot of evaluations, of several models say.", EVAL, "--merge")
    ] = False
    plot: Annotated[Path | None, option("Draw accuracy over ratio: .pdf, .png or .svg.", EVAL, metavar="FILE")] = None
    overwrite: Annotated[bool, flag("Replace the plot and the file of -o if they exist.", EVAL, "--overwrite")] = False


@dataclass(frozen=True, slots=True)
class BenchArguments:
    """What is measured."""

    batch_sizes: Annotated[str, option("Pairs in flight: a list, 1,4,16.", RUN, metavar="N,N,...")] = "16"
    repeats: Annotated[int, option("Interleaved runs of each, >= 1.", RUN)] = 3
    peers: Annotated[
        bool,
        flag(
            "Also the same prompts through stock transformers, its guidance_scale too, and the other engines that are "
            "here.",
            RUN,
            "--peers",
        ),
    ] = False
    peer_python: Annotated[
        list[str] | None,
        option(
            "The Python of another environment, with lalign in it, for what runs on an engine: "
            "vllm=/path/bin/python. Several times for several.",
            RUN,
            metavar="ENGINE=FILE",
        ),
    ] = None
    contenders: Annotated[
        str | None,
        option("These alone, by the names in the table: aligned,stock.", RUN, metavar="NAMES", default="all"),
    ] = None
    singly: Annotated[
        bool, flag("With --peers: guidance_scale one prompt at a time as well, which takes long.", RUN, "--singly")
    ] = False
    limit: Annotated[int | None, option("Read this many records at the most, >= 1.", RUN, default="all")] = None


@dataclass(frozen=True, slots=True)
class RecipesArguments:
    """How recipes are listed."""

    json: Annotated[bool, flag("As JSON on stdout, with the defaults of all options.", OUTPUT, "--json")] = False


@dataclass(frozen=True, slots=True)
class CacheArguments:
    """What becomes of the cache."""

    clear: Annotated[bool, flag("Remove the models; what is needed again is converted again.", OUTPUT, "--clear")] = (
        False
    )

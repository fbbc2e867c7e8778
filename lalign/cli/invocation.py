"""From what the command line says to what the library takes."""

from __future__ import annotations

import gc
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import orjson

from lalign.cli.arguments import (
    AlignmentArguments,
    ModelArguments,
    OutputArguments,
    RunArguments,
    SamplingArguments,
    SweepArguments,
)
from lalign.cli.terminal import say
from lalign.errors import OptionError
from lalign.method.recipes import option_names, recipes_of
from lalign.models.quiet import silence_libraries
from lalign.options import Execution, Sampling, Statistics
from lalign.sweep.ranges import parse_range

if TYPE_CHECKING:
    from lalign.aligner import Aligner
    from lalign.models.loading import ModelOptions
    from lalign.records.parsing import Record
    from lalign.records.reading import Reading
    from lalign.records.requests import Settings

# Of options that name a file of text, those which have a twin that takes the text itself.
_TEXT_OPTIONS = {"principle": "principle-text"}
_FILLS = "has {{ fields }}, which records fill in generate and sweep alone"


def model_options(model: ModelArguments, *, compile: bool = False, verbose: bool = False) -> ModelOptions:
    """The model to load; unless `verbose` its libraries are silenced. Raises `OptionError`."""
    from lalign.backends import check_engine
    from lalign.models.loading import ModelOptions

    check_engine(model.engine)
    if model.engine != "llamacpp" and not verbose:  # which need not wait for transformers
        silence_libraries()
    return ModelOptions(
        name=model.model,
        device=model.device,
        dtype=model.dtype,
        device_map=model.device_map,
        allow_pickle=model.allow_pickle,
        trust_remote_code=model.trust_remote_code,
        compile=compile,
    )


def aligner(model: ModelArguments, running: RunArguments) -> Aligner:
    """The model, loaded. Raises `ModelError`, `OptionError`."""
    from lalign.aligner import Aligner
    from lalign.backends import open_backend

    options = engine_options(model.engine_option or [])
    wanted = model_options(model, compile=running.compile, verbose=running.verbose)
    if model.engine != "llamacpp" and not running.quiet:
        tell_of_download(model.model)
    loaded = Aligner(open_backend(wanted, model.engine, options, verbose=running.verbose))
    gc.freeze()  # what is there now stays to the end, which comes sooner where it is not looked through for garbage
    return loaded


def tell_of_download(name: str | None) -> None:
    """Say what loading a model brings from the hub first, if anything."""
    from lalign.models.download import to_be_downloaded

    if (coming := to_be_downloaded(name)) is not None:
        say(f"downloading {coming}")


def engine_options(given: list[str]) -> dict[str, str]:
    """Parameters of an engine from `key=value` texts. Raises `OptionError`."""
    return pairs("engine_option", given)


def pairs(option: str, given: list[str]) -> dict[str, str]:
    """Values by name, from the `key=value` texts of an option. Raises `OptionError`."""
    parts = [text.partition("=") for text in given]
    for text, (name, equals, value) in zip(given, parts, strict=True):
        if not (name.strip() and equals and value.strip()):
            raise OptionError(option, f"must be key=value, not {text!r}")
    return {name.strip(): value.strip() for name, _, value in parts}


def settings(
    alignment: AlignmentArguments,
    sampling: SamplingArguments,
    recipes: str | None = None,
    output: OutputArguments | None = None,
) -> Settings:
    """What is wanted of every record; reads the files that options name. Raises `OptionError`.

    recipes: names with commas between them: each takes those of the options that it knows.
    output: of `generate` and `sweep`, where principles may have places that each record fills.
    """
    from lalign.options import Prompting
    from lalign.records.prompts import make_principles
    from lalign.records.requests import Settings, resolve
    from lalign.records.templates import is_template

    texts = [text(file, "principle") or "" for file in alignment.principle or []]
    texts += [_filled("principle_text", given) for given in alignment.principle_text or []]
    against = [text(file, "against") or "" for file in alignment.against or []]
    contrast = text(alignment.contrast, "contrast")
    given_texts = {"principle": texts, "against": against, "contrast": [contrast or ""]}
    filled = [option for option, given in given_texts.items() if any(map(is_template, given))]
    if filled and output is None:
        raise OptionError(filled[0], _FILLS)
    principles = make_principles(texts, alignment.weight, contrast, against, by_record=bool(filled))
    given = {name: getattr(alignment, name) for name in option_names() if getattr(alignment, name) is not None}
    drawn = {option.name: getattr(sampling, option.name) for option in fields(Sampling)}
    drawn["stop"] = tuple(sampling.stop or ())
    prompting = Prompting(
        cast(Any, alignment.placement),
        json_object("chat_template_kwargs", alignment.chat_template_kwargs),
        alignment.allow_special_tokens,
        output.prefill if output else None,
    )
    logprobs = at_least_one("logprobs", output.logprobs if output else None) or 0
    if recipes is None:
        one = resolve(principles, alignment.recipe, Sampling(**drawn), given, prompting)
        return replace(one, logprobs=logprobs)
    if alignment.recipe != AlignmentArguments().recipe:
        raise OptionError("recipe", "does not go with --recipes")
    chosen = recipes_of([name.strip() for name in recipes.split(",")], **given)
    return Settings(principles, chosen, Sampling(**drawn), prompting=prompting, logprobs=logprobs)


def system(alignment: AlignmentArguments) -> str | None:
    """The system message of a command whose records fill nothing. Raises `OptionError`."""
    from lalign.records.templates import is_template

    given = text(alignment.system, "system")
    if given is not None and is_template(given):
        raise OptionError("system", _FILLS)
    return given


def reading(output: OutputArguments, settings: Settings, alignment: AlignmentArguments) -> tuple[Reading, str | None]:
    """How records are read, and the system message that those without one share. Raises `OptionError`."""
    from lalign.records.reading import Reading
    from lalign.records.templates import FieldTemplate, is_template

    def template(option: str, given: str | None) -> FieldTemplate | None:
        return None if given is None else FieldTemplate(given, option)

    principles, shared = settings.principles, text(alignment.system, "system")
    by_record = shared is not None and is_template(shared)
    found = Reading(
        prompt_template=template("prompt_template", text(output.prompt_template, "prompt_template")),
        prompt_field=output.prompt_field,
        messages_field=output.messages_field,
        id_field=output.id_field,
        principles=tuple(FieldTemplate(one, "principle") for one in principles.texts) if principles.by_record else (),
        contrast=template("contrast", principles.contrast) if principles.by_record else None,
        system=template("system", shared) if by_record else None,
    )
    return found, None if by_record else shared


def json_object(option: str, text: str | None) -> dict[str, Any]:
    """The JSON object that an option gives; empty where it is not given. Raises `OptionError`."""
    if text is None:
        return {}
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise OptionError(option, f"must be a JSON object: {error}") from None
    if not isinstance(found, dict):
        raise OptionError(option, f"must be a JSON object, not {text:.40}")
    return found


def swept(alignment: AlignmentArguments, points: SweepArguments) -> tuple[AlignmentArguments, tuple[float, ...]]:
    """The options of a sweep, and the ratios or nats that it goes over. Raises `OptionError`."""
    if alignment.kl is not None:
        raise OptionError("kl", "is one of many here: give --kls")
    if points.kls is None:
        return without_ratio(alignment), parse_range(points.ratios or "0:5", "ratios")
    if points.ratios is not None:
        raise OptionError("kls", "goes in place of --ratios")
    nats = parse_range(points.kls, "kls")
    return replace(alignment, kl=nats[0]), nats


def without_ratio(alignment: AlignmentArguments) -> AlignmentArguments:
    """The options of a command that goes over ratios. Raises `OptionError` where one is given."""
    if alignment.ratio is not None:
        raise OptionError("ratio", "is one of many here: give --ratios")
    return alignment


def execution(running: RunArguments, statistics: str) -> Execution:
    """How the job runs. Raises `OptionError`."""
    size = running.batch_size
    try:
        batch_size: Any = size if size == "auto" else int(size)
    except ValueError:
        raise OptionError("batch_size", f"must be a whole number or auto, not {size!r}") from None
    return Execution(batch_size, running.memory_share, cast(Statistics, statistics))


def text(path: Path | None, option: str) -> str | None:
    """The text of a file that an option names, without white space around it."""
    if path is None:
        return None
    try:
        text = path.read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise OptionError(option, f"{path}: not UTF-8 at byte {error.start}") from None
    except (OSError, ValueError) as error:
        # A text with a slash or longer than a name may be fails in other ways than by not being there.
        hint = f" (for a text: --{_TEXT_OPTIONS[option]})" if option in _TEXT_OPTIONS and " " in str(path) else ""
        raise OptionError(option, f"{path}: {getattr(error, 'strerror', None) or error}{hint}") from None
    if not text:
        raise OptionError(option, f"{path}: is empty")
    return text


def _filled(option: str, text: str) -> str:
    if not text.strip():
        raise OptionError(option, "is empty")
    return text


def at_least_one(option: str, number: int | None) -> int | None:
    """A count that an option gives. Raises `OptionError` below 1."""
    if number is not None and number < 1:
        raise OptionError(option, f"must be a whole number of at least 1, not {number}")
    return number


def path(source: Path | None) -> Path | None:
    """The file of an argument; None for stdin."""
    return None if source is None or str(source) == "-" else source


def name(output: Path | None) -> str:
    """What an output is called in messages."""
    return "stdout" if output is None or str(output) == "-" else str(output)


def part(output: str) -> str | None:
    """Where the records of an output stand that is not made yet, if it is such a one; `output` is its name."""
    from lalign.jobs.packed import PART

    return f"{output}{PART}" if Path(f"{output}{PART}").is_file() else None


def records(source: Path | None, most: int | None) -> tuple[Record, ...]:
    """All records of an input, for work that needs them at once.

    Raises `InputError` where it cannot be read, and for the first line that cannot be used.
    """
    from itertools import islice

    from lalign.errors import InputError
    from lalign.records.inputs import Inputs
    from lalign.records.notices import Notices
    from lalign.records.parsing import parse_record
    from lalign.records.source import json_lines
    from lalign.results import Failure

    inputs = Inputs([] if source is None else [source])
    found, notices = [], Notices()
    with inputs.open() as stream:
        for raw in islice(json_lines(stream, inputs.name), most):
            record = parse_record(raw)
            if isinstance(record, Failure):
                raise InputError(f"{inputs.place(record.line)}: {record.message}")
            notices.count(record)
            found.append(record)
    if not found:
        raise InputError(f"{inputs.name}: holds no records")
    for notice in (*inputs.notices(), *notices.lines(inputs.name)):
        say(notice)
    return tuple(found)

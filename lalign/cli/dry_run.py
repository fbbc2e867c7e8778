"""`--dry-run N`: the first prompts as the model would get them, twin beside twin; only a tokenizer is loaded."""

from __future__ import annotations

import os
from itertools import islice
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lalign.cli import invocation
from lalign.cli.app import FAILED
from lalign.cli.arguments import ModelArguments
from lalign.cli.terminal import say
from lalign.errors import OptionError
from lalign.prefixes import common_prefix
from lalign.text import printable

if TYPE_CHECKING:
    from lalign.engine.interface import Request
    from lalign.jobs.reader import JobInput
    from lalign.records.requests import Settings

FILE_COLUMNS = 120


def dry_run(source: JobInput, settings: Settings, system: str | None, model: ModelArguments, count: int) -> int:
    """Show the prompts of the first `count` records that the job would answer on stdout; returns the exit status.

    Raises as the job would, `OptionError` for an engine other than torch.
    """
    from lalign.jobs.first_look import refuse_hopeless
    from lalign.models.loading import load_tokenizer
    from lalign.records.parsing import parse_record
    from lalign.records.prompts import PromptTemplate
    from lalign.records.requests import RequestBuilder
    from lalign.records.source import json_lines
    from lalign.results import Failure

    if model.engine != "torch":
        raise OptionError("dry_run", f"shows prompts of --engine torch, not of {model.engine}")
    inputs = source.inputs
    stream = refuse_hopeless(source, settings, inputs, inputs.open())
    tokenizer, limits = load_tokenizer(invocation.model_options(model))
    template = PromptTemplate(tokenizer, system, settings.prompting)
    template.check(bool(settings.principles.texts))
    # Stop strings end a response, of which there is none.
    builder = RequestBuilder(template, settings, limits, lambda texts: lambda tokens: False)
    # A file has no width; two twins beside each other want some.
    console = Console() if Console().is_terminal or "COLUMNS" in os.environ else Console(width=FILE_COLUMNS)
    failed = shown = False
    lines = islice(json_lines(stream, source.name), source.limit)
    for raw in islice((raw for raw in lines if source.shard.takes(raw.number)), count):
        shown = True
        record = parse_record(raw, reading=source.reading)
        outcome = record if isinstance(record, Failure) else builder.build(record, None)
        heading = f"{inputs.place(raw.number)}  id {record.id!r}"
        console.print(Text(printable(heading), style="bold"))
        if isinstance(outcome, Failure):
            failed = True
            console.print(Text(f"error: {printable(outcome.message)}"), "")
        else:
            console.print(_twins(outcome, tokenizer), "")
    for notice in inputs.notices():
        say(notice)
    if not shown:
        say(f"{source.name}: holds no records")
    return FAILED if failed else 0


def _twins(request: Request, tokenizer: Any) -> Table:
    """The twins of a prompt side by side: what a principle brings is between [+ and +], what it drops [- and -]."""
    table = Table(padding=(0, 1))
    texts = [tokenizer.decode(ids) for ids in (request.base, *request.principled)]
    added = [len(ids) - len(request.base) for ids in request.principled]
    table.add_column(f"base: {len(request.base)} tokens", overflow="fold", ratio=1)
    for number, (ids, more) in enumerate(zip(request.principled, added, strict=True), 1):
        name = "principled" if len(added) == 1 else f"principle {number}"
        table.add_column(f"{name}: {len(ids)} tokens ({more:+d})", overflow="fold", ratio=1)
    table.add_row(Text(_lines(texts[0])), *(_marked(texts[0], text) for text in texts[1:]))
    return table


def _marked(base: str, principled: str) -> Text:
    """The principled text with what differs from the base text marked."""
    start = len(common_prefix([base, principled]))
    rest, own = base[start:], principled[start:]
    end = len(common_prefix([rest[::-1], own[::-1]]))
    dropped, brought = rest[: len(rest) - end], own[: len(own) - end]
    text = Text(_lines(principled[:start]))
    if dropped:
        text.append(f"[-{_lines(dropped)}-]", style="red")
    if brought:
        text.append(f"[+{_lines(brought)}+]", style="bold green")
    return text.append(_lines(own[len(own) - end :]))


def _lines(text: str) -> str:
    return "\n".join(printable(line) for line in text.split("\n"))

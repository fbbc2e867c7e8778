"""`lalign merge`: the outputs of shards as one."""

from __future__ import annotations

from lalign.cli.app import app
from lalign.cli.arguments import MergeArguments, OutputFiles, grouped
from lalign.cli.terminal import say
from lalign.errors import OptionError


@app.command(no_args_is_help=True)
@grouped
def merge(outputs: OutputFiles, *, written: MergeArguments) -> int:
    """Join the outputs of shards in the order of the input. Where shards or lines are missing or doubled, it says so.

    lalign merge out.*.jsonl -o out.jsonl
    """
    from lalign.jobs.merge import merge_outputs

    if str(written.output) == "-":
        raise OptionError("output", "must be a file, not stdout")
    merged = merge_outputs(outputs, written.output)
    for told in merged.unknown:
        say(told)
    say(f"{merged.records} records of {merged.lines} lines to {written.output}")
    return 0

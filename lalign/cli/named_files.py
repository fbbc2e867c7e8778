"""That no file of a job that reads records is written and read: every file that its options name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from lalign.cli import invocation
from lalign.cli.arguments import AlignmentArguments, ModelArguments, OutputArguments


def check_paths(
    source: Path | Sequence[Path] | None,
    alignment: AlignmentArguments,
    model: ModelArguments,
    output: OutputArguments | None,
    plot: Path | None,
    *,
    records: Path | None = None,
    overwrite: bool = False,
) -> None:
    """That no file is written which is read, or replaced unasked. Touches none. Raises `OptionError`."""
    from lalign.jobs.paths import Named, check_paths, may_replace

    sources: Sequence[Path | None] = [source] if source is None or isinstance(source, Path) else source or [None]
    named: list[tuple[str, Path | None]] = [("input", invocation.path(one)) for one in sources]
    named += _files_of(alignment)
    named += [("prompt_template", output.prompt_template)] if output and output.prompt_template else []
    named += [("model", Path(model.model))] if model.model is not None else []
    options = invocation.engine_options(model.engine_option or [])
    named += [("engine_option", Path(value)) for value in options.values()]
    check_paths(
        [Named(option, file) for option, file in named],
        Named("output", invocation.path(output.output)) if output else Named("output", records) if records else None,
        Named("plot", plot),
    )
    if plot is not None:
        may_replace("plot", plot, overwrite=overwrite or (output is not None and output.overwrite))
    if records is not None:
        may_replace("output", records, overwrite=overwrite)


def _files_of(arguments: AlignmentArguments) -> list[tuple[str, Path | None]]:
    """Every file that an option names, with the option."""
    given = ((option.name, getattr(arguments, option.name)) for option in fields(arguments))
    listed = ((name, value if isinstance(value, list) else [value]) for name, value in given)
    return [(name, file) for name, files in listed for file in files if isinstance(file, Path)]

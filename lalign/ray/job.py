"""A whole job on a Ray cluster: files in, files out, taken up again where it ended."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from lalign import errors, validation
from lalign.errors import LalignError, OptionError, OutputError, first_line
from lalign.jobs.header import End, Header, beside, differences, read_header, write_header
from lalign.jobs.locking import PathLock
from lalign.jobs.stream import faults
from lalign.ray.counts import Counts

if TYPE_CHECKING:
    from lalign.models.loading import ModelOptions
    from lalign.options import Execution
    from lalign.ray.files import Format, InputFile
    from lalign.records.reading import Reading
    from lalign.records.requests import Settings

# Rows of a block for each pair in flight: at the end of a block an engine runs empty, and at the end of a job workers
# wait for those that have the last blocks. docs/scale.md weighs the two.
BLOCK = 8
T = TypeVar("T")
Watch = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where a job runs: a cluster's address, or "local" for one on this machine for the time of the job.

    Raises `OptionError` for values out of range.
    """

    address: str = "local"
    workers: int = 1
    gpus_per_worker: float = 0

    def __post_init__(self) -> None:
        validation.integer("workers", self.workers, low=1)
        validation.number("gpus_per_worker", self.gpus_per_worker, low=0)


def run(
    source: Path,
    output: Path,
    model: ModelOptions,
    settings: Settings,
    cluster: Cluster,
    *,
    engine: str = "torch",
    engine_options: Mapping[str, str] | None = None,
    reading: Reading | None = None,
    system: str | None = None,
    execution: Execution | None = None,
    keep: bool = False,
    resume: bool = False,
    worker: type | None = None,
    watch: Watch | None = None,
) -> Counts:
    """Answer all lines of a file, or of the files of a folder one after another, into files of the folder `output`.

    Each file of the output is whole; in each, records are in the order of the input, and none between files. Every
    machine must see the paths, as those of a shared file system.

    Args:
        resume: go on with a folder that an earlier run of the same settings and input has written.
        worker: a subclass of `Align` to take in its place.
        watch: called every second, in another thread, with the lines that are written so far and those that are to be.

    Raises `LalignError`: `OutputError` where the folder is not empty, or was written with other settings or from other
    input, `InputError`, `ModelError`, `OptionError`.
    """
    from lalign.jobs.first_look import refuse_hopeless
    from lalign.options import Execution
    from lalign.ray.align import Align
    from lalign.ray.files import as_input, input_paths
    from lalign.records.reading import Reading

    source, output = Path(os.path.abspath(source)), Path(os.path.abspath(output))
    paths, form = input_paths(source)
    if output.is_dir() and not resume and any(output.iterdir()):
        raise OutputError(f"{output}: is not empty; --resume goes on with it")
    if output.exists() and not output.is_dir():
        raise OutputError(f"{output}: is a file; a job on Ray writes a folder")
    if output == source or output in source.parents or source in output.parents:
        raise OutputError(f"{output}: is where the input is")
    first = as_input(paths, reading or Reading())
    refuse_hopeless(first, settings, first.inputs, first.inputs.open()).close()
    if model.name is not None and os.path.exists(model.name):
        model = replace(model, name=os.path.abspath(model.name))  # workers have other current folders
    execution = execution or Execution()
    options = {
        "engine": engine,
        "engine_options": engine_options,
        "reading": reading,
        "system": system,
        "execution": execution,
        "keep": keep,
    }
    pairs = execution.batch_size if execution.batch_size != "auto" else 64
    work = _Work(worker or Align, (model, settings), options, cluster, BLOCK * pairs)
    output.parent.mkdir(parents=True, exist_ok=True)
    lock = PathLock(beside(output, ".run.json"), str(output))
    try:
        with _connected(cluster), _one_line():
            return _run(paths, form, output, work, watch or _ignore)
    finally:
        lock.release()


@dataclass(frozen=True, slots=True)
class _Work:
    """What workers are made of, how many, and how many rows they get at a time."""

    worker: type
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    cluster: Cluster
    rows: int


def _ignore(lines: int, total: int) -> None:
    """For who does not want to know."""


def _run(paths: Sequence[Path], form: Format, output: Path, work: _Work, watch: Watch) -> Counts:
    from lalign.ray.files import bitmap, numbered, output_lines, survey

    files = numbered(_each(survey, paths))
    last = sum(file.lines for file in files)
    settings = _fingerprint(work)
    settings["files"] = [[file.path.name, file.lines, file.digest] for file in files]
    parts = sorted(output.glob(f"*.{form}")) if output.is_dir() else []
    if parts:
        _compare(output, settings)
    standing = _each(output_lines, parts)
    marks = bitmap([lines for lines, _ in standing], last)
    with faults(str(output)):
        output.mkdir(parents=True, exist_ok=True)
        for torn in output.glob(f".*.{form}.tmp"):
            torn.unlink()
        write_header(output, Header(settings))
    stood = sum(len(lines) for lines, _ in standing)
    total = sum(file.filled for file in files) - stood
    counts = _answer(files, form, marks, output, work, lambda lines: watch(lines, total))
    with faults(str(output)):
        write_header(output, Header(settings, end=End(last, stood + counts.lines)))
    return replace(counts, stood=stood, stood_failures=sum(failures for _, failures in standing))


def _compare(output: Path, settings: Mapping[str, Any]) -> None:
    stored = read_header(output)
    if stored is None:
        raise OutputError(f"{output}: has no header beside it, so its settings are unknown")
    if found := differences(stored.fingerprint, settings):
        raise OutputError(f"{output}: was made with other settings or from other files ({'; '.join(found)})")


def _answer(
    files: Sequence[InputFile], form: Format, marks: Any, output: Path, work: _Work, watch: Callable[[int], None]
) -> Counts:
    import ray
    from ray.data import ActorPoolStrategy, DataContext, read_datasource

    from lalign.ray.pipeline import JsonLinesFiles, NumberedLines, ParquetFiles
    from lalign.ray.progress import watched

    context = DataContext.get_current()
    context.enable_progress_bars = False
    lines = read_datasource(
        NumberedLines(files, ray.put(marks), work.rows),
        override_num_blocks=len(files),  # else Ray cuts blocks further, until there are some hundreds
    )
    answered = lines.repartition(target_num_rows_per_block=work.rows).map_batches(
        work.worker,
        fn_constructor_args=work.arguments,
        fn_constructor_kwargs=work.options,
        batch_size=None,
        batch_format="pyarrow",
        # One block at a time: else the worker that is up first takes several, and others find none.
        compute=ActorPoolStrategy(size=work.cluster.workers, max_tasks_in_flight_per_actor=1),
        num_gpus=work.cluster.gpus_per_worker or None,
    )
    with watched(watch) as written:
        sink = (JsonLinesFiles if form == "jsonl" else ParquetFiles)(str(output), written)
        answered.write_datasink(sink)
    watch(sink.counts.lines)
    return sink.counts


def _fingerprint(work: _Work) -> dict[str, Any]:
    """What all workers work with: told by one of them, as the model may be where only they are."""
    import ray

    def told() -> dict[str, Any] | str:
        try:
            return work.worker(*work.arguments, **work.options).fingerprint()  # type: ignore[no-any-return]
        except LalignError as error:
            return str(error)

    found = ray.get(ray.remote(told).options(num_gpus=work.cluster.gpus_per_worker).remote())
    if isinstance(found, str):
        raise LalignError(found)
    return cast("dict[str, Any]", found)


def _each(function: Callable[[Path], T], paths: Sequence[Path]) -> list[T]:
    """What a function says of each path, as tasks of the cluster."""
    import ray

    remote = ray.remote(function)
    return cast("list[T]", ray.get([remote.remote(path) for path in paths]))


@contextmanager
def _connected(cluster: Cluster) -> Iterator[None]:
    """Connected to the cluster, unless this process is connected already."""
    import ray.data

    if ray.is_initialized():
        yield
        return
    # Ray Data sets a level of its own on import. What Ray's core says goes past Python, to stderr.
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if cluster.address == "local":
        # A worker takes a CPU by Ray's book, and reading and writing must find one too.
        cpus = max(os.cpu_count() or 1, cluster.workers + 2)
        quiet |= {"num_cpus": cpus, "include_dashboard": False}
    try:
        ray.init(address=cluster.address, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise OptionError("ray", f"{cluster.address}: {first_line(error)}") from error
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _one_line() -> Iterator[None]:
    """Turns what failed on the cluster into the one line of a `LalignError`."""
    from ray.exceptions import RayError

    try:
        yield
        return
    except RayError as error:
        # What a worker raised arrives as the text of its traceback, the first cause first.
        found = re.search(r"^(?:[\w.]*\.)?(\w*(?:Error|Exception|Invalid)): (.+)$", str(error), re.MULTILINE)
        kind, said = found.groups() if found else ("", first_line(error))
    # Not raised from Ray's error, by which the actors of the job that failed would live on.
    raise LalignError(said if hasattr(errors, kind) else f"a worker failed: {kind}: {said}")

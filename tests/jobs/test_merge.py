"""Outputs of shards become the output of one job, or it is said why they cannot; nothing is written over."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet
import pytest
from conftest import TinyTokenizer
from hypothesis import given
from hypothesis import strategies as st
from scripted import ScriptedBackend

from lalign.aligner import Aligner
from lalign.errors import OutputError
from lalign.jobs.header import read_header, write_header
from lalign.jobs.job import Job
from lalign.jobs.merge import merge_outputs
from lalign.jobs.output import open_output
from lalign.jobs.reader import JobInput
from lalign.jobs.shard import WHOLE, Shard
from lalign.jobs.signals import Interruption
from lalign.method.linear_alignment import Alignment
from lalign.options import Sampling
from lalign.records.prompts import make_principles
from lalign.records.requests import Settings

SETTINGS = Settings(make_principles(["Be kind."]), sampling=Sampling(max_new_tokens=3, temperature=1.0))
SWEEP = replace(SETTINGS, alignments=tuple(Alignment(ratio=ratio) for ratio in (0, 1, 4)), sweep=True)
SAMPLES = replace(SETTINGS, samples=2)
COUNT = 3


@pytest.fixture(scope="module")
def aligner(tiny_tokenizer: TinyTokenizer) -> Aligner:
    return Aligner(ScriptedBackend(tiny_tokenizer("chatml")))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Lines 1 to 23: every fifth is blank, every seventh asks for nothing, one in the middle cannot be read."""
    path = tmp_path / "in.jsonl"
    lines = [b"" if number % 5 == 0 else line(number) for number in range(1, 24)]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def line(number: int) -> bytes:
    if number == 11:
        return b"{"
    return orjson.dumps({"id": f"n{number}", "prompt": "" if number % 7 == 0 else f"{number}?"})


class Shards:
    """Runs shards of a job over an input, each into a file of its own."""

    def __init__(self, aligner: Aligner, source: Path) -> None:
        self.aligner = aligner
        self.source = source
        self.folder = source.parent

    def run(
        self, name: str, shard: Shard = WHOLE, settings: Settings = SETTINGS, stop: bool = False, **options: Any
    ) -> Path:
        output = self.folder / name
        with open_output(output, **options) as opened:
            job = Job(JobInput(self.source, shard=shard), settings, opened)
            job.start(self.aligner)
            interruption = Interruption()

            def on_outcomes(written: object) -> None:
                interruption.received = 2 if stop and written else None

            job.run(self.aligner, interruption, on_outcomes=on_outcomes)
        return output

    def all(self, settings: Settings = SETTINGS) -> list[Path]:
        return [self.run(f"out.{number}.jsonl", Shard(number, COUNT), settings) for number in range(1, COUNT + 1)]


@pytest.fixture
def shards(aligner: Aligner, source: Path) -> Shards:
    return Shards(aligner, source)


@pytest.fixture
def merged(tmp_path: Path) -> Path:
    return tmp_path / "merged.jsonl"


def strip_headers(paths: list[Path]) -> None:
    for path in paths:
        path.with_name(f"{path.name}.run.json").unlink()


@pytest.mark.parametrize("settings", [SETTINGS, SWEEP, SAMPLES], ids=["plain", "sweep", "samples"])
def test_merged_shards_are_the_output_of_one_job(shards: Shards, merged: Path, settings: Settings) -> None:
    paths = shards.all(settings)
    single = shards.run("single.jsonl", settings=settings)
    told = merge_outputs(paths[::-1], merged)
    assert merged.read_bytes() == single.read_bytes()
    assert read_header(merged) == read_header(single)
    assert (told.lines, told.unknown) == (19, ())
    assert told.records == len(single.read_bytes().splitlines())


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_compressed_shards_merge_into_a_compressed_output(shards: Shards, merged: Path, suffix: str) -> None:
    paths = [shards.run(f"out.{number}.jsonl{suffix}", Shard(number, COUNT)) for number in range(1, COUNT + 1)]
    packed = merged.with_name(f"merged.jsonl{suffix}")
    merge_outputs(paths, packed)
    merge_outputs(paths, merged)
    single = shards.run("single.jsonl")
    assert merged.read_bytes() == single.read_bytes()
    assert packed.read_bytes() == shards.run(f"single.jsonl{suffix}").read_bytes()
    assert read_header(packed) == read_header(single)
    assert {path.name for path in merged.parent.glob("merged.*")} == {
        *(merged.name, f"{merged.name}.run.json"),
        *(packed.name, f"{packed.name}.run.json"),
    }


def test_shards_merge_into_parquet(shards: Shards, merged: Path) -> None:
    path = merged.with_name("merged.parquet")
    merge_outputs(shards.all(), path)
    single = shards.run("single.parquet")
    assert pyarrow.parquet.read_table(path).to_pylist() == pyarrow.parquet.read_table(single).to_pylist()


def test_a_merged_output_can_be_resumed_and_its_errors_retried(shards: Shards, merged: Path) -> None:
    merge_outputs(shards.all(), merged)
    shards.source.write_bytes(
        shards.source.read_bytes().replace(b"{\n", b'{"id": "n11", "prompt": "11?"}\n') + line(24)
    )
    shards.run("merged.jsonl", resume=True, retry_errors=True)
    assert merged.read_bytes() == shards.run("single.jsonl").read_bytes()


def test_shards_without_blank_lines_or_records_merge(shards: Shards, merged: Path) -> None:
    shards.source.write_bytes(line(1) + b"\n" + line(2) + b"\n")
    paths = shards.all()
    assert paths[2].read_bytes() == b""
    assert merge_outputs(paths, merged).records == 2


class TestRefused:
    """Each with one line that names the file; and then there is no output, nor anything beside it."""

    @pytest.fixture(autouse=True)
    def nothing_is_left(self, merged: Path) -> Any:
        yield
        assert not list(merged.parent.glob("merged.jsonl*"))

    def test_a_shard_that_is_missing(self, shards: Shards, merged: Path) -> None:
        with pytest.raises(OutputError, match=r"^of 3 shards these are missing: 2-3$"):
            merge_outputs(shards.all()[:1], merged)

    def test_a_shard_that_is_there_twice(self, shards: Shards, merged: Path) -> None:
        paths = shards.all()
        again = shards.run("again.jsonl", Shard(2, COUNT))
        with pytest.raises(OutputError, match=r"again\.jsonl: is shard 2/3, as .*out\.2\.jsonl is$"):
            merge_outputs([*paths, again], merged)

    def test_shards_of_other_counts(self, shards: Shards, merged: Path) -> None:
        other = shards.run("other.jsonl", Shard(3, 4))
        with pytest.raises(OutputError, match=r"cut differently \(.*out\.1\.jsonl: 1/3, .*other\.jsonl: 3/4\)$"):
            merge_outputs([*shards.all()[:2], other], merged)

    def test_a_shard_whose_job_was_interrupted(self, shards: Shards, merged: Path) -> None:
        paths = shards.all()[:2]
        paths.append(shards.run("out.3.jsonl", Shard(3, COUNT), stop=True, overwrite=True))
        with pytest.raises(OutputError, match=r"out\.3\.jsonl: is not complete: .* lines up to 3 .*--resume ends it$"):
            merge_outputs(paths, merged)
        shards.run("out.3.jsonl", Shard(3, COUNT), resume=True)
        merge_outputs(paths, merged)
        merged.unlink()
        merged.with_name("merged.jsonl.run.json").unlink()

    def test_a_job_of_other_settings(self, shards: Shards, merged: Path) -> None:
        paths = shards.all()
        other = replace(SETTINGS, sampling=replace(SETTINGS.sampling, seed=1))
        shards.run("out.2.jsonl", Shard(2, COUNT), other, overwrite=True)
        with pytest.raises(OutputError, match=r"2\.jsonl: is not of the job of .*1\.jsonl \(seed: 1 .*0 .*\)$"):
            merge_outputs(paths, merged)

    def test_inputs_of_other_lengths(self, shards: Shards, merged: Path) -> None:
        paths = shards.all()
        shards.source.write_bytes(shards.source.read_bytes() + line(24))
        shards.run("out.2.jsonl", Shard(2, COUNT), resume=True)
        with pytest.raises(OutputError, match=r"out\.2\.jsonl: its input ended with line 24, that of .* with line 23"):
            merge_outputs(paths, merged)

    def test_a_header_that_only_some_have(self, shards: Shards, merged: Path) -> None:
        paths = shards.all()
        strip_headers(paths[1:2])
        with pytest.raises(OutputError, match=r"2\.jsonl: has no header beside it \(\.run\.json\), and others have$"):
            merge_outputs(paths, merged)

    @pytest.mark.parametrize(
        ("damage", "says"),
        [
            (lambda data: data[:-5], r"ends in a record that was cut short; --resume answers it$"),
            (lambda data: data[: data.index(b"\n") + 1], r"answers 1 lines, and \d when its job ended$"),
            (lambda data: data + data.splitlines(True)[-1], r"has 2 records of line 23 where 1 belong$"),
            (lambda data: b"{}\n" + data, r"line 1 is not a record"),
            (lambda data: data + b'{"line": 24}\n', r"line 24 is not of shard 2/3$"),
        ],
        ids=["torn", "lost", "doubled", "no record", "of another shard"],
    )
    def test_an_output_that_was_damaged(
        self, shards: Shards, merged: Path, damage: Callable[[bytes], bytes], says: str
    ) -> None:
        paths = shards.all()
        paths[1].write_bytes(damage(paths[1].read_bytes()))
        with pytest.raises(OutputError, match=rf"out\.2\.jsonl: {says}"):
            merge_outputs(paths, merged)

    def test_a_line_of_a_sweep_that_lacks_points(self, shards: Shards, merged: Path) -> None:
        paths = shards.all(SWEEP)
        paths[0].write_bytes(b"".join(paths[0].read_bytes().splitlines(True)[1:]))
        with pytest.raises(OutputError, match=r"out\.1\.jsonl: has 2 of the 3 records of line 1$"):
            merge_outputs(paths, merged)

    def test_lines_that_two_outputs_have(self, shards: Shards, merged: Path) -> None:
        paths = shards.all()
        strip_headers(paths)
        paths[2].write_bytes(paths[1].read_bytes())
        with pytest.raises(OutputError, match=r"^line 2 is in .*out\.2\.jsonl and .*out\.3\.jsonl; line 8 is in "):
            merge_outputs(paths, merged)

    @pytest.mark.parametrize("cut", [-9, -1])
    def test_a_compressed_output_that_was_damaged(self, shards: Shards, merged: Path, cut: int) -> None:
        paths = [shards.run(f"out.{number}.jsonl.gz", Shard(number, COUNT)) for number in range(1, COUNT + 1)]
        paths[1].write_bytes(paths[1].read_bytes()[:cut])
        with pytest.raises(OutputError, match=r"out\.2\.jsonl\.gz: Compressed file ended before"):
            merge_outputs(paths, merged)

    def test_an_output_of_columns(self, shards: Shards, merged: Path) -> None:
        with pytest.raises(OutputError, match=r"out\.parquet: a Parquet file cannot be merged"):
            merge_outputs([shards.run("out.parquet")], merged)

    def test_an_output_that_is_not_there(self, shards: Shards, merged: Path) -> None:
        with pytest.raises(OutputError, match=r"missing\.jsonl: No such file"):
            merge_outputs([shards.folder / "missing.jsonl"], merged)


def test_an_output_that_exists_is_left_alone(shards: Shards) -> None:
    paths = shards.all()
    before = paths[0].read_bytes()
    with pytest.raises(OutputError, match=r"out\.1\.jsonl: exists; nothing is written over it$"):
        merge_outputs(paths, paths[0])
    assert paths[0].read_bytes() == before


def test_without_headers_what_cannot_be_known_is_said(shards: Shards, merged: Path) -> None:
    paths = shards.all()
    strip_headers(paths)
    told = merge_outputs(paths[:2], merged)
    assert told.unknown[0].startswith("no output has a header beside it (.run.json)")
    assert told.unknown[1] == "lines in no output, blank in the input or not answered: 3, 5-6, 9-10, 12, 15, 18, 20-21"
    assert read_header(merged) is None


def test_a_header_of_an_earlier_version_says_nothing_of_the_end(shards: Shards, merged: Path) -> None:
    paths = shards.all()
    header = read_header(paths[0])
    assert header is not None
    write_header(paths[0], replace(header, end=None))
    with pytest.raises(OutputError, match=r"out\.1\.jsonl: is not complete"):
        merge_outputs(paths, merged)


def test_the_output_of_a_whole_job_merges_alone(shards: Shards, merged: Path) -> None:
    single = shards.run("single.jsonl")
    merge_outputs([single], merged)
    assert merged.read_bytes() == single.read_bytes()


@pytest.fixture
def few_files() -> Iterator[None]:
    """No more open files than there are, and twenty."""
    resource = pytest.importorskip("resource", reason="needs limits of Unix")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with tempfile.TemporaryFile() as latest:
        resource.setrlimit(resource.RLIMIT_NOFILE, (latest.fileno() + 20, before[1]))
        yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def bare(line: int) -> bytes:
    return b'{"line": %d, "response": ""}\n' % line


def test_more_parts_than_may_be_open_are_merged(tmp_path: Path, merged: Path, few_files: None) -> None:
    """As a cluster leaves them: each of some lines that follow one another, under names in no order."""
    paths = [tmp_path / f"{(7 * first) % 101}.part" for first in range(100)]
    for first, path in enumerate(paths):
        path.write_bytes(bare(2 * first + 1) + bare(2 * first + 2))
    merge_outputs(sorted(paths), merged)
    assert merged.read_bytes() == b"".join(map(bare, range(1, 201)))


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40))
def test_however_lines_lie_in_the_parts_they_are_merged(owners: list[int]) -> None:
    with tempfile.TemporaryDirectory() as made:
        paths = [Path(made) / f"{part}.jsonl" for part in range(6)]
        for part, path in enumerate(paths):
            path.write_bytes(b"".join(bare(line) for line, owner in enumerate(owners, 1) if owner == part))
        merge_outputs(paths, Path(made) / "merged.jsonl")
        assert (Path(made) / "merged.jsonl").read_bytes() == b"".join(map(bare, range(1, len(owners) + 1)))

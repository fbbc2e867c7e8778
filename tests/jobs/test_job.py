"""A job from its input to its output: what it writes, what it takes up again, and when it refuses to."""

from __future__ import annotations

import datetime
import gzip
import itertools
import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from conftest import CHATML, TinyModel, TinyTokenizer, model_of

from lalign.aligner import Aligner
from lalign.engine.torch_backend import TorchBackend
from lalign.errors import InputError, OutputError
from lalign.jobs import fingerprint as fingerprint_module
from lalign.jobs.header import InputMark, read_header, write_header
from lalign.jobs.job import Job
from lalign.jobs.output import open_output
from lalign.jobs.reader import JobInput
from lalign.jobs.signals import Interruption
from lalign.jobs.writer import BadLine
from lalign.method.aligned import STATISTICS
from lalign.method.linear_alignment import Alignment
from lalign.models.loading import ModelOptions, load
from lalign.options import Execution, Prompting, Sampling
from lalign.records.prompts import make_principles
from lalign.records.requests import Settings
from lalign.records.source import zstd

SETTINGS = Settings(make_principles(["Be kind."]), sampling=Sampling(max_new_tokens=3))
SWEEP = replace(SETTINGS, alignments=tuple(Alignment(ratio=ratio) for ratio in (0, 1, 4)), sweep=True)
SAMPLES = replace(SETTINGS, sampling=Sampling(max_new_tokens=3, temperature=1), samples=3)
# Statistics are sums over rows that other rows share a batch with, so their last digits depend on the batch.
NO_STATISTICS = Execution(batch_size=4, statistics="none")


@pytest.fixture(scope="module")
def aligner(tiny_folder: Path) -> Aligner:
    return Aligner(TorchBackend(load(ModelOptions(str(tiny_folder)))))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"".join(map(prompt, range(1, 21))))
    return path


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def prompt(number: int) -> bytes:
    """A line of input; of every seventh the prompt is blank."""
    text = "" if number % 7 == 0 else f"{'word ' * (number % 5)}{number}?"
    return orjson.dumps({"id": f"n{number}", "prompt": text}) + b"\n"


def run(
    aligner: Aligner,
    source: Path | JobInput,
    output: Path,
    settings: Settings = SETTINGS,
    *,
    system: str | None = None,
    execution: Execution = NO_STATISTICS,
    stop: int | None = None,
    meanwhile: Callable[[], None] = lambda: None,
    **options: Any,
) -> Job:
    """A job from its start to its end, or an interruption after `stop` records; `options` are of the output."""
    with open_output(output, **options) as journal:
        reads = source if isinstance(source, JobInput) else JobInput(source)
        job = Job(reads, settings, journal, system=system, execution=execution)
        job.start(aligner)
        interruption = Interruption()

        def on_outcomes(_: object) -> None:
            meanwhile()
            if stop is not None and job.tally.records >= stop:
                interruption.received = 2

        job.run(aligner, interruption, on_outcomes=on_outcomes)
    return job


def records(output: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in output.read_bytes().splitlines()]


def measured(record: dict[str, Any]) -> tuple[list[float], dict[str, Any]]:
    """The statistics of a record, and what there is else."""
    steps = record.get("steps", {})
    tables = [steps.pop(name) for name in STATISTICS if name in steps]
    summary = record.get("alignment", {}).pop("summary", {})
    return [*itertools.chain(*tables), *summary.values()], record


def cut(output: Path, lines: int) -> None:
    """Leaves the first lines and half of the next, as a job does that was killed."""
    whole = output.read_bytes().splitlines(keepends=True)
    output.write_bytes(b"".join(whole[:lines]) + b"".join(whole[lines : lines + 1])[:50])


class TestRun:
    def test_every_line_has_its_record_in_order(self, aligner: Aligner, source: Path, output: Path) -> None:
        job = run(aligner, source, output)
        assert [record["line"] for record in records(output)] == list(range(1, 21))
        assert [record["line"] for record in records(output) if "error" in record] == [7, 14]
        assert (job.tally.records, job.tally.failures, job.tally.tokens) == (20, 2, 18 * 3)

    @pytest.mark.parametrize(("suffix", "compress"), [(".gz", gzip.compress), (".zst", zstd.compress)])
    def test_compressed_input_is_the_same_input(
        self, aligner: Aligner, source: Path, output: Path, suffix: str, compress: Callable[[bytes], bytes]
    ) -> None:
        packed = source.with_name(f"in.jsonl{suffix}")
        packed.write_bytes(compress(source.read_bytes()))
        run(aligner, packed, output)
        plain = output.with_name("plain.jsonl")
        run(aligner, source, plain)
        assert output.read_bytes() == plain.read_bytes()

    def test_no_more_is_read_than_the_limit(self, aligner: Aligner, source: Path, output: Path) -> None:
        source.write_bytes(prompt(1) * 3 + b"{}\n")
        run(aligner, JobInput(source, limit=3), output)
        assert [record["line"] for record in records(output)] == [1, 2, 3]

    def test_strict_ends_at_the_first_line_that_fails(self, aligner: Aligner, source: Path, output: Path) -> None:
        with pytest.raises(BadLine, match=r"in\.jsonl:7: prompt: must not be blank$"):
            run(aligner, JobInput(source, strict=True), output)
        assert [record["line"] for record in records(output)] == [1, 2, 3, 4, 5, 6]

    def test_an_interruption_leaves_what_is_finished(self, aligner: Aligner, source: Path, output: Path) -> None:
        job = run(aligner, source, output, execution=Execution(batch_size=1, statistics="none"), stop=5)
        assert 5 <= job.tally.records < 20
        assert [record["line"] for record in records(output)] == list(range(1, job.tally.records + 1))

    def test_a_duplicate_id_is_kept_and_told_once(self, aligner: Aligner, source: Path, output: Path) -> None:
        source.write_bytes(b"".join(map(prompt, (1, 2, 1, 2, 1))))
        job = run(aligner, source, output)
        assert [record["id"] for record in records(output)] == ["n1", "n2", "n1", "n2", "n1"]
        assert job.tally.duplicate == f"{source}:3: id 'n1' was given before; all are kept"

    @pytest.mark.parametrize("ids", [(-1, -2), ("1", 1), (None, None), (2**64 - 1, -(2**63))])
    def test_ids_that_differ_are_no_duplicates(
        self, aligner: Aligner, source: Path, output: Path, ids: tuple[Any, Any]
    ) -> None:
        source.write_bytes(b"".join(orjson.dumps({"id": given, "prompt": "Hi"}) + b"\n" for given in ids))
        assert run(aligner, source, output).tally.duplicate is None

    def test_what_the_records_of_this_run_ask_for_in_vain_is_counted(
        self, aligner: Aligner, source: Path, output: Path
    ) -> None:
        source.write_bytes(b'{"prompt": "Hi", "n": 2}\n' * 5)
        assert run(aligner, source, output).tally.notices.lines("in") == ["in: ignored n in 5 records"]
        cut(output, 3)
        resumed = run(aligner, source, output, resume=True)
        assert resumed.tally.notices.lines("in") == ["in: ignored n in 2 records"]

    def test_an_input_of_another_format_is_told_when_the_job_is_made(self, source: Path, output: Path) -> None:
        source.write_bytes(b'[{"prompt": "Hi"}]')
        with open_output(output) as opened, pytest.raises(InputError, match="is a JSON array, not JSON Lines"):
            Job(JobInput(source), SETTINGS, opened)

    def test_the_lines_to_come_are_counted(self, aligner: Aligner, source: Path, output: Path) -> None:
        with open_output(output) as journal:
            assert Job(JobInput(source), SETTINGS, journal).remaining() == 20
            assert Job(JobInput(source, limit=4), SETTINGS, journal).remaining() == 4
            several = replace(SETTINGS, sampling=replace(SETTINGS.sampling, temperature=1.0), samples=3)
            assert Job(JobInput(source, limit=4), several, journal).remaining() == 12
            packed = source.with_name("in.jsonl.gz")
            packed.write_bytes(gzip.compress(source.read_bytes()))
            assert Job(JobInput(packed), SETTINGS, journal).remaining() is None

    def test_a_sweep_has_a_record_of_each_point_and_one_of_a_line_that_fails(
        self, aligner: Aligner, source: Path, output: Path
    ) -> None:
        run(aligner, source, output, SWEEP)
        by_line = itertools.groupby(records(output), key=lambda record: record["line"])
        found = {line: [record.get("alignment", {}).get("ratio") for record in group] for line, group in by_line}
        assert found == {line: [None] if line % 7 == 0 else [0, 1, 4] for line in range(1, 21)}


class TestResume:
    @pytest.mark.parametrize("settings", [SETTINGS, SWEEP, SAMPLES], ids=["one point", "sweep", "samples"])
    @pytest.mark.parametrize("lines", [0, 1, 7, 13, 19])
    def test_cut_anywhere_it_comes_out_as_if_it_had_not_been(
        self, aligner: Aligner, source: Path, output: Path, settings: Settings, lines: int
    ) -> None:
        run(aligner, source, output, settings)
        uninterrupted = output.read_bytes()
        cut(output, lines)
        job = run(aligner, source, output, settings, resume=True)
        assert output.read_bytes() == uninterrupted
        assert job.resumed.records == lines

    def test_with_sampling_too(self, aligner: Aligner, source: Path, output: Path) -> None:
        sampled = replace(SETTINGS, sampling=Sampling(max_new_tokens=3, temperature=1.0, seed=5))
        run(aligner, source, output, sampled)
        uninterrupted = output.read_bytes()
        cut(output, 6)
        run(aligner, source, output, sampled, resume=True)
        assert output.read_bytes() == uninterrupted

    def test_with_statistics_all_but_their_last_digits_are_the_same(
        self, aligner: Aligner, source: Path, output: Path
    ) -> None:
        steps = Execution(batch_size=4)
        run(aligner, source, output, execution=steps)
        uninterrupted = records(output)
        cut(output, 6)
        run(aligner, source, output, execution=steps, resume=True)
        for found, wanted in zip(map(measured, records(output)), map(measured, uninterrupted), strict=True):
            assert found[0] == pytest.approx(wanted[0], rel=1e-3, abs=1e-4)
            assert found[1] == wanted[1]

    def test_what_is_answered_is_not_run_again(self, aligner: Aligner, source: Path, output: Path) -> None:
        run(aligner, source, output)
        cut(output, 15)
        job = run(aligner, source, output, resume=True)
        assert (job.tally.records, job.tally.skipped) == (5, 15)
        assert aligner.counters.prompts == 5

    def test_where_all_is_answered_no_prompt_is_run(self, aligner: Aligner, source: Path, output: Path) -> None:
        run(aligner, source, output)
        before = output.read_bytes()
        job = run(aligner, source, output, resume=True)
        assert output.read_bytes() == before
        assert (job.remaining(), job.tally.records, job.tally.skipped) == (0, 0, 20)
        assert (aligner.counters.prompts, aligner.counters.steps) == (0, 0)

    def test_an_input_that_grew_at_its_end_is_taken_up(self, aligner: Aligner, source: Path, output: Path) -> None:
        whole = source.read_bytes()
        source.write_bytes(b"".join(map(prompt, range(1, 11))))
        run(aligner, source, output)
        source.write_bytes(whole)
        run(aligner, source, output, resume=True)
        grown = output.read_bytes()
        run(aligner, source, output, overwrite=True)
        assert output.read_bytes() == grown

    @pytest.mark.parametrize(
        ("numbers", "message"),
        [
            ([99, *range(2, 21)], "the first 20 lines of the input are not those the output answers"),
            ([*range(1, 20), 99], "the first 20 lines of the input are not those the output answers"),
            (range(1, 20), "the input has lost some of the 20 lines the output answers"),
        ],
        ids=["first line changed", "last line changed", "last line lost"],
    )
    def test_an_input_that_changed_above_is_refused(
        self, aligner: Aligner, source: Path, output: Path, numbers: list[int], message: str
    ) -> None:
        run(aligner, source, output)
        before = output.read_bytes()
        source.write_bytes(b"".join(map(prompt, numbers)))
        with pytest.raises(InputError, match=message):
            run(aligner, source, output, resume=True)
        assert output.read_bytes() == before
        run(aligner, source, output, resume=True, force=True)

    def test_errors_stand(self, aligner: Aligner, source: Path, output: Path) -> None:
        run(aligner, source, output)
        job = run(aligner, source, output, resume=True)
        assert (job.resumed.failures, job.tally.failures) == (2, 0)

    def test_errors_are_answered_again_where_that_is_asked_for(
        self, aligner: Aligner, source: Path, output: Path
    ) -> None:
        """An error that lay in the line comes again; one that lay in the model's day does not."""
        run(aligner, source, output)
        uninterrupted = output.read_bytes()
        lost = orjson.dumps({"id": "n3", "line": 3, "error": {"type": "out_of_memory", "message": "no room"}})
        whole = uninterrupted.splitlines()
        output.write_bytes(b"\n".join([*whole[:2], lost, *whole[3:], b""]))
        job = run(aligner, source, output, resume=True, retry_errors=True)
        assert output.read_bytes() == uninterrupted
        assert (job.tally.records, job.tally.failures) == (3, 2)

    def test_of_another_input_nothing_is_answered_again(self, aligner: Aligner, source: Path, output: Path) -> None:
        """What is answered is compared before anything is redone, or put in its place."""
        run(aligner, source, output)
        before = {path.name: path.read_bytes() for path in output.parent.glob("out*")}
        source.write_bytes(b"".join(map(prompt, range(21, 41))))
        with pytest.raises(InputError, match="the first 20 lines of the input are not those the output answers"):
            run(aligner, source, output, resume=True, retry_errors=True)
        assert {path.name: path.read_bytes() for path in output.parent.glob("out*")} == before
        assert aligner.counters.prompts == 0

    def test_lines_that_failed_are_corrected_and_answered_again(
        self, aligner: Aligner, source: Path, output: Path
    ) -> None:
        lines = list(map(prompt, range(1, 21)))
        run(aligner, source, output)
        lines[6] = prompt(1)
        source.write_bytes(b"".join(lines))
        job = run(aligner, source, output, resume=True, retry_errors=True)
        assert (job.tally.records, job.tally.failures, job.tally.skipped) == (2, 1, 18)
        run(aligner, source, output.with_name("anew.jsonl"))
        assert output.read_bytes() == output.with_name("anew.jsonl").read_bytes()
        # From now on the corrected line is one that is answered.
        source.write_bytes(b"".join(map(prompt, range(1, 21))))
        with pytest.raises(InputError, match="the first 20 lines"):
            run(aligner, source, output, resume=True)

    def test_a_line_that_was_answered_may_not_be_changed_with_those_that_failed(
        self, aligner: Aligner, source: Path, output: Path
    ) -> None:
        lines = list(map(prompt, range(1, 21)))
        run(aligner, source, output)
        before = output.read_bytes()
        lines[6], lines[7] = prompt(1), prompt(9)
        source.write_bytes(b"".join(lines))
        with pytest.raises(InputError, match="the first 20 lines"):
            run(aligner, source, output, resume=True, retry_errors=True)
        assert output.read_bytes() == before

    @pytest.mark.parametrize("settings", [SETTINGS, SWEEP, SAMPLES], ids=["one point", "sweep", "samples"])
    @pytest.mark.parametrize("headed", [True, False], ids=["under the header", "behind the header"])
    def test_a_line_taken_out_of_the_middle_is_missed(
        self, aligner: Aligner, source: Path, output: Path, settings: Settings, headed: bool
    ) -> None:
        """Also of an output whose job was killed before it could bring its header up."""
        run(aligner, source, output, settings)
        if not headed:
            header = read_header(output)
            assert header is not None
            write_header(output, replace(header, input=InputMark()))
        kept = [raw for raw in output.read_bytes().splitlines(keepends=True) if orjson.loads(raw)["line"] != 9]
        output.write_bytes(b"".join(kept))
        with pytest.raises(InputError, match="line 9 of the input has no record in the output"):
            run(aligner, source, output, settings, resume=True)
        assert output.read_bytes() == b"".join(kept)

    def test_an_output_that_is_cut_while_it_is_written_is_told(
        self, aligner: Aligner, source: Path, output: Path
    ) -> None:
        def cut_short() -> None:
            if output.exists():
                os.truncate(output, 0)

        with pytest.raises(OutputError, match="was changed by another process while the job wrote it"):
            run(aligner, source, output, meanwhile=cut_short)


class TestFingerprint:
    @pytest.mark.parametrize(
        ("name", "changed"),
        [
            ("ratio", {"alignments": (Alignment(ratio=2),)}),
            ("p", {"alignments": (Alignment(p=float("inf")),)}),
            ("recipe", {"alignments": (Alignment(recipe="paper"),)}),
            ("max_kl", {"alignments": (Alignment(max_kl=1.0),)}),
            ("points", {"alignments": SWEEP.alignments, "sweep": True}),
            ("principle", {"principles": make_principles(["Be very kind."])}),
            ("weight", {"principles": make_principles(["Be kind."], [2])}),
            ("contrast", {"principles": make_principles(["Be kind."], contrast="Be cruel.")}),
            ("placement", {"prompting": Prompting("user")}),
            ("chat_template_kwargs", {"prompting": Prompting(chat_template_kwargs={"enable_thinking": False})}),
            ("prefill", {"prompting": Prompting(prefill="So")}),
            ("logprobs", {"logprobs": 2}),
            ("allow_special_tokens", {"prompting": Prompting(allow_special_tokens=True)}),
            ("max_new_tokens", {"sampling": Sampling(max_new_tokens=4)}),
            ("temperature", {"sampling": Sampling(max_new_tokens=3, temperature=1)}),
            ("seed", {"sampling": Sampling(max_new_tokens=3, seed=1)}),
            ("stop", {"sampling": Sampling(max_new_tokens=3, stop=("x",))}),
        ],
    )
    def test_other_settings_are_refused_by_name(
        self, aligner: Aligner, source: Path, output: Path, name: str, changed: dict[str, Any]
    ) -> None:
        self.assert_refused(aligner, source, output, name, settings=replace(SETTINGS, **changed))

    def test_so_are_other_statistics_another_system_message_and_keeping_the_input(
        self, aligner: Aligner, source: Path, output: Path
    ) -> None:
        self.assert_refused(aligner, source, output, "stats", execution=Execution())
        self.assert_refused(aligner, source, output, "system", system="Be brief.")
        self.assert_refused(aligner, JobInput(source, keep=True), output, "keep")

    @pytest.mark.parametrize("library", ["torch", "transformers"])
    def test_so_are_other_versions(
        self, aligner: Aligner, source: Path, output: Path, library: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run(aligner, source, output)
        monkeypatch.setattr(fingerprint_module, "version", lambda name: "9.9" if name == library else "1.0")
        with pytest.raises(OutputError, match=rf"{library}: '\d.*' in the output, '9\.9' now"):
            run(aligner, source, output, resume=True)

    def test_so_is_another_model(
        self, aligner: Aligner, source: Path, output: Path, tiny_model: TinyModel, tiny_tokenizer: TinyTokenizer
    ) -> None:
        folder = output.with_name("other")
        tiny_model("llama", intermediate_size=48).save_pretrained(folder)
        tiny_tokenizer("chatml").save_pretrained(folder)
        other = Aligner(TorchBackend(load(ModelOptions(str(folder)))))
        self.assert_refused(aligner, source, output, "model", other=other)

    def test_the_same_model_elsewhere_is_the_same_model(
        self, aligner: Aligner, source: Path, output: Path, tiny_folder: Path
    ) -> None:
        folder = shutil.copytree(tiny_folder, output.with_name("copy"))
        run(aligner, source, output)
        run(Aligner(TorchBackend(load(ModelOptions(str(folder))))), source, output, resume=True)

    def test_so_is_a_template_that_prints_another_day(
        self,
        tmp_path: Path,
        tiny_model: TinyModel,
        tiny_tokenizer: TinyTokenizer,
        source: Path,
        output: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        dated = CHATML.replace("{{ message['content'] }}", "{{ strftime_now('%d %B %Y') }}: {{ message['content'] }}")
        tiny_model("llama").save_pretrained(tmp_path / "dated")
        tiny_tokenizer(dated).save_pretrained(tmp_path / "dated")
        aligner = Aligner(TorchBackend(load(ModelOptions(str(tmp_path / "dated")))))
        set_day(monkeypatch, 24)
        run(aligner, source, output)
        cut(output, 10)
        run(aligner, source, output, resume=True)
        cut(output, 10)
        before = output.read_bytes()
        set_day(monkeypatch, 25)
        with pytest.raises(OutputError, match=r"rendered: .*24 November 2026.* in the output, .*25 November") as error:
            run(aligner, source, output, resume=True)
        assert error.match("; the chat template writes prompts in another way than it did, as one .* prints the date")
        assert output.read_bytes() == before

    def test_how_a_job_runs_is_no_setting(self, aligner: Aligner, source: Path, output: Path) -> None:
        run(aligner, JobInput(source, limit=7), output)
        other = Execution(batch_size=2, memory_share=0.5, statistics="none")
        job = run(aligner, JobInput(source, strict=False), output, execution=other, resume=True)
        assert job.tally.records == 13

    def test_force_takes_other_settings(self, aligner: Aligner, source: Path, output: Path) -> None:
        run(aligner, source, output)
        cut(output, 10)
        run(aligner, source, output, SWEEP, resume=True, force=True)
        assert len(records(output)) > 20

    def assert_refused(
        self,
        aligner: Aligner,
        source: Path | JobInput,
        output: Path,
        name: str,
        *,
        other: Aligner | None = None,
        **changed: Any,
    ) -> None:
        read = source.path if isinstance(source, JobInput) else source
        assert read is not None
        run(aligner, read, output, overwrite=True)
        before = output.read_bytes()
        with pytest.raises(OutputError, match=rf"out\.jsonl: was made with other settings \((.*; )?{name}: ") as error:
            run(other or aligner, source, output, resume=True, **changed)
        assert error.match(r"\); --force resumes it all the same$")
        assert output.read_bytes() == before


def set_day(monkeypatch: pytest.MonkeyPatch, day: int) -> None:
    """The day that chat templates see."""

    class Now(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Now:
            return cls(2026, 11, day)

    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Now)


class TestFaults:
    """Faults of the model, at passes over prompts and at steps, which a process of its own could not be given."""

    @pytest.mark.parametrize("seed", range(6))
    def test_running_out_of_memory_at_random_changes_no_byte(
        self, aligner: Aligner, source: Path, output: Path, seed: int
    ) -> None:
        """Now and then, and the first time, there is no memory for more than one pair."""
        run(aligner, source, output)
        uninterrupted = output.read_bytes()
        chance = random.Random(seed)
        fates = itertools.chain([True], (chance.random() < 0.3 for _ in itertools.count()))
        with out_of_memory(aligner, lambda number, rows: rows > 2 and next(fates)):
            execution = Execution(batch_size=16, statistics="none")
            job = run(aligner, source, output, execution=execution, overwrite=True)
        assert output.read_bytes() == uninterrupted
        assert job.tally.batch_halvings == aligner.counters.batch_halvings > 0
        assert job.tally.failures == 2

    def test_a_record_for_which_there_is_no_memory_even_alone_has_an_error(
        self, aligner: Aligner, source: Path, output: Path
    ) -> None:
        run(aligner, source, output)
        uninterrupted = records(output)
        with out_of_memory(aligner, lambda number, rows: number == 4):
            run(aligner, source, output, execution=Execution(batch_size=1, statistics="none"), overwrite=True)
        assert errors_beyond(uninterrupted, records(output)) == ["out_of_memory"]

    @pytest.mark.parametrize("passed", [0, 3])
    def test_a_record_whose_logits_turn_nan_has_an_error(
        self, aligner: Aligner, source: Path, output: Path, passed: int
    ) -> None:
        run(aligner, source, output)
        uninterrupted = records(output)
        with first_row_not_finite(aligner, passed):
            run(aligner, source, output, overwrite=True)
        assert errors_beyond(uninterrupted, records(output)) == ["not_finite"]


@contextmanager
def out_of_memory(aligner: Aligner, fails: Callable[[int, int], bool]) -> Iterator[None]:
    """Forward passes run out of memory where `fails(number, rows)`; that of the shared prefix, one row, does not."""
    number = itertools.count()

    def hook(model: Any, arguments: Any, given: dict[str, Any]) -> None:
        rows = len(given["input_ids"])
        if rows > 1 and fails(next(number), rows):
            raise torch.OutOfMemoryError("no memory for this pass")

    registered = model_of(aligner).register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        registered.remove()


@contextmanager
def first_row_not_finite(aligner: Aligner, passed: int) -> Iterator[None]:
    """The logits of the first row are nan in this forward pass, that of the shared prefix not counted."""
    number = itertools.count()

    def hook(model: Any, arguments: Any, given: dict[str, Any], output: Any) -> Any:
        if len(given["input_ids"]) > 1 and next(number) == passed:
            output.logits[0] = torch.nan
        return output

    registered = model_of(aligner).register_forward_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        registered.remove()


def errors_beyond(wanted: list[dict[str, Any]], found: list[dict[str, Any]]) -> list[str]:
    """The types of errors where another record was wanted; all other records must be those wanted."""
    different = [record for record, expected in zip(found, wanted, strict=True) if record != expected]
    return [record["error"]["type"] for record in different]

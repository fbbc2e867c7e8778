"""The program as its users run it: files and pipes in, records out, one line for each thing that is wrong."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import orjson
import pytest
import typer
from browser import page_data
from conftest import SAMPLES, Finished, Lalign, Pipe

import lalign as package
from lalign.cli import invocation
from lalign.cli import run as cli
from lalign.cli.arguments import AlignmentArguments, ModelArguments, OutputArguments, RunArguments, SamplingArguments
from lalign.method.recipes import RECIPES

PROGRAM = [sys.executable, "-m", "lalign"]
PROMPTS = [{"id": f"n{number}", "prompt": f"{number} and {number}?"} for number in range(1, 7)]
HOSTILE = "\x1b]0;owned\x07[bold red]\u202e\r\n"


def lines(*records: Any) -> bytes:
    return b"".join(orjson.dumps(record) + b"\n" for record in records)


def only_line(finished: Finished) -> str:
    """The one line on stderr, of a command that wrote nothing else."""
    assert finished.out == b""
    assert re.fullmatch(r"lalign: [^\n]+\n", finished.err), finished.err
    return finished.err.removeprefix("lalign: ").rstrip("\n")


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_bytes(lines(*PROMPTS))
    return path


class TestRecords:
    @pytest.mark.parametrize("source", [[], ["-"]], ids=["no name", "dash"])
    def test_stdin_goes_to_stdout_in_its_order(self, lalign: Lalign, source: list[str]) -> None:
        finished = lalign.generate("--batch-size", 2, *source, stdin=lines(*PROMPTS))
        assert finished.status == 0
        assert [record["id"] for record in finished.records] == [prompt["id"] for prompt in PROMPTS]
        assert [record["line"] for record in finished.records] == [1, 2, 3, 4, 5, 6]

    def test_a_file_goes_to_a_file(self, lalign: Lalign, prompts: Path, tmp_path: Path) -> None:
        finished = lalign.generate("in.jsonl", "-o", "out.jsonl", "--stats", "none")
        assert (finished.status, finished.out) == (0, b"")
        assert "6 records to out.jsonl" in finished.err
        assert (tmp_path / "out.jsonl").read_bytes() == lalign.generate("in.jsonl", "--stats", "none").out

    def test_a_line_leaves_before_the_input_ends(self, lalign: Lalign) -> None:
        with Pipe() as stdin, Pipe() as stdout, open(os.devnull, "wb") as stderr:
            process = lalign.start("generate", *lalign.tiny, stdin=stdin.reader, stdout=stdout.writer, stderr=stderr)
            for prompt in PROMPTS[:2]:
                stdin.writer.write(lines(prompt))
                assert orjson.loads(stdout.reader.readline())["id"] == prompt["id"]
            stdin.writer.close()
            assert lalign.wait(process) == 0

    def test_an_input_without_records_gives_none(self, lalign: Lalign) -> None:
        finished = lalign.generate(stdin=b"\n\n")
        assert (finished.status, finished.out) == (0, b"")

    def test_every_input_form_is_answered(self, lalign: Lalign) -> None:
        hh = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: And?\n\nAssistant: This goes"
        forms = [
            {"prompt": "Hi"},
            {"messages": [{"role": "system", "content": "Short."}, {"role": "user", "content": "Hi"}]},
            {"custom_id": "batch", "body": {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}},
            {"chosen": hh},
        ]
        finished = lalign.generate(stdin=lines(*forms))
        assert finished.status == 0
        assert [record["id"] for record in finished.records] == [1, 2, "batch", 4]
        assert finished.records[2]["usage"]["completion_tokens"] == 2

    def test_lines_that_cannot_be_used_have_error_records_in_their_place(self, lalign: Lalign) -> None:
        bad = [
            b"{not json}\n",
            b"[1]\n",
            b'{"id": "x", "prompt": "\xff"}\n',
            b"{}\n",
            b'{"prompt": " "}\n',
            b'{"prompt": 1}\n',
            b'{"messages": [{"role": "judge", "content": "Hi"}]}\n',
            b'{"messages": [{"role": "assistant", "content": "Hi"}]}\n',
            lines({"id": "long", "prompt": "words " * 500}),
            b'{"prompt": "Hi", "ratio": -1}\n',
        ]
        types = [
            "invalid_json", "not_an_object", "invalid_utf8", "missing_prompt", "empty_prompt", "invalid_type",
            "unknown_role", "no_user_turn", "context_length", "invalid_option",
        ]  # fmt: skip
        finished = lalign.generate(stdin=lines(PROMPTS[0]) + b"".join(bad) + lines(PROMPTS[1]))
        first, *errors, last = finished.records
        assert finished.status == 1
        assert (first["id"], last["id"]) == ("n1", "n2")
        assert [error["error"]["type"] for error in errors] == types
        assert [error["line"] for error in errors] == list(range(2, 12))
        assert all(set(error) == {"id", "line", "error"} for error in errors)
        assert errors[8]["id"] == "long"
        for number, error in enumerate(errors, start=2):
            assert f"lalign: stdin:{number}: {error['error']['message']}\n" in finished.err

    @pytest.mark.parametrize("quiet", [[], ["--quiet"]], ids=["", "quiet"])
    def test_what_records_ask_for_in_vain_is_told_once_at_the_end(self, lalign: Lalign, quiet: list[str]) -> None:
        body = {"messages": [{"role": "user", "content": "Hi"}], "logit_bias": {"1": 2}}
        given = [{"body": body}, {"body": {**body, "stream": True}}, {"question": "Hi", "Ratio": 0}]
        finished = lalign.generate(*quiet, stdin=lines(*given))
        assert finished.status == 0
        told = [line for line in finished.err.splitlines() if line.startswith("lalign: ")]
        assert told == [
            "lalign: stdin: prompts were read from question in 1 record",
            "lalign: stdin: ignored body.logit_bias in 2 records, body.stream in 1, Ratio in 1",
        ]

    @pytest.mark.parametrize(
        ("name", "data", "told"),
        [
            ("in.jsonl", b'[{"prompt": "Hi"}]', r"is a JSON array, .*: jq -c '\.\[\]' in\.jsonl"),
            ("in.jsonl", '{"prompt": "Hi"}'.encode("utf-16"), r"is UTF-16, .*: iconv -f UTF-16 -t UTF-8 in\.jsonl"),
            ("in.zip", b"PK\x03\x04", r"is a zip archive, .*: unzip -p in\.zip"),
            ("folder", None, "is a folder, not a file"),
        ],
    )
    @pytest.mark.parametrize("command", ["generate", "sweep", "bench"])
    def test_another_format_is_refused_before_the_model_is_loaded(
        self, lalign: Lalign, tmp_path: Path, name: str, data: bytes | None, told: str, command: str
    ) -> None:
        if data is None:
            (tmp_path / name).mkdir()
        else:
            (tmp_path / name).write_bytes(data)
        finished = lalign(command, name, "--principle", "principle.txt", "--model", "/nonexistent")
        assert finished.status == 2
        assert re.fullmatch(rf"{re.escape(name)}: {told}", only_line(finished))

    def test_without_any_principle_a_line_needs_its_own(self, lalign: Lalign, tiny_folder: Path) -> None:
        own = {"prompt": "Hi", "principle": "Be brief.", "max_new_tokens": 1}
        finished = lalign("generate", "--model", tiny_folder, stdin=lines(own, {"prompt": "Hi"}))
        assert finished.status == 1
        assert finished.records[0]["usage"]["principle_tokens"] > 0
        assert finished.records[1]["error"]["type"] == "missing_principle"


class TestOptions:
    def test_keep_copies_the_input_object(self, lalign: Lalign) -> None:
        given = {"prompt": "Hi", "meta": {"source": [1, 2.5, None]}}
        plain, kept = (lalign.generate(*option, stdin=lines(given)) for option in ([], ["--keep"]))
        assert kept.records[0]["input"] == given
        assert "input" not in plain.records[0]

    def test_limit_reads_no_further(self, lalign: Lalign, prompts: Path) -> None:
        assert [record["line"] for record in lalign.generate("in.jsonl", "--limit", 2).records] == [1, 2]

    @pytest.mark.parametrize(
        ("stats", "has_steps", "has_summary"), [("steps", True, True), ("summary", False, True), ("none", False, False)]
    )
    def test_stats_says_which_statistics_are_written(
        self, lalign: Lalign, stats: str, has_steps: bool, has_summary: bool
    ) -> None:
        (record,) = lalign.generate("--stats", stats, stdin=lines(PROMPTS[0])).records
        assert ("steps" in record, "summary" in record["alignment"]) == (has_steps, has_summary)

    def test_quiet_leaves_errors_alone_on_stderr(self, lalign: Lalign) -> None:
        finished = lalign.generate("--quiet", stdin=lines(PROMPTS[0], {}))
        assert finished.err == "lalign: stdin:2: needs one of: messages, prompt, body.messages, chosen\n"

    def test_stop_cuts_a_response_where_the_text_begins(self, lalign: Lalign) -> None:
        (whole,) = lalign.generate(stdin=lines(PROMPTS[0])).records
        cut = whole["response"][1]
        (record,) = lalign.generate("--stop", cut, "--stop", "never said", stdin=lines(PROMPTS[0])).records
        assert record["response"] == whole["response"][: whole["response"].index(cut)]
        assert record["finish_reason"] == "stop"

    def test_system_is_shared_by_both_twins(self, lalign: Lalign, tmp_path: Path) -> None:
        (tmp_path / "system.txt").write_text("You are a very old lighthouse keeper.")
        (plain,) = lalign.generate(stdin=lines(PROMPTS[0])).records
        (record,) = lalign.generate("--system", "system.txt", stdin=lines(PROMPTS[0])).records
        assert record["usage"]["prompt_tokens"] > plain["usage"]["prompt_tokens"] + 20
        assert record["usage"]["principle_tokens"] < plain["usage"]["principle_tokens"] + 5

    def test_placement_is_in_the_record_and_in_the_prompt(self, lalign: Lalign) -> None:
        usual, placed = (
            lalign.generate(*arguments, stdin=lines(*PROMPTS)).records for arguments in ((), ("--placement", "user"))
        )
        assert [record["alignment"]["placement"] for record in usual + placed] == (
            ["joined"] * len(PROMPTS) + ["user"] * len(PROMPTS)
        )
        assert [record["usage"]["prompt_tokens"] for record in placed] == [
            record["usage"]["prompt_tokens"] for record in usual
        ]
        assert [record["usage"]["principle_tokens"] for record in placed] != [
            record["usage"]["principle_tokens"] for record in usual
        ]

    def test_special_tokens_in_a_prompt_are_text_unless_they_are_allowed(self, lalign: Lalign) -> None:
        (text,) = lalign.generate(stdin=lines({"prompt": "Hi<|im_end|>"})).records
        (allowed,) = lalign.generate("--allow-special-tokens", stdin=lines({"prompt": "Hi<|im_end|>"})).records
        assert text["usage"]["prompt_tokens"] > allowed["usage"]["prompt_tokens"]

    def test_a_record_overrides_the_options_of_the_job(self, lalign: Lalign) -> None:
        own = {"prompt": "Hi", "ratio": 1.5, "p": "inf", "max_new_tokens": 2, "principle": "Be loud and proud."}
        job, record = lalign.generate("--ratio", 2, stdin=lines({"prompt": "Hi"}, own)).records
        assert (job["alignment"]["ratio"], job["alignment"]["p"]) == (2, 2)
        assert (record["alignment"]["ratio"], record["alignment"]["p"]) == (1.5, "inf")
        assert record["usage"]["completion_tokens"] == 2
        assert record["usage"]["principle_tokens"] > job["usage"]["principle_tokens"]

    def test_weights_add_principles_up(self, lalign: Lalign, tmp_path: Path) -> None:
        """Two principles, one of them of no weight, are one; of half the weight each, the same twice is one."""
        (tmp_path / "other.txt").write_text("Speak like a pirate of the seven seas.")
        other = ("--principle", "other.txt")

        def answers(*options: object) -> list[list[int]]:
            records = lalign.generate(*options, "--max-new-tokens", 8, stdin=lines(*PROMPTS)).records
            return [record["steps"]["token_ids"] for record in records]

        alone = answers()
        assert answers(*other, "--weight", 1, "--weight", 0) == alone
        assert answers("--principle", "principle.txt", "--weight", 0.5, "--weight", 0.5) == alone
        assert answers(*other) != alone

    def test_contrast_takes_the_base_twins_place(self, lalign: Lalign, tmp_path: Path) -> None:
        (tmp_path / "contrast.txt").write_text("Be as cruel as you can.")
        (plain,) = lalign.generate(stdin=lines(PROMPTS[0])).records
        (record,) = lalign.generate("--contrast", "contrast.txt", stdin=lines(PROMPTS[0])).records
        assert record["usage"]["prompt_tokens"] > plain["usage"]["prompt_tokens"]

    def test_a_contrast_that_is_the_principle_aligns_nothing(self, lalign: Lalign) -> None:
        (record,) = lalign.generate("--contrast", "principle.txt", stdin=lines(PROMPTS[0])).records
        assert record["alignment"]["summary"]["kl_aligned_base_max"] == pytest.approx(0, abs=1e-5)

    def test_a_recipe_sets_the_options_and_an_option_overrides_it(self, lalign: Lalign) -> None:
        (record,) = lalign.generate("--recipe", "released", "--support", "none", stdin=lines(PROMPTS[0])).records
        wanted = {"recipe": "released", "ratio": 2.0, "p": 2.0, "scale": "relative", "anchor": "principle"}
        assert record["alignment"].items() >= (wanted | {"support": "none"}).items()

    def test_an_option_of_a_record_that_its_recipe_does_not_take_fails_that_line(self, lalign: Lalign) -> None:
        finished = lalign.generate(
            "--recipe", "opad", stdin=lines({"prompt": "Hi", "p": 3}, {"prompt": "Hi", "ratio": 2})
        )
        first, second = finished.records
        assert first["error"] == {"type": "invalid_option", "message": "p: is no option of recipe opad"}
        assert second["alignment"].items() >= {"recipe": "opad", "ratio": 2.0, "support": "none"}.items()
        assert "p" not in second["alignment"]

    def test_the_seed_decides_what_is_drawn(self, lalign: Lalign) -> None:
        def drawn(seed: int) -> list[str]:
            finished = lalign.generate("--temperature", 1, "--seed", seed, stdin=lines(*PROMPTS))
            return [record["response"] for record in finished.records]

        assert drawn(1) == drawn(1)
        assert drawn(1) != drawn(2)

    def test_strict_ends_at_the_first_line_that_cannot_be_answered(self, lalign: Lalign, tmp_path: Path) -> None:
        (tmp_path / "in.jsonl").write_bytes(lines(*PROMPTS[:3], {"prompt": "Hi", "p": 0.5}, *PROMPTS[3:]))
        finished = lalign.generate("in.jsonl", "--strict", "--quiet", "-o", "out.jsonl")
        assert finished.status == 1
        assert only_line(finished) == "in.jsonl:4: p: must be a number of at least 1 (inf allowed), not 0.5"
        written = [orjson.loads(line)["line"] for line in (tmp_path / "out.jsonl").read_bytes().splitlines()]
        assert written == [1, 2, 3]


# Arguments, and what the one line on stderr says. The model does not exist either, which must not come to light.
BAD_USAGE: list[tuple[str, str]] = [
    ("in.jsonl --principle gone.txt", "--principle: gone.txt: No such file or directory"),
    ("in.jsonl --principle empty.txt", "--principle: empty.txt: is empty"),
    ("in.jsonl --principle .", "--principle: .: Is a directory"),
    ("in.jsonl --principle latin.txt", "--principle: latin.txt: not UTF-8 at byte 3"),
    ("in.jsonl --principle gone.txt -o out.jsonl", "--principle: gone.txt: No such file or directory"),
    ("in.jsonl --contrast gone.txt", "--contrast: gone.txt: No such file or directory"),
    ("in.jsonl --system empty.txt", "--system: empty.txt: is empty"),
    ("gone.jsonl", "gone.jsonl: No such file or directory"),
    (".", r"\.: is a folder, not a file; for all of its \.jsonl files: cat \./\*\.jsonl"),
    ("gone/in.jsonl.gz", "gone/in.jsonl.gz: No such file or directory"),
    ("in.jsonl -o gone/out.jsonl", "gone/out.jsonl: its folder does not exist"),
    ("in.jsonl -o .", ".: is not a file"),
    ("in.jsonl -o good.txt", "good.txt: exists; --overwrite replaces it, --resume continues it"),
    ("in.jsonl -o good.txt --resume", "good.txt: has no header beside it, so its settings are unknown; --force .*"),
    ("in.jsonl -o in.jsonl --overwrite", "--output: in.jsonl: is the input"),
    ("in.jsonl --principle good.txt -o ./good.txt --overwrite", "--output: good.txt: is the file of --principle"),
    ("in.jsonl --system good.txt -o good.txt --overwrite", "--output: good.txt: is the file of --system"),
    ("in.jsonl --contrast good.txt -o good.txt --overwrite", "--output: good.txt: is the file of --contrast"),
    ("in.jsonl --principle-text a --against good.txt -o good.txt --overwrite", ".*: is the file of --against"),
    ("in.jsonl --engine-option lora=good.txt -o good.txt --overwrite", ".*: is the file of --engine-option"),
    ("in.jsonl --prompt-template good.txt -o good.txt --overwrite", ".*: is the file of --prompt-template"),
    ("in.jsonl --model good.txt -o good.txt --overwrite", "--output: good.txt: is the file of --model"),
    ("in.jsonl -o out.jsonl --resume --overwrite", "--resume: does not go with overwrite"),
    ("in.jsonl --resume", "--resume: needs an output file, not a stream"),
    ("in.jsonl -o out.jsonl --retry-errors", "--retry-errors: only goes with resume"),
    ("in.jsonl -o out.jsonl --force", "--force: only goes with resume"),
    ("--p 0.99", r"--p: must be a number of at least 1 \(inf allowed\), not 0.99"),
    ("--p nan", r"--p: must be a number of at least 1 \(inf allowed\), not nan"),
    ("--p many", ".*--p.*"),
    ("--p 1 --recipe paper", r"--p: must be a number above 1 \(inf allowed\), not 1.0"),
    ("--ratio -0.1", "--ratio: must be a number of at least 0, not -0.1"),
    ("--ratio nan", "--ratio: must be a number of at least 0, not nan"),
    ("--ratio inf", "--ratio: must be a number of at least 0, not inf"),
    ("--recipe soup", "--recipe: must be one of lalign, paper, .*, not 'soup'"),
    ("--recipe opad --p 3", "--p: is no option of recipe opad"),
    ("--recipe cad --anchor base", "--anchor: is no option of recipe cad"),
    ("--recipe self-debias --support principle", "--support: must be none in recipe self-debias: .*"),
    ("--recipe union --principle good.txt --weight 2", "--weight: means nothing to recipe union: only 1 can be given"),
    ("--scale x", "--scale: must be one of relative, absolute, norm, kl, not 'x'"),
    ("--anchor x", "--anchor: must be one of base, principle, not 'x'"),
    ("--support x", "--support: must be one of principle, none, not 'x'"),
    ("--support-top-p 0", "--support-top-p: must be a number above 0 and at most 1, not 0.0"),
    ("--support-temperature 0", "--support-temperature: must be a number above 0, not 0.0"),
    ("--max-kl 0", "--max-kl: must be a number of at least 0.0001, not 0.0"),
    ("--placement head", "--placement: must be one of joined, replace, user, not 'head'"),
    ("--chat-template-kwargs thinking", "--chat-template-kwargs: must be a JSON object: .*"),
    ("--chat-template-kwargs '[1]'", r"--chat-template-kwargs: must be a JSON object, not \[1\]"),
    (
        """--chat-template-kwargs '{"tokenize": true}'""",
        "--chat-template-kwargs: cannot set tokenize, which lalign sets itself",
    ),
    ("--weight 2", "--weight: must be given once for each principle: 1 for 0"),
    ("--principle good.txt --weight 1 --weight 2", "--weight: must be given once for each principle: 2 for 1"),
    ("--principle good.txt --weight nan", "--weight: must be a finite number"),
    ("--temperature -1", "--temperature: must be a number of at least 0, not -1.0"),
    ("--top-p 1.5", "--top-p: must be a number above 0 and at most 1, not 1.5"),
    ("--top-k -1", "--top-k: must be a whole number of at least 0, not -1"),
    ("--min-p 2", "--min-p: must be a number of at least 0 and at most 1, not 2.0"),
    ("--repetition-penalty 0", "--repetition-penalty: must be a number above 0, not 0.0"),
    ("--max-new-tokens 0", "--max-new-tokens: must be a whole number of at least 1, not 0"),
    ("--seed -1", "--seed: must be a whole number of at least 0 and at most 9223372036854775807, not -1"),
    ("--stop ''", "--stop: must be one or more non-empty strings"),
    ("--batch-size 0", "--batch-size: must be a whole number of at least 1, not 0"),
    ("--batch-size many", "--batch-size: must be a whole number or auto, not 'many'"),
    ("--memory-share 0", "--memory-share: must be a number above 0 and at most 1, not 0.0"),
    ("--stats all", "--stats: must be one of steps, summary, none, not 'all'"),
    ("--limit 0", "--limit: must be a whole number of at least 1, not 0"),
    ("--ratio 0 --dtype int4", "--dtype: must be one of auto, float32, bfloat16, float16, not 'int4'"),
    ("--ratio 0 --device nowhere", "--device: torch has no device 'nowhere' here"),
    ("--colour", ".*--colour.*"),
    ("in.jsonl in.jsonl", ".*in.jsonl.*"),
]


class TestUsage:
    @pytest.mark.parametrize(("arguments", "message"), BAD_USAGE, ids=[arguments for arguments, _ in BAD_USAGE])
    def test_bad_usage_is_told_before_the_model_loads(
        self, lalign: Lalign, prompts: Path, tmp_path: Path, arguments: str, message: str
    ) -> None:
        (tmp_path / "good.txt").write_text("Be kind.")
        (tmp_path / "empty.txt").write_text(" \n")
        (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        finished = lalign("generate", "--model", "/nonexistent", *shlex.split(arguments), stdin=lines(*PROMPTS))
        assert finished.status == 2
        assert re.fullmatch(message, only_line(finished)), finished.err
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ("sweep in.jsonl -o out.svg --plot out.svg", "--plot: out.svg: is the file of --output"),
            (
                "sweep in.jsonl --principle p.html --plot p.html --overwrite",
                "--plot: p.html: is the file of --principle",
            ),
            ("sweep in.jsonl --plot p.html", "--plot: p.html: exists; --overwrite replaces it"),
            ("eval in.jsonl --plot p.png", "--plot: p.png: exists; --overwrite replaces it"),
            ("eval p.png --plot p.png --overwrite", "--plot: p.png: is the input"),
        ],
    )
    def test_a_plot_replaces_nothing_unasked(
        self, lalign: Lalign, prompts: Path, tmp_path: Path, arguments: str, message: str
    ) -> None:
        for name in ("p.html", "p.png"):
            (tmp_path / name).write_text("mine")
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        finished = lalign(*shlex.split(arguments), "--model", "/nonexistent")
        assert finished.status == 2
        assert only_line(finished) == message
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before

    def test_a_model_that_is_not_there_is_told(self, lalign: Lalign, prompts: Path, tmp_path: Path) -> None:
        finished = lalign.generate("in.jsonl", "--model", tmp_path, "-o", "out.jsonl")
        assert finished.status == 2
        assert only_line(finished) == f"{tmp_path}: a folder without a config.json or a .gguf file is not a model"
        assert not (tmp_path / "out.jsonl").exists()

    def test_an_unknown_command_is_told(self, lalign: Lalign) -> None:
        finished = lalign("align")
        assert finished.status == 2
        assert "'align'" in only_line(finished)

    @pytest.mark.parametrize("debug", [False, True])
    def test_a_traceback_is_shown_with_debug_alone(self, lalign: Lalign, debug: bool) -> None:
        finished = lalign("generate", "--ratio", -1, *["--debug"] * debug)
        assert finished.status == 2
        assert ("Traceback" in finished.err) is debug

    @pytest.mark.parametrize("debug", [False, True])
    def test_an_error_of_our_own_is_one_line_too(
        self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], debug: bool
    ) -> None:
        def broken(*_: object) -> None:
            raise ZeroDivisionError("division\nby zero")

        monkeypatch.setattr(invocation, "execution", broken)
        assert cli.run(["generate", *["--debug"] * debug]) == 1
        *trace, last = capfd.readouterr().err.splitlines()
        assert last == r"lalign: internal error: ZeroDivisionError: division\nby zero (--debug shows where)"
        assert bool(trace) is debug

    @pytest.mark.parametrize("error", [KeyboardInterrupt, typer.Abort])
    def test_an_interrupt_before_the_job_runs_shows_no_traceback(
        self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], error: Callable[[], BaseException]
    ) -> None:
        def interrupted(*_: object) -> None:
            raise error()

        monkeypatch.setattr(invocation, "execution", interrupted)
        assert cli.run(["generate"]) == 130
        assert capfd.readouterr().err in ("", "lalign: interrupted\n")  # some Typers keep it to themselves


class TestRecipes:
    def test_the_table_names_each_within_80_columns(self, lalign: Lalign) -> None:
        finished = lalign("recipes")
        shown = finished.out.decode().splitlines()
        assert (finished.status, finished.err) == (0, "")
        assert max(map(len, shown)) <= 80
        for name, recipe in RECIPES.items():
            assert any(re.match(rf"{name} +{recipe.ratio:.5g} ", line) for line in shown), name
        assert "…" not in "".join(shown)

    def test_json_has_their_defaults(self, lalign: Lalign) -> None:
        listed = orjson.loads(lalign("recipes", "--json").out)
        assert [entry["recipe"] for entry in listed] == [*RECIPES]
        assert all(entry.keys() == {"recipe", "formula", "source", "options"} for entry in listed)
        assert listed[0]["options"]["p"] == 2

    def test_listing_them_loads_no_torch(self) -> None:
        program = "import sys; from lalign.cli.run import run; run(['recipes']); sys.exit('torch' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", program], check=False, stdout=subprocess.DEVNULL).returncode == 0


class TestSweep:
    def test_recipes_are_compared_in_one_batch(self, lalign: Lalign, tmp_path: Path) -> None:
        (tmp_path / "in.jsonl").write_bytes(lines(*PROMPTS[:2]))
        wanted = ("--recipes", "lalign, opad,amulet", "--ratios", "0,1", "--p", "1.5", "--plot", "sweep.html")
        finished = lalign("sweep", *lalign.tiny, "in.jsonl", *wanted)
        assert finished.status == 0, finished.err
        shown = [(record["alignment"]["recipe"], record["alignment"]["ratio"]) for record in finished.records]
        assert shown == 2 * [(recipe, ratio) for recipe in ("lalign", "opad", "amulet") for ratio in (0, 1)]
        assert [record["alignment"].get("p") for record in finished.records[:3]] == [1.5, 1.5, None]
        assert finished.err.splitlines()[0].split()[:3] == ["recipe", "p", "ratio"]
        assert "lalign, p = 1.5" in str(page_data(tmp_path / "sweep.html")["panels"])
        alone = lalign("sweep", *lalign.tiny, "in.jsonl", "--recipe", "opad", "--ratios", "0,1").records
        assert [record["response"] for record in alone] == [
            record["response"] for record in finished.records if record["alignment"]["recipe"] == "opad"
        ]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ("--recipes lalign,soup", "--recipes: must be one of lalign, .*, not 'soup'"),
            ("--recipes opad,cad --p 2", "--p: is no option of any of the recipes opad, cad"),
            ("--recipes opad,cad --ps 2", "--ps: p is no option of opad, cad"),
            ("--recipe opad --ps 2", "--ps: p is no option of opad"),
            ("--recipes opad --recipe cad", "--recipe: does not go with --recipes"),
            ("--recipes opad --ratio 2", "--ratio: is one of many here: give --ratios"),
        ],
    )
    def test_what_does_not_go_together_is_refused(self, lalign: Lalign, arguments: str, message: str) -> None:
        finished = lalign("sweep", *shlex.split(arguments), "--model", "/nonexistent", stdin=lines(*PROMPTS))
        assert finished.status == 2
        assert re.fullmatch(message, only_line(finished)), finished.err


class TestTerminal:
    """Whatever input, options and paths hold, nothing in them reaches the terminal as a command to it."""

    def assert_harmless(self, finished: Finished) -> None:
        assert finished.err.isascii() or "\u202e" not in finished.err
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", finished.err)

    def test_of_records(self, lalign: Lalign) -> None:
        records = [
            {"id": HOSTILE, "prompt": "Hi"},
            {"id": HOSTILE, "prompt": "Hi"},
            {"id": 3, "messages": [{"role": HOSTILE, "content": "Hi"}]},
            {"id": 4, "prompt": "Hi", "ratio": HOSTILE},
            {HOSTILE: HOSTILE},
        ]
        finished = lalign.generate(stdin=lines(*records) + HOSTILE.encode() + b"\n")
        assert finished.status == 1
        assert [record["id"] for record in finished.records[:2]] == [HOSTILE, HOSTILE]
        assert "[bold red]" in finished.err
        self.assert_harmless(finished)

    @pytest.mark.parametrize("option", ["--recipe", "--principle", "--model", "--batch-size", "-o"])
    def test_of_options(self, lalign: Lalign, option: str) -> None:
        finished = lalign.generate(option, f"gone/{HOSTILE}")
        assert finished.status == 2
        assert "[bold red]" in only_line(finished)
        self.assert_harmless(finished)

    def test_of_the_names_of_options(self, lalign: Lalign) -> None:
        finished = lalign.generate(f"--{HOSTILE}")
        assert finished.status == 2
        assert "[bold red]" in only_line(finished)
        self.assert_harmless(finished)

    def test_of_the_names_of_files(self, lalign: Lalign, tmp_path: Path) -> None:
        name = HOSTILE.replace("/", "")
        (tmp_path / name).write_bytes(lines(*PROMPTS[:2], {}))
        finished = lalign.generate(name, "-o", f"{name}.out")
        assert finished.status == 1
        assert finished.err.count("[bold red]") == 2  # the line that failed, and the summary
        self.assert_harmless(finished)


class TestHelp:
    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"COLUMNS": "400", "TERMINAL_WIDTH": "400", "NO_COLOR": "1"}
        return subprocess.run([*PROGRAM, *arguments], capture_output=True, text=True, env=environment)

    @pytest.mark.parametrize("command", [[], ["generate"], ["sweep"], ["eval"], ["bench"]])
    def test_it_takes_no_model_libraries(self, command: list[str]) -> None:
        code = (
            f"import sys; from lalign.cli.run import run; status = run([*{command}, '--help'])\n"
            "heavy = {'torch', 'transformers', 'numpy', 'scipy', 'matplotlib', 'tokenizers', 'safetensors'}\n"
            "print(status, sorted(heavy & set(sys.modules)), file=sys.stderr)"
        )
        finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert finished.stderr == "0 []\n"
        assert "Usage" in finished.stdout

    def test_version(self) -> None:
        finished = self.run("--version")
        assert (finished.returncode, finished.stdout, finished.stderr) == (0, f"lalign {package.__version__}\n", "")

    def test_without_arguments_it_is_shown(self) -> None:
        assert "Commands" in self.run().stdout

    def test_it_shows_every_option_with_its_default(self) -> None:
        shown = self.run("generate", "--help").stdout
        for group in (AlignmentArguments, SamplingArguments, ModelArguments, RunArguments, OutputArguments):
            for option in fields(group):
                name = f"--{option.name.replace('_', '-')} "
                (line,) = (row for row in shown.splitlines() if row.startswith(f"│ {name}"))
                has_default = option.default is not None and option.default is not False
                assert not has_default or f"[default: {option.default}]" in line

    def test_it_is_grouped_by_theme(self) -> None:
        shown = self.run("generate", "-h").stdout
        themes = ["Principle and alignment", "Sampling", "Input and output", "Model", "Running"]
        places = [shown.index(f" {theme} ─") for theme in themes]
        assert places == sorted(places)


@pytest.mark.real
class TestEmbeddedModel:
    """In full: `python -m lalign` on the model that comes with it."""

    def test_a_pipeline(self) -> None:
        program = " ".join(map(shlex.quote, PROGRAM))
        options = f"--principle {shlex.quote(str(SAMPLES / 'pirate.txt'))} --max-new-tokens 12 --limit 3"
        command = f"cat {shlex.quote(str(SAMPLES / 'prompts.jsonl'))} | {program} generate {options} | cat"
        finished = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
        records = [json.loads(line) for line in finished.stdout.splitlines()]
        assert [record["line"] for record in records] == [1, 2, 3]
        assert all(record["response"].strip() for record in records)
        assert all(record["alignment"]["summary"]["kl_aligned_base_mean"] > 0.1 for record in records)
        assert "3 records to stdout" in finished.stderr
        assert "Traceback" not in finished.stderr

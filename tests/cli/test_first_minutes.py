"""What somebody meets who has just installed lalign: versions, completion, help, the cache, and hints at slips."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import Lalign
from filelock import FileLock

from lalign.cli.app import ORDER
from lalign.cli.run import run
from lalign.method.recipes import RECIPES
from lalign.models.cached import cached, clear

MODEL = "tiny-0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder with a converted model, what a killed conversion left, and what is not lalign's."""
    folder = tmp_path / "cache"
    for name in (MODEL, f"{MODEL}.abcd1234", "photographs"):
        (folder / name).mkdir(parents=True)
        (folder / name / "weights").write_bytes(b"w" * 1_500_000)
    monkeypatch.setenv("LALIGN_CACHE", str(folder))
    return folder


class TestVersion:
    def test_is_one_line(self, lalign: Lalign) -> None:
        assert lalign("--version").out == b"lalign 0.1.0\n"

    @pytest.mark.parametrize("words", [("--version", "--verbose"), ("--verbose", "--version")])
    def test_verbose_names_what_a_report_needs(self, lalign: Lalign, words: tuple[str, str]) -> None:
        finished = lalign(*words)
        named = {line.split()[0] for line in finished.out.decode().splitlines()}
        assert named >= {"lalign", "python", "torch", "transformers", "device", "model", "cache"}
        assert finished.status == 0


class TestCompletion:
    def test_of_the_values_of_an_option(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("_LALIGN_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", "lalign generate --placement re")
        monkeypatch.setenv("COMP_CWORD", "3")
        with pytest.raises(SystemExit):
            run([])
        assert capsys.readouterr().out.split() == ["replace"]

    def test_can_be_installed(self, lalign: Lalign) -> None:
        assert "--install-completion" in lalign("--help").out.decode()


class TestHelp:
    """In a terminal of 80 columns, as pytest is given one."""

    @pytest.mark.parametrize("command", ["generate", "sweep", "eval", "bench", "judge", "score", "best", "cache"])
    def test_it_names_what_a_value_is_and_not_its_type(
        self, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("COLUMNS", "80")
        assert run([command, "--help"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert all(len(line) <= 80 for line in lines)
        # Of arguments, and of its own --help, Typer says it itself.
        options = lines[next(number for number, line in enumerate(lines) if "--help" in line) + 1 :]
        assert not [line for line in options if re.search(r"<\w+", line)]

    @pytest.mark.parametrize(
        ("command", "values"),
        [
            ("generate", ["base|principle", "logits|", "probabilities", "relative|", "absolute|", "jsonl|", *RECIPES]),
            ("sweep", ["base|principle", "joined|", "replace|user", *RECIPES]),
            ("eval", ["logit|letter", "seed|all", *RECIPES]),
            ("judge", ["first|all|two", "torch|", "llamacpp|vllm"]),
        ],
    )
    def test_it_names_the_values_of_an_option_none_of_them_broken(
        self, command: str, values: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("COLUMNS", "80")
        assert run([command, "--help"]) == 0
        shown = capsys.readouterr().out
        for value in values:
            assert re.search(rf"(?<![\w-]){re.escape(value)}(?![\w-]*-)", shown), value

    def test_what_people_begin_with_comes_first(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(["--help"]) == 0
        listed = re.findall(r"^\W+([a-z][a-z-]+)  +[A-Z]", capsys.readouterr().out.split("Commands")[1], re.MULTILINE)
        assert listed[:3] == ["generate", "sweep", "eval"]
        assert [name for name in listed if name in ORDER] == [name for name in ORDER if name in listed]


class TestSlips:
    @pytest.mark.parametrize(
        ("words", "told"),
        [
            (("--ratios", "0..5"), "--ratios: '0..5' is not a number; a range is 0:5"),
            (("--ratios", "0-5"), "--ratios: '0-5' is not a number; a range is 0:5"),
            (("--ratios", "1,0.5...2"), "--ratios: '0.5...2' is not a number; a range is 0.5:2"),
            (("--ratios", "-1:2"), "--ratios: must be a number of at least 0, not -1.0"),
            (("--ps", "0:2"), "--ps: must be a number of at least 1 (inf allowed), not 0.0"),
        ],
    )
    def test_a_range_is_shown_its_right_form(self, lalign: Lalign, words: tuple[str, str], told: str) -> None:
        finished = lalign("sweep", "--principle", "principle.txt", *words)
        assert (finished.status, finished.out, finished.err) == (2, b"", f"lalign: {told}\n")

    @pytest.mark.parametrize(
        ("words", "where"),
        [(("generate", "--ratoi", "2"), "lalign generate --help"), (("bnech",), "lalign --help")],
    )
    def test_a_slip_is_told_which_help_has_the_right_word(
        self, lalign: Lalign, words: tuple[str, ...], where: str
    ) -> None:
        finished = lalign(*words)
        assert finished.status == 2
        assert finished.err.endswith(f" (see {where})\n")

    @pytest.mark.parametrize("text", ["Be kind.", "Be kind and/or brief. " * 20])
    def test_a_text_for_a_file_is_told_the_option_for_texts(self, lalign: Lalign, text: str) -> None:
        finished = lalign("generate", "--principle", text)
        assert finished.status == 2
        assert finished.err.endswith(" (for a text: --principle-text)\n")

    def test_a_file_that_is_not_there_is_not_taken_for_a_text(self, lalign: Lalign) -> None:
        assert (
            lalign("generate", "--principle", "hh.txt").err
            == "lalign: --principle: hh.txt: No such file or directory\n"
        )


def test_a_principle_may_be_given_as_a_text(lalign: Lalign, tmp_path: Path, tiny_folder: Path) -> None:
    def answer(*principles: object) -> bytes:
        prompt = b'{"prompt": "Hi"}\n'
        return lalign("generate", "--model", tiny_folder, "--max-new-tokens", 2, *principles, stdin=prompt).out

    (tmp_path / "other.txt").write_text("Be brief.")
    texts = ("--principle-text", "Be kind.", "--principle-text", "Be brief.")
    assert answer(*texts) == answer("--principle", "principle.txt", "--principle", "other.txt")
    weights = ("--weight", 2, "--weight", -1)
    mixed = answer("--principle-text", "Be brief.", "--principle", "principle.txt", *weights)
    assert mixed == answer("--principle", "principle.txt", "--principle", "other.txt", *weights)


class TestCache:
    def test_shows_where_it_is_and_how_large(self, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(["cache"]) == 0
        first, *models = capsys.readouterr().out.splitlines()
        assert first == f"{cache}: 3.0 MB"
        assert [line.split() for line in models] == [["1.5", "MB", MODEL], ["1.5", "MB", f"{MODEL}.abcd1234"]]

    def test_is_cleared_of_what_is_its_own(self, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(["cache", "--clear"]) == 0
        assert capsys.readouterr().out == f"{cache}: 3.0 MB removed\n"
        assert [path.name for path in cache.iterdir()] == ["photographs"]

    def test_what_is_being_made_stays(self, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
        with FileLock(f"{cache / MODEL}.lock"):
            assert run(["cache", "--clear"]) == 1
        assert "is being made, and stays" in capsys.readouterr().err
        assert len(cached()) == 2

    def test_where_there_is_none_there_is_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LALIGN_CACHE", str(tmp_path / "none"))
        assert (cached(), clear()) == ([], ([], []))

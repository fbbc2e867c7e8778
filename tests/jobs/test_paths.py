"""No file that a job writes is one that it reads, or another that it writes, by whatever name."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lalign.errors import OptionError
from lalign.jobs.paths import BESIDE, Named, check_paths, may_replace


def by_two_links(target: Path, link: Path) -> None:
    """A link to a link."""
    link.symlink_to(link.with_name("other"))
    link.with_name("other").symlink_to(target.name)


LINKS: list[Callable[[Path, Path], None]] = [
    lambda target, link: link.symlink_to(target),
    lambda target, link: link.hardlink_to(target),
    by_two_links,
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("in.jsonl").write_text("mine")
    return tmp_path


@pytest.mark.parametrize("option", ["input", "principle", "contrast", "system", "model"])
def test_an_output_is_no_file_that_is_read(option: str) -> None:
    what = "the input" if option == "input" else f"the file of --{option}"
    for path in (Path("in.jsonl"), Path("./in.jsonl"), Path("in.jsonl").resolve(), Path("gone") / ".." / "in.jsonl"):
        with pytest.raises(OptionError) as error:
            check_paths([Named("input", Path("a")), Named(option, Path("in.jsonl"))], Named("output", path))
        assert (error.value.option, error.value.problem) == ("output", f"{path}: is {what}")


@pytest.mark.parametrize("make", LINKS, ids=["symbolic", "hard", "two symbolic"])
def test_nor_a_link_to_one(folder: Path, make: Callable[[Path, Path], None]) -> None:
    make(folder / "in.jsonl", folder / "out.jsonl")
    reads, names = [Named("input", Path("in.jsonl"))], [Path("in.jsonl"), Path("out.jsonl")]
    for read, written in (names, names[::-1]):
        with pytest.raises(OptionError, match=r"output: .*: is the input"):
            check_paths([Named("input", read)], Named("output", written))
    with pytest.raises(OptionError, match=r"plot: .*: is the input"):
        check_paths(reads, Named("output", Path("else.jsonl")), Named("plot", Path("out.jsonl")))


def test_nor_a_link_to_one_that_is_not_there_yet() -> None:
    Path("link").symlink_to("out.svg")
    with pytest.raises(OptionError, match=r"plot: out\.svg: is the file of --output"):
        check_paths([], Named("output", Path("link")), Named("plot", Path("out.svg")))


@pytest.mark.parametrize("suffix", BESIDE)
def test_nor_is_what_goes_beside_it(folder: Path, suffix: str) -> None:
    Path(f"out.jsonl{suffix}").touch()
    with pytest.raises(OptionError, match=f"out.jsonl{suffix}: is the input"):
        check_paths([Named("input", Path(f"out.jsonl{suffix}"))], Named("output", Path("out.jsonl")))


def test_nor_a_file_of_the_model(folder: Path) -> None:
    model = folder / "model"
    model.mkdir()
    for name in ("config.json", "model.safetensors", "out.jsonl", "out.jsonl.run.json"):
        (model / name).touch()
    reads = [Named("model", model)]
    for name in ("config.json", "model.safetensors"):
        with pytest.raises(OptionError, match=f"{name}: is the file of --model"):
            check_paths(reads, Named("output", model / name))
    check_paths(reads, Named("output", model / "out.jsonl"))
    check_paths([Named("model", Path("organisation/name"))], Named("output", model / "out.jsonl"))


def test_redirected_streams_are_files_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("in.jsonl") as stdin, open("in.jsonl", "a") as stdout:
        monkeypatch.setattr(sys, "stdin", stdin)
        monkeypatch.setattr(sys, "stdout", stdout)
        for read, written in [(None, Path("in.jsonl")), (Path("in.jsonl"), None), (None, None)]:
            with pytest.raises(OptionError, match="is the input"):
                check_paths([Named("input", read)], Named("output", written))
        check_paths([Named("input", None)], Named("output", Path("out.jsonl")), Named("plot", Path("plot.svg")))


def test_devices_and_closed_streams_are_no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    check_paths([Named("input", Path(os.devnull))], Named("output", Path(os.devnull)))
    monkeypatch.setattr(sys, "stdin", None)
    check_paths([Named("input", None)], Named("output", Path("out.jsonl")))


@pytest.mark.parametrize("path", ["in.jsonl\0", "x" * 5000, ""])
def test_names_that_cannot_be_are_left_to_who_opens_them(path: str) -> None:
    check_paths([Named("input", Path("in.jsonl"))], Named("output", Path(path)))


def test_a_file_is_replaced_where_that_is_asked_for() -> None:
    may_replace("plot", Path("plot.svg"), overwrite=False)
    may_replace("plot", Path(os.devnull), overwrite=False)
    may_replace("plot", Path("in.jsonl"), overwrite=True)
    with pytest.raises(OptionError, match=r"plot: in\.jsonl: exists; --overwrite replaces it"):
        may_replace("plot", Path("in.jsonl"), overwrite=False)


def test_nor_one_that_fits_a_pattern(folder: Path) -> None:
    reads = [Named("prompts", Path("i*.jsonl"))]
    with pytest.raises(OptionError, match=r"in\.jsonl: is the file of --prompts"):
        check_paths(reads, Named("output", folder / "in.jsonl"))
    check_paths([Named("prompts", Path("x*"))], Named("output", folder / "out.jsonl"))

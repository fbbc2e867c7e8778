"""`--ray` where it cannot serve: one line each, whether Ray is installed or not."""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import PackageNotFoundError, version

import pytest
from conftest import Lalign

from lalign.errors import OptionError


def installed() -> bool:
    """Whether Ray itself is: the folder tests/ray passes for a package of that name."""
    try:
        return bool(version("ray"))
    except PackageNotFoundError:
        return False


JOB = ("--ray", "local", "in.jsonl", "-o", "out")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--workers", 2), "--workers: only goes with --ray"),
        (("--gpus-per-worker", 1), "--gpus-per-worker: only goes with --ray"),
        (("--ray", "local"), "--ray: needs one file or folder to read, and a folder (-o) to write"),
        (("--ray", "local", "in.jsonl"), "--ray: needs one file or folder to read, and a folder (-o) to write"),
        ((*JOB, "--limit", 2), "--limit: does not go with --ray"),
        ((*JOB, "--shard", "1/2"), "--shard: does not go with --ray"),
        ((*JOB, "--overwrite"), "--overwrite: does not go with --ray"),
        ((*JOB, "--strict"), "--strict: does not go with --ray"),
        ((*JOB, "--resume", "--retry-errors"), "--retry-errors: does not go with --ray"),
        ((*JOB, "--resume", "--force"), "--force: does not go with --ray"),
        ((*JOB, "--output-format", "openai-batch"), "--output-format: does not go with --ray"),
        ((*JOB, "--logprobs", 2, "--stats", "none"), "--logprobs: "),
    ],
)
def test_what_does_not_go_together_is_one_line(lalign: Lalign, arguments: tuple[object, ...], says: str) -> None:
    (lalign.folder / "in.jsonl").write_bytes(b'{"prompt": "Why?"}\n')
    done = lalign.generate(*arguments)
    assert done.status == 2
    assert done.err.startswith(f"lalign: {says}")
    assert done.err.count("\n") == 1
    assert not (lalign.folder / "out").exists()


@pytest.mark.skipif(installed(), reason="Ray is installed")
def test_without_ray_the_extra_is_named(lalign: Lalign) -> None:
    (lalign.folder / "in.jsonl").write_bytes(b'{"prompt": "Why?"}\n')
    done = lalign.generate(*JOB)
    assert (done.status, done.err) == (2, "lalign: --ray: needs Ray Data: pip install 'lalign[ray]'\n")


@pytest.mark.parametrize("missing", ["pyarrow", "ray"])
def test_the_package_names_the_extra_too(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    for name in [name for name in sys.modules if name.startswith("lalign.ray")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(OptionError, match=r"needs Ray Data: pip install 'lalign\[ray\]'"):
        importlib.import_module("lalign.ray")

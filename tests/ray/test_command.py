"""`lalign generate --ray` as it is typed: what it writes, says and ends with, and what it refuses before Ray starts."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

pytest.importorskip("ray.data", reason="needs Ray Data: pip install 'lalign[ray]'")

from conftest import Finished, Lalign

JOB = ("--ray", "local", "--workers", 2, "in.jsonl", "-o", "out")
CSV = 'id,question\nfirst,Why?\nsecond,"How, and\nwhere?"\nthird,\n' + "".join(f"n{n},{n}?\n" for n in range(20))


def test_a_job_from_the_command_line_is_that_of_one_process(lalign: Lalign) -> None:
    """Two workers, of a table; a row that cannot be answered is counted, and is in the output in its place.

    Without statistics, whose last digits are those of the batch.
    """
    (lalign.folder / "in.csv").write_text(CSV)
    asked = ("generate", *lalign.tiny, "--temperature", 1, "--batch-size", 1, "--stats", "none", "in.csv")
    words = [str(word) for word in (*asked, "--ray", "local", "--workers", 2, "-o", "out")]
    done = subprocess.run(
        [sys.executable, "-m", "lalign", *words],
        cwd=lalign.folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=300,
    )
    said = done.stderr.decode()
    assert done.returncode == 1, said
    assert done.stdout == b""
    # What Ray's core says of its actors goes to stderr past Python; how far it is, is told where that takes long.
    lines = [line.strip() for line in said.splitlines() if not re.match(r"\[|lalign: \d+ s: \d+ of 23 lines$", line)]
    assert lines[:4] == [
        "lalign: in.csv: prompts were read from question in 22 records",
        "lalign: 1 records failed; each has an error record in the output",
        "answered  22 records to out",
        "failed  1 (error records in their place)",
    ]
    assert lines[4].startswith("time  ")
    assert len(lines) == 5
    assert lalign("merge", *sorted((lalign.folder / "out").glob("*.jsonl")), "-o", "merged.jsonl").status == 0
    alone = lalign(*asked)
    assert (lalign.folder / "merged.jsonl").read_bytes() == alone.out
    assert (alone.status, len(alone.records)) == (1, 23)
    assert lines[0] in alone.err.splitlines()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--workers", 2), "lalign: --workers: only goes with --ray\n"),
        (("--ray", "local"), "lalign: --ray: needs one file or folder to read, and a folder (-o) to write\n"),
        (("--ray", "local", "--workers", 0, "in", "-o", "out"), "lalign: --workers: "),
        (("--ray", "local", "--limit", 2, "in", "-o", "out"), "lalign: --limit: does not go with --ray\n"),
        (("--ray", "local", "in", "-o", "out"), "in: No such file or directory\n"),
    ],
)
def test_what_does_not_go_together_is_one_line(lalign: Lalign, arguments: tuple[object, ...], says: str) -> None:
    done: Finished = lalign.generate(*arguments)
    assert done.status == 2
    assert says in done.err
    assert done.err.count("\n") == 1


def test_a_job_of_which_no_record_could_be_answered_is_one_line(lalign: Lalign) -> None:
    (lalign.folder / "in.jsonl").write_bytes(b'{"prompt": "Why?"}\n{"prompt": "How?"}\n')
    done = lalign("generate", "--model", lalign.tiny[1], *JOB)
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert done.err.startswith("lalign: --principle: neither the job nor any record of ")
    done = lalign.generate("--prompt-field", "question", *JOB)
    assert (done.status, done.err) == (2, "lalign: --prompt-field: no field 'question'; the fields are prompt\n")
    assert not (lalign.folder / "out").exists()


def test_a_dry_run_shows_the_prompts_of_the_job_and_starts_none(lalign: Lalign) -> None:
    folder = lalign.folder / "in"
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(b'{"prompt": "Why?"}\n')
    (folder / "b.jsonl").write_bytes(b'{"prompt": "How?"}\n{"prompt": "Third"}\n')
    done = lalign.generate("--ray", "local", "in", "-o", "out", "--dry-run", 2)
    shown = [line for line in done.out.decode().splitlines() if line.startswith("in/")]
    assert (done.status, done.err) == (0, "")
    assert shown == ["in/a.jsonl:1  id 1", "in/b.jsonl:1  id 2"]
    assert not (lalign.folder / "out").exists()

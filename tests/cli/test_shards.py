"""`--shard` and `lalign merge` as commands."""

from __future__ import annotations

from conftest import Lalign

THREE = b'{"prompt": "a"}\n{"prompt": "b"}\n{\n'


def test_shards_that_are_merged_are_the_output_of_one_job(lalign: Lalign) -> None:
    arguments = ("--stats", "none", "--temperature", 1)
    for shard in ("1/2", "2/2"):
        lalign.generate(*arguments, "--shard", shard, "-o", f"out.{shard[0]}.jsonl", stdin=THREE)
    merged = lalign("merge", "out.1.jsonl", "out.2.jsonl", "-o", "out.jsonl")
    assert (merged.status, merged.out) == (0, b"")
    assert merged.err == "lalign: 3 records of 3 lines to out.jsonl\n"
    assert (lalign.folder / "out.jsonl").read_bytes() == lalign.generate(*arguments, stdin=THREE).out


def test_a_shard_goes_on_as_itself_alone(lalign: Lalign) -> None:
    lalign.generate("--shard", "1/2", "-o", "out.jsonl", stdin=THREE)
    assert (
        lalign.generate("--shard", "1/2", "-o", "out.jsonl", "--resume", stdin=THREE).status == 1
    )  # line 3 has failed
    other = lalign.generate("--shard", "2/2", "-o", "out.jsonl", "--resume", stdin=THREE)
    assert (other.status, other.err.count("\n")) == (2, 1)
    assert "shard: '1/2' in the output, '2/2' now" in other.err


def test_what_cannot_be_merged_is_one_line(lalign: Lalign) -> None:
    lalign.generate("--shard", "2/2", "-o", "out.2.jsonl", stdin=THREE)
    merged = lalign("merge", "out.2.jsonl", "-o", "out.jsonl")
    assert (merged.status, merged.err) == (2, "lalign: of 2 shards these are missing: 1\n")
    assert not (lalign.folder / "out.jsonl").exists()
    assert lalign("merge", "out.2.jsonl", "-o", "-").err == "lalign: --output: must be a file, not stdout\n"
    assert lalign.generate("--shard", "3/2", stdin=THREE).err == (
        "lalign: --shard: must be K/N with K from 1 to N, not 3/2\n"
    )

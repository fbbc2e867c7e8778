"""Which lines a shard takes: all shards together take each line once, and read what one job would."""

from __future__ import annotations

import io
import itertools
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lalign.errors import OptionError
from lalign.jobs.answered import AnsweredInput, line_digest
from lalign.jobs.reader import JobInput, Reader
from lalign.jobs.resume import Resumed
from lalign.jobs.shard import WHOLE, Shard, parse_shard
from lalign.records.source import RawLine


def content(filled: list[bool]) -> bytes:
    return b"".join(b'{"prompt": "%d"}\n' % number if there else b" \n" for number, there in enumerate(filled, 1))


def reader(data: bytes, shard: Shard = WHOLE, limit: int | None = None, stands: Resumed | None = None) -> Reader:
    stream = io.BufferedReader(io.BytesIO(data))
    return Reader(stream, JobInput(limit=limit, shard=shard), stands or Resumed())


def lines(read: Reader) -> list[int]:
    return [record.line for record in read]


@given(st.lists(st.booleans(), max_size=30), st.integers(1, 5), st.none() | st.integers(1, 40))
def test_shards_read_together_what_one_job_reads(filled: list[bool], count: int, limit: int | None) -> None:
    data = content(filled)
    whole = reader(data, limit=limit)
    shards = [reader(data, Shard(number, count), limit) for number in range(1, count + 1)]
    expected = lines(whole)
    assert sorted(itertools.chain(*map(lines, shards))) == expected
    assert {shard.last_line for shard in shards} == {whole.last_line}
    assert sum(shard.taken for shard in shards) == whole.taken == len(expected)


@given(st.lists(st.booleans(), max_size=30), st.integers(1, 5), st.data())
def test_a_shard_goes_on_behind_what_stands(filled: list[bool], count: int, data: st.DataObject) -> None:
    shard = Shard(data.draw(st.integers(1, count)), count)
    of_shard = lines(reader(content(filled), shard))
    standing = of_shard[: data.draw(st.integers(0, len(of_shard)))]
    limit = data.draw(st.none() | st.integers(1, 40))
    answered = AnsweredInput()
    for number in standing:
        answered.answer(number, line_digest(RawLine(number, b'{"prompt": "%d"}' % number)), failed=False)
    within = lines(reader(content(filled), shard, limit))
    stands = Resumed(records=len(standing), lines=array("q", standing), input=answered.mark())
    assert lines(reader(content(filled), shard, limit, stands)) == [line for line in within if line not in standing]


def test_nothing_is_read_behind_the_limit_by_a_shard_that_ends_before_it() -> None:
    read = reader(content([True] * 9), Shard(1, 4), limit=6)
    assert lines(read) == [1, 5]
    assert read.last_line == 6


@pytest.mark.parametrize("text", ["", "1", "1/", "/2", "0/4", "5/4", "-1/4", "1/0", "a/b", " 1/2", "1.5/2", "١/٢"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match=r"^shard: must be K/N"):
        parse_shard(text)


def test_a_shard_is_read_as_it_is_written() -> None:
    assert parse_shard("2/16") == Shard(2, 16)
    assert str(Shard(2, 16)) == "2/16"
    assert parse_shard(None) == WHOLE == parse_shard("1/1")

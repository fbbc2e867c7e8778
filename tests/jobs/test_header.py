"""The header beside an output: written whole or not at all, compared setting by setting, true to the input."""

from __future__ import annotations

import math
import resource
from pathlib import Path

import orjson
import pytest

from lalign.errors import OutputError
from lalign.jobs.header import Header, InputMark, differences, read_header, write_header


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def test_header_comes_back_as_it_was_written(output: Path) -> None:
    header = Header({"ratio": 3.0, "stop": ["\n"], "max_kl": None}, InputMark(12, 2**256 - 1, [2, 3, 4, 9]))
    write_header(output, header)
    assert read_header(output) == header


def test_header_is_a_json_object_beside_the_output(output: Path) -> None:
    write_header(output, Header({"ratio": 3.0}, InputMark(12, 0xAB, [2, 3, 4, 9])))
    assert orjson.loads((output.parent / "out.jsonl.run.json").read_bytes()) == {
        "format": 2,
        "fingerprint": {"ratio": 3.0},
        "input": {"lines": 12, "digest": "ab".zfill(64), "failed": [[2, 4], [9, 9]]},
    }


def test_without_a_header_there_is_none(output: Path) -> None:
    assert read_header(output) is None


def test_header_cut_short_by_a_crash_leaves_the_old_one(output: Path) -> None:
    write_header(output, Header({"seed": 1}, InputMark(0, 0, [])))
    output.with_name("out.jsonl.run.json.tmp").write_bytes(b'{"format": 1, "finger')
    assert read_header(output) == Header({"seed": 1}, InputMark(0, 0, []))
    write_header(output, Header({"seed": 2}, InputMark(0, 0, [])))
    assert read_header(output) == Header({"seed": 2}, InputMark(0, 0, []))
    assert [path.name for path in output.parent.iterdir()] == ["out.jsonl.run.json"]


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b"{}",
        b'{"format": 2, "fingerprint": {}, "input": {}}',
        b'{"format": 2, "fingerprint": {}, "input": {"lines": 1, "digest": "x", "failed": []}}',
        b'{"format": 2, "fingerprint": {}, "input": {"lines": 1, "digest": "0", "failed": [1]}}',
    ],
)
def test_damaged_header_is_told(output: Path, stored: bytes) -> None:
    output.with_name("out.jsonl.run.json").write_bytes(stored)
    with pytest.raises(OutputError, match=r"out\.jsonl\.run\.json: is not a run header$"):
        read_header(output)


def test_header_of_another_format_is_told(output: Path) -> None:
    output.with_name("out.jsonl.run.json").write_bytes(b'{"format": 1}')
    with pytest.raises(OutputError, match="has format 1, this version of lalign reads 2"):
        read_header(output)


def test_header_that_cannot_be_opened_is_told(output: Path) -> None:
    output.with_name("out.jsonl.run.json").mkdir()
    with pytest.raises(OutputError, match="Is a directory"):
        read_header(output)


def test_differing_settings_are_named_with_both_values() -> None:
    stored = {"ratio": 3.0, "seed": 0, "recipe": "lalign", "principle": "Be kind."}
    current = {"ratio": 2.0, "seed": 0, "recipe": "lalign", "principle": "Be brief."}
    assert differences(stored, current) == [
        "ratio: 3.0 in the output, 2.0 now",
        "principle: 'Be kind.' in the output, 'Be brief.' now",
    ]


def test_setting_on_one_side_only_differs() -> None:
    assert differences({"old": None}, {"new": 2}) == [
        "old: None in the output, not set now",
        "new: not set in the output, 2 now",
    ]


@pytest.mark.parametrize(("stored", "current"), [(1, True), (False, 0)])
def test_numbers_are_not_truth_values(stored: object, current: object) -> None:
    assert len(differences({"x": stored}, {"x": current})) == 1


@pytest.mark.parametrize("value", [("a", "b"), math.inf, 3, 0.1, "é\n", None])
def test_what_went_through_json_does_not_differ(output: Path, value: object) -> None:
    write_header(output, Header({"setting": value}))
    header = read_header(output)
    assert header is not None
    assert differences(header.fingerprint, {"setting": value}) == []


def test_long_values_are_shortened_to_where_they_part() -> None:
    old, new = "x" * 500 + "A" + "y" * 500, "x" * 500 + "B" + "y" * 500
    (message,) = differences({"principle": old}, {"principle": new})
    assert "xA" in message
    assert "xB" in message
    assert len(message) < 120


def test_control_characters_of_a_setting_are_escaped() -> None:
    (message,) = differences({"system": "a\x1b[31m\n"}, {"system": "b\x9b"})
    assert message.isprintable()


def test_header_that_the_disk_has_no_room_for_leaves_no_file(output: Path) -> None:
    write_header(output, Header({"seed": 1}))
    before = {path.name: path.read_bytes() for path in output.parent.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_header(output, Header({"seed": 2}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name: path.read_bytes() for path in output.parent.iterdir()} == before

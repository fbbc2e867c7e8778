"""The header beside an output: written whole or not at all, compared setting by setting, true to the input."""

from __future__ import annotations

import math
from pathlib import Path

import orjson
import pytest

from lalign.errors import InputError, OutputError
from lalign.jobs.header import Header, InputProgress, differences, read_header, write_header


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def test_header_comes_back_as_it_was_written(output: Path) -> None:
    header = Header({"ratio": 3.0, "stop": ["\n"], "max_kl": None}, input_lines=12, input_sha256="ab")
    write_header(output, header)
    assert read_header(output) == header


def test_header_is_a_json_object_beside_the_output(output: Path) -> None:
    write_header(output, Header({"ratio": 3.0}, 12, "ab"))
    assert orjson.loads((output.parent / "out.jsonl.run.json").read_bytes()) == {
        "format": 1,
        "fingerprint": {"ratio": 3.0},
        "input": {"lines": 12, "sha256": "ab"},
    }


def test_without_a_header_there_is_none(output: Path) -> None:
    assert read_header(output) is None


def test_header_cut_short_by_a_crash_leaves_the_old_one(output: Path) -> None:
    write_header(output, Header({"seed": 1}))
    output.with_name("out.jsonl.run.json.tmp").write_bytes(b'{"format": 1, "finger')
    assert read_header(output) == Header({"seed": 1})
    write_header(output, Header({"seed": 2}))
    assert read_header(output) == Header({"seed": 2})
    assert [path.name for path in output.parent.iterdir()] == ["out.jsonl.run.json"]


@pytest.mark.parametrize("stored", [b"", b"{", b"\xff", b"[]", b"{}", b'{"format": 1, "fingerprint": {}, "input": {}}'])
def test_damaged_header_is_told(output: Path, stored: bytes) -> None:
    output.with_name("out.jsonl.run.json").write_bytes(stored)
    with pytest.raises(OutputError, match=r"out\.jsonl\.run\.json: is not a run header$"):
        read_header(output)


def test_header_of_another_format_is_told(output: Path) -> None:
    output.with_name("out.jsonl.run.json").write_bytes(b'{"format": 2}')
    with pytest.raises(OutputError, match="has format 2, this version of lalign reads 1"):
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


class TestInputProgress:
    def test_a_mark_waits_until_its_lines_are_answered(self) -> None:
        progress = InputProgress()
        for line in (1, 2, 3, 5):
            progress.mark(line, f"digest {line}")
        progress.answer(2)
        assert progress.settled == (2, "digest 2")
        progress.answer(4)
        assert progress.settled == (3, "digest 3")
        progress.answer(5)
        assert progress.settled == (5, "digest 5")

    def test_a_mark_of_lines_answered_before_counts_at_once(self) -> None:
        progress = InputProgress()
        progress.answer(10)
        progress.mark(7, "digest 7")
        assert progress.settled == (7, "digest 7")

    def test_reading_the_same_lines_again_never_goes_back(self) -> None:
        progress = InputProgress(3, "digest 3")
        progress.answer(3)
        for line in (1, 2, 3):
            progress.mark(line, f"digest {line}")
            assert progress.settled == (3, "digest 3")

    def test_other_lines_are_refused(self) -> None:
        progress = InputProgress(2, "digest 2")
        progress.mark(1, "other 1")
        with pytest.raises(InputError, match="the first 2 lines of the input are not those the output answers"):
            progress.mark(2, "other 2")

    def test_a_line_that_was_emptied_is_refused_at_the_next(self) -> None:
        progress = InputProgress(2, "digest 2")
        with pytest.raises(InputError, match="the first 2 lines"):
            progress.mark(3, "digest 3")

    def test_a_shorter_input_is_refused_at_its_end(self) -> None:
        progress = InputProgress(2, "digest 2")
        progress.mark(1, "digest 1")
        with pytest.raises(InputError, match="the input has lost some of the 2 lines the output answers"):
            progress.end()

    def test_an_input_that_grew_is_taken(self) -> None:
        progress = InputProgress(2, "digest 2")
        progress.mark(2, "digest 2")
        progress.mark(3, "digest 3")
        progress.end()
        progress.answer(3)
        assert progress.settled == (3, "digest 3")

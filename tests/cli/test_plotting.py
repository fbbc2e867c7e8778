"""`lalign plot` as its users run it: figures from what runs have written, the same as those that the runs draw."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import orjson
import pytest
from browser import page_data
from conftest import Lalign

from lalign.figures.page import visible

PROMPTS = [{"id": f"n{number}", "prompt": f"{number} and {number}?"} for number in range(1, 7)]


def write(path: Path, *records: Any) -> Path:
    path.write_bytes(b"".join(orjson.dumps(record) + b"\n" for record in records))
    return path


def records(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def words(path: Path) -> str:
    return " ".join(" ".join(ElementTree.parse(path).getroot().itertext()).split())


@pytest.fixture
def swept(lalign: Lalign, tmp_path: Path) -> Path:
    """A folder with a sweep: its input, its output, and what it drew."""
    write(tmp_path / "in.jsonl", *PROMPTS, {"id": "bad", "prompt": ""})
    points = ("--ratios", "0:2", "--ps", "1.5,2")
    done = lalign("sweep", *lalign.tiny, "in.jsonl", *points, "-o", "sweep.jsonl", "--plot", "run.svg")
    assert done.status == 1, done.err  # for the bad line
    return tmp_path


def test_a_sweep_is_drawn_as_the_run_drew_it(lalign: Lalign, swept: Path) -> None:
    again = lalign("plot", "sweep.jsonl", "-o", "again.svg")
    assert (again.status, again.out, again.err) == (0, b"", "")
    assert (swept / "again.svg").read_bytes() == (swept / "run.svg").read_bytes()
    assert "n = 6; model" in words(swept / "run.svg")
    assert "principle “Be kind.”" in words(swept / "run.svg")
    refused = lalign("plot", "sweep.jsonl", "-o", "again.svg")
    assert (refused.status, "exists; --overwrite" in refused.err) == (2, True)
    for file, *options in (
        ("a.pdf", "--width", "column"),
        ("b.png", "--x", "kl"),
        ("again.svg", "--x", "kl", "--overwrite"),
    ):
        done = lalign("plot", "sweep.jsonl", "-o", file, *options)
        assert (done.status, done.err) == (0, "")
    assert (swept / "a.pdf").read_bytes().startswith(b"%PDF")
    assert words(swept / "again.svg").count("KL, nats per token") > words(swept / "run.svg").count("KL, nats per token")


def test_a_page_is_drawn_with_the_prompts_of_the_input(lalign: Lalign, swept: Path) -> None:
    done = lalign("plot", "sweep.jsonl", "--input", "in.jsonl", "-o", "a.html")
    assert (done.status, done.err) == (0, "")
    sheets = page_data(swept / "a.html")["prompts"]
    assert [sheet["prompt"] for sheet in sheets[:6]] == [prompt["prompt"] for prompt in PROMPTS]
    said = ["".join(span[0] for span in card["spans"][: card["own"]]) for card in sheets[0]["outcomes"]]
    assert said == [visible(record["response"]) for record in records(swept / "sweep.jsonl")[:6]]
    bare = lalign("plot", "sweep.jsonl", "-o", "b.html")
    assert (bare.status, "--input" in bare.err) == (0, True)
    assert page_data(swept / "b.html")["prompts"][0]["prompt"] == "n1"


def test_what_eval_score_and_judge_found_is_drawn_over_the_kl(lalign: Lalign, swept: Path) -> None:
    own = records(swept / "sweep.jsonl")
    write(
        swept / "scored.jsonl",
        *(record | ({} if "error" in record else {"reward": 1.0 + record["line"]}) for record in own),
    )
    point = {name: value for name, value in own[0]["alignment"].items() if name not in ("summary", "placement")}
    level = {"n": 8, "accuracy": 0.5, "low": 0.25, "high": None}
    accuracy = {
        "settings": {"model": "models/tiny", "principle": None},
        "questions": 8,
        "chance": 0.25,
        "ratios": [{**point, "ratio": ratio, "domains": {"diet": level}, "total": level} for ratio in (0.0, 1.0)],
    }
    (swept / "eval.json").write_bytes(orjson.dumps(accuracy, option=orjson.OPT_INDENT_2))
    done = lalign("plot", "sweep.jsonl", "scored.jsonl", "eval.json", "-o", "a.svg", "--x", "kl")
    assert done.status == 0, done.err
    assert done.err == "lalign: Accuracy: known of 2 of 6 points\n"
    text = words(swept / "a.svg")
    for shown in ("Reward", "mean reward", "Accuracy", "% right", "Pareto front"):
        assert shown in text
    alone = lalign("plot", "scored.jsonl", "-o", "scored.svg")  # a sweep still
    assert (alone.status, alone.err) == (0, "")
    assert "Pareto front" in words(swept / "scored.svg")
    only = lalign("plot", "eval.json", "-o", "eval.svg")
    assert (only.status, only.err) == (0, "")
    assert "n = 8 questions; bars: 95 % intervals; model tiny; principle: each user's preference" in words(
        swept / "eval.svg"
    )
    judged = [
        {"id": n, "line": n, "first": f"r{ratio}", "second": "base", "outcome": "win", "lengths": [1, 1], "orders": []}
        for ratio in (1, 2)
        for n in (1, 2, 3)
    ]
    write(swept / "judged.jsonl", *judged)
    bars = lalign("plot", "judged.jsonl", "-o", "judged.svg", "--width", "column")
    assert (bars.status, bars.err) == (0, "")
    assert "r1 vs base (n = 3)" in words(swept / "judged.svg")
    several = lalign("plot", "sweep.jsonl", "judged.jsonl", "-o", "b.svg")
    assert (several.status, "several curves" in several.err) == (2, True)
    write(swept / "one.jsonl", *(record for record in own if "error" not in record and record["alignment"]["p"] == 2))
    done = lalign("plot", "one.jsonl", "judged.jsonl", "-o", "b.svg")
    assert (done.status, done.err) == (0, "lalign: Score against base: known of 2 of 3 points\n")


def evaluated(model: str, principle: str | None, questions: int = 8) -> dict[str, Any]:
    """The JSON of an evaluation."""
    level = {"n": questions, "accuracy": 0.5, "low": 0.25, "high": 0.75}
    points = [{"recipe": "lalign", "ratio": ratio, "domains": {"diet": level}, "total": level} for ratio in (0.0, 1.0)]
    settings = {"model": model, "principle": principle, "scoring": "logit"}
    return {"settings": settings, "questions": questions, "chance": 0.25, "ratios": points}


@pytest.mark.parametrize(
    ("principles", "told"),
    [
        (("Be kind.", "Be kind."), "; principle “Be kind.”"),
        ((None, None), "; principle: each user's preference"),
        (("Be kind.", None), "; principles differ"),
    ],
)
def test_evaluations_side_by_side_are_drawn_as_eval_drew_them(
    lalign: Lalign, tmp_path: Path, principles: tuple[str | None, str | None], told: str
) -> None:
    for name, principle, questions in zip(("small", "large"), principles, (8, 9), strict=True):
        (tmp_path / f"{name}.json").write_bytes(orjson.dumps(evaluated(name, principle, questions)))
    merged = lalign("eval", "--merge", "small.json", "large.json", "--plot", "merged.svg")
    assert merged.status == 0, merged.err
    (tmp_path / "merged.json").write_bytes(merged.out)
    (tmp_path / "line.json").write_bytes(orjson.dumps(orjson.loads(merged.out)))
    for name in ("merged.json", "line.json"):
        done = lalign("plot", name, "-o", "again.svg", "--overwrite")
        assert (done.status, done.err) == (0, "")
        assert (tmp_path / "again.svg").read_bytes() == (tmp_path / "merged.svg").read_bytes()
    text = words(tmp_path / "again.svg")
    assert f"n = 8 to 9 questions; bars: 95 % intervals{told}" in text
    assert "small" in text
    assert "large" in text


def test_several_evaluations_are_none_of_one_sweep(lalign: Lalign, swept: Path) -> None:
    (swept / "runs.json").write_bytes(orjson.dumps({"runs": [evaluated("a", None), evaluated("b", None)]}))
    done = lalign("plot", "sweep.jsonl", "runs.json", "-o", "a.svg")
    assert (done.status, done.err) == (2, "lalign: runs.json: holds 2 evaluations; give the JSON of one alone\n")


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_packed_sweep_is_drawn(lalign: Lalign, swept: Path, suffix: str) -> None:
    points = ("--ratios", "0:2", "--ps", "1.5,2")
    assert lalign("sweep", *lalign.tiny, "in.jsonl", *points, "-o", f"sweep.jsonl{suffix}").status == 1
    done = lalign("plot", f"sweep.jsonl{suffix}", "-o", "again.svg")
    assert (done.status, done.err) == (0, "")
    assert (swept / "again.svg").read_bytes() == (swept / "run.svg").read_bytes()


def test_a_sweep_in_parquet_is_refused_for_what_it_is(lalign: Lalign, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", *PROMPTS)
    assert lalign("sweep", *lalign.tiny, "in.jsonl", "--ratios", "0,1", "-o", "sweep.parquet").status == 0
    done = lalign("plot", "sweep.parquet", "-o", "a.svg")
    problem = "is Parquet; figures are drawn from JSON Lines, .gz and .zst too (-o OUT.jsonl.gz)"
    assert (done.status, done.err) == (2, f"lalign: sweep.parquet: {problem}\n")


@pytest.mark.parametrize(
    ("content", "arguments", "problem"),
    [
        (
            b'{"prompt": "Hi"}\n',
            [],
            "a.jsonl: is nothing that lalign sweep, generate, score, judge or eval has written",
        ),
        (b"hello\n", [], "a.jsonl: is nothing that lalign sweep"),
        (b"[1, 2]", [], "a.jsonl: is nothing that lalign sweep"),
        (b"\xff\xfe", [], "a.jsonl: is nothing that lalign sweep"),
        (b'{\n"questions": 3\n}', [], "a.jsonl: is nothing that lalign sweep"),
        (
            b'{"id": 1, "line": 1, "alignment": "x", "error": {"type": "x", "message": "y"}}\n'
            b'{"id": 1, "line": 2, "response": "Hi", "alignment": {"recipe": "lalign", "ratio": 1}}\n',
            [],
            "a.jsonl:1: alignment: is not as lalign writes it",
        ),
        (b'{"runs": []}', [], "a.jsonl: is nothing that lalign sweep"),
        (b'{"runs": [{"questions": 3}]}', [], "a.jsonl: is nothing that lalign sweep"),
        (b"", [], "a.jsonl: holds no records, or errors alone"),
        (b'{"id": 1, "line": 1, "error": {"type": "x", "message": "y"}}\n', [], "holds no records, or errors alone"),
        (None, [], "a.jsonl: No such file"),
        (
            b'{"id": 1, "line": 1, "response": "Hi", "alignment": {"recipe": "lalign", "ratio": 1}}\n',
            [],
            "a.jsonl:1: steps: missing; figures are drawn from outputs with --stats steps",
        ),
        (
            b'{"id": 1, "line": 1, "response": "Hi", "alignment": {"recipe": "soup", "ratio": 1}}\n',
            [],
            "a.jsonl:1: alignment: is not as lalign sweep writes it",
        ),
        (b'{"response": "Hi", "reward": 1}\n', ["--x", "kl"], "--x: kl needs the sweep"),
        (b'{"response": "Hi", "reward": null}\n', [], "a.jsonl: holds no rewards"),
        (b'{"response": "Hi", "reward": 1}\n', ["-o", "a.html"], "--output: must name a .pdf, .png or .svg file"),
        (b'{"response": "Hi", "reward": 1}\n', ["-o", "a.gif"], "--output: must name a .pdf, .png, .svg or .html file"),
        (b'{"response": "Hi", "reward": 1}\n', ["-o", "a.jsonl"], "--output: must name"),
        (b'{"response": "Hi", "reward": 1}\n', ["--width", "wide"], "--width: must be one of column, full"),
        (b'{"response": "Hi", "reward": 1}\n', ["--x", "p"], "--x: must be one of ratio, kl"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(
    lalign: Lalign, tmp_path: Path, content: bytes | None, arguments: list[str], problem: str
) -> None:
    if content is not None:
        (tmp_path / "a.jsonl").write_bytes(content)
    done = lalign("plot", "a.jsonl", *([] if "-o" in arguments else ["-o", "a.svg"]), *arguments)
    assert (done.status, done.out) == (2, b"")
    assert done.err.count("\n") == 1
    assert problem in done.err
    assert not (tmp_path / "a.svg").exists()

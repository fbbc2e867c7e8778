"""Several evaluations side by side, and one that is gone on with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from lalign.errors import InputError, OutputError
from lalign.evaluation.evaluation import summarise
from lalign.evaluation.job import AskedItems
from lalign.evaluation.preferences import Item, Question, make_items
from lalign.evaluation.runs import named, read_runs, table, to_json, to_runs
from lalign.evaluation.scoring import EvaluationOptions, Score, first_of
from lalign.jobs.output import open_output
from lalign.method.linear_alignment import Alignment

QUESTIONS = [Question(line, None, f"{line}?", ("yes", "no", "perhaps"), answer=line % 3) for line in range(1, 6)]
POINTS = [Alignment(ratio=ratio) for ratio in (0, 1, 0, 2)]


def stored(model: str, ratios: tuple[float, ...] = (0.0, 2.0), questions: int = 5) -> dict[str, Any]:
    points = [Alignment(ratio=ratio) for ratio in ratios]
    items = make_items(QUESTIONS[:questions], principle="Be kind.")
    scores = [Score(item, (0,) * (2 + len(points))) for item in items]
    return dict(orjson.loads(orjson.dumps(summarise(scores, points, EvaluationOptions(), model).to_dict())))


def written(path: Path, *values: Any) -> list[Path]:
    files = [path / f"{number}.json" for number in range(len(values))]
    for file, value in zip(files, values, strict=True):
        file.write_bytes(orjson.dumps(value))
    return files


def test_runs_of_several_files_stand_side_by_side_and_are_read_again(tmp_path: Path) -> None:
    one, other = stored("small"), stored("large", (0.0, 1.0, 2.0, 3.0), 4)
    runs = read_runs(written(tmp_path, one, other))
    assert [(run.name, run.questions, len(run.points)) for run in runs] == [("small", 5, 2), ("large", 4, 4)]
    assert runs[0].points[1][:2] == (2.0, one["ratios"][1]["total"]["accuracy"])
    again = read_runs(written(tmp_path, to_json(runs), stored("medium")))
    assert [run.name for run in again] == ["small", "large", "medium"]
    assert to_json(again)["runs"][:2] == [one, other]
    console = Console(width=80, record=True)
    console.print(table(again))
    shown = console.export_text()
    assert all(name in shown for name in ("small", "large", "medium", "Chance: 33.3"))


def test_no_figure_and_no_name_of_the_table_is_broken() -> None:
    ratios = tuple(map(float, range(9)))
    whole = stored("Meta-Llama-3-8B-Instruct-abliterated", ratios)
    for point in whole["ratios"]:
        point["total"] |= {"accuracy": 1.0, "low": 1.0, "high": 1.0}
    runs = to_runs([whole | {"questions": 50_000}, stored("small", ratios), stored("文" * 40, ratios)])
    console = Console(width=80)
    with console.capture() as captured:
        console.print(table(runs))
    shown = captured.get().splitlines()
    assert max(map(len, shown)) <= 80
    assert "…" not in "".join(shown)
    assert ["A", "50000", *["100.0"] * 7] in [line.split() for line in shown]
    assert ["100–100"] * 7 in [line.split() for line in shown]
    assert any(line.split()[:2] == ["small", "5"] for line in shown)
    assert "2 more ratios are in the JSON" in " ".join(" ".join(shown).split())
    assert shown[-3].split() == ["A", "Meta-Llama-3-8B-Instruct-abliterated"]
    assert "".join(line.split()[-1] for line in shown[-2:]) == "文" * 40


def test_runs_of_one_model_are_told_apart() -> None:
    released = stored("small")
    released["ratios"] = [{**point, "recipe": "released"} for point in released["ratios"]]
    names = [run.name for run in to_runs([stored("small"), released, stored("small"), stored("large")])]
    assert names == ["small, lalign, logit (1)", "small, released, logit", "small, lalign, logit (2)", "large"]


def test_what_cannot_stand_side_by_side_is_refused(tmp_path: Path) -> None:
    two = stored("two")
    with pytest.raises(InputError, match="different numbers of answers"):
        to_runs([stored("three"), {**two, "chance": 0.5}])
    for bad, problem in (
        ({"settings": {}}, "is not what lalign eval has written"),
        ({**two, "ratios": [{"ratio": 1}]}, "is not what lalign eval has written"),
        ([two], "is not what lalign eval has written"),
        ({"runs": []}, "runs: must be a list"),
    ):
        (file,) = written(tmp_path, bad)
        with pytest.raises(InputError, match=f"{file}: {problem}"):
            read_runs([file])
    file.write_text("{")
    with pytest.raises(InputError, match=f"{file}:1: not valid JSON"):
        read_runs([file])
    with pytest.raises(InputError, match=r"nowhere.json: No such file"):
        read_runs([tmp_path / "nowhere.json"])
    assert named([]) == []


# Going on with an evaluation


def chosen(item: Item) -> Score:
    return Score(item, (item.letter, None, 0, 1))


def asked_in(path: Path, order: list[int], *, resume: bool = False, settings: dict[str, Any] | None = None) -> int:
    """Asks the items at these places, and returns how many stood before."""
    items = make_items(QUESTIONS, principle="Be kind.")
    with open_output(path, resume=resume) as output:
        records = AskedItems(output, path, items, POINTS, settings or {"model": "tiny"})
        assert records.standing == [chosen(item) for item in items[: len(records.standing)]]
        for place in order:
            if place >= len(records.standing):
                records.put(chosen(items[place]))
    return len(records.standing)


@given(order=st.permutations(range(5)), killed=st.integers(0, 5), torn=st.integers(0, 40))
def test_an_evaluation_that_is_killed_and_gone_on_with_leaves_what_one_in_one_go_does(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], killed: int, torn: int
) -> None:
    folder = tmp_path_factory.mktemp("asked")
    asked_in(folder / "whole.jsonl", [0, 1, 2, 3, 4])
    whole = (folder / "whole.jsonl").read_bytes()
    path = folder / "parts.jsonl"
    asked_in(path, order[:killed])
    begun = path.read_bytes() if path.exists() else b""
    assert whole.startswith(begun)
    with path.open("ab") as file:  # what a power failure leaves of the next record
        file.write(whole[len(begun) : len(begun) + torn].rstrip(b"\n"))
    asked_in(path, order, resume=True)
    assert path.read_bytes() == whole
    assert asked_in(path, [], resume=True) == 5


def test_an_output_of_other_settings_or_questions_is_not_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "asked.jsonl"
    asked_in(path, [0, 1, 2])
    with pytest.raises(OutputError, match="model"):
        asked_in(path, [], resume=True, settings={"model": "other"})
    others = make_items([Question(1, None, "Other?", ("yes", "no", "perhaps"), answer=1)] * 3, principle="Be kind.")
    with open_output(path, resume=True) as output, pytest.raises(InputError):
        AskedItems(output, path, others, POINTS, {"model": "tiny"})


@pytest.mark.parametrize(
    ("response", "place"),
    [("B", 1), (" B. Take a bus", 1), ("Bus", 1), ("**B**", None), ("b", None), ("", None), ("D", None), ("\n\nA", 0)],
)
def test_the_first_character_is_compared_as_it_stands(response: str, place: int | None) -> None:
    assert first_of(response, 3) == place

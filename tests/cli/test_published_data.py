"""Public data in the shapes that they are published in, by the command lines that the pages show for them."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from conftest import Lalign

RECORDS_PAGE = Path(__file__).parents[2] / "docs" / "records.md"
# Long enough for none of what must not be in a prompt to be in another text.
ANSWER = "It is the secret answer."

ALPACA_EVAL = [
    {"dataset": "helpful_base", "instruction": text, "output": ANSWER, "generator": "text_davinci_003"}
    for text in ("What are some plants?", "Who was\nshe?")
]
MT_BENCH: list[dict[str, Any]] = [
    {"question_id": 81, "category": "writing", "turns": ["Write a blog.", "Rewrite it."]},
    {"question_id": 101, "category": "math", "turns": ["What is 1 + 1?", "And 2 + 2?"], "reference": ["2", "4"]},
]
SHAREGPT = [
    {"id": "QWJhYvA_0", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": ANSWER}]},
    {
        "id": "i6IyJda_0",
        "conversations": [
            {"from": "human", "value": "One?"},
            {"from": "gpt", "value": "Two."},
            {"from": "human", "value": "Three?"},
            {"from": "gpt", "value": ANSWER},
        ],
    },
]
DSP = [
    {"query": text, "responses": dict.fromkeys(("academy", "business", "entertainment", "literature"), ANSWER)}
    for text in ("How do I invest?", "Name a book.")
]
LM_EVAL = [
    {
        "doc_id": number,
        "doc": {"question": question, "answer": ANSWER},
        "target": ANSWER,
        "arguments": {"gen_args_0": {"arg_0": f"Question: {question}\nAnswer:", "arg_1": {"until": ["Question:"]}}},
        "resps": [[ANSWER]],
        "filtered_resps": [ANSWER],
        "exact_match": 1.0,
    }
    for number, question in enumerate(("How many eggs?", "How many hens?"))
]


def array(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text(json.dumps(rows, indent=2))


def json_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def snapshot(path: Path, rows: list[dict[str, Any]]) -> None:
    (path / "data").mkdir(parents=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path / "data" / "train-00000-of-00001.parquet")


def user(*texts: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for role, text in zip(("user", "assistant", "user"), texts, strict=False)]


@pytest.mark.parametrize(
    ("name", "write", "rows", "ids", "asked"),
    [
        ("alpaca_eval.json", array, ALPACA_EVAL, [1, 2], [user(row["instruction"]) for row in ALPACA_EVAL]),
        ("question.jsonl", json_lines, MT_BENCH, [81, 101], [user(str(row["turns"][0])) for row in MT_BENCH]),
        ("sharegpt.json", array, SHAREGPT, ["QWJhYvA_0", "i6IyJda_0"], [user("Hi"), user("One?", "Two.", "Three?")]),
        ("domain_specific_preference.test.json", array, DSP, [1, 2], [user(str(row["query"])) for row in DSP]),
        ("samples_gsm8k.jsonl", json_lines, LM_EVAL, [0, 1], [user("Q: How many eggs?"), user("Q: How many hens?")]),
        ("alpaca", snapshot, ALPACA_EVAL, [1, 2], [user(row["instruction"]) for row in ALPACA_EVAL]),
    ],
)
def test_a_shape_is_answered_by_the_command_of_the_page(
    lalign: Lalign,
    tmp_path: Path,
    name: str,
    write: Callable[[Path, list[dict[str, Any]]], None],
    rows: list[dict[str, Any]],
    ids: list[object],
    asked: list[Any],
) -> None:
    """As the same prompts in lalign's own shape are answered."""
    write(tmp_path / name, rows)
    (tmp_path / "template.txt").write_text("Q: {{ doc.question }}\n")
    line = rf"^lalign generate ({re.escape(name)}( .*)?) --principle hh\.txt$"
    ((shown, _),) = re.findall(line, RECORDS_PAGE.read_text(), re.MULTILINE)
    found = lalign.generate(*shlex.split(shown), "--stats", "none")
    assert found.status == 0, found.err
    json_lines(tmp_path / "own.jsonl", [{"messages": messages} for messages in asked])
    own = lalign.generate("own.jsonl", "--stats", "none")
    answered = [record | {"id": record["line"]} for record in found.records]
    for record in answered:
        record.pop("read_by", None)
    assert answered == own.records
    assert [record["id"] for record in found.records] == ids
    shown_prompts = lalign.generate(*shlex.split(shown), "--dry-run", 9).out.decode()
    assert "secret" not in shown_prompts
    assert ("later" in found.err or "after the first" in found.err) == (name == "question.jsonl")

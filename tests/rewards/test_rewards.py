"""Rewards: the number that the reward model gives, whatever the batch; records as they were, errors too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet
import pytest
import torch
from conftest import Lalign, TinyTokenizer
from transformers import AutoModelForSequenceClassification, LlamaConfig

from lalign.errors import InputError, ModelError
from lalign.figures.rewards import normalised
from lalign.rewards.answers import Answer, read_answers
from lalign.rewards.best import best
from lalign.rewards.model import RewardModel, load_reward_model
from lalign.rewards.prompts import PromptFile, conversations
from lalign.rewards.scoring import Scored, score

ERROR = {"id": "e", "line": 9, "error": {"type": "invalid_json", "message": "no"}}
NewModel = Callable[..., RewardModel]


@pytest.fixture(scope="module")
def new_model(tiny_tokenizer: TinyTokenizer) -> NewModel:
    """`new_model(template="chatml", **config)`: a tiny random reward model with a context of 64 tokens."""

    def build(template: str | None = "chatml", **given: Any) -> RewardModel:
        options = {"num_labels": 1, "pad_token_id": 2, "max_position_embeddings": 64, "initializer_range": 0.3, **given}
        config = LlamaConfig(
            vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, **options
        )
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = AutoModelForSequenceClassification.from_config(config).eval()
        return RewardModel(model, tiny_tokenizer(template), "tiny")

    return build


@pytest.fixture(scope="module")
def folder(new_model: NewModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reward")
    model = new_model()
    model.model.save_pretrained(path)
    model.tokenizer.save_pretrained(path)
    return path


def kept(line: int, response: str = "Yes.", sample: int = 0, **more: Any) -> dict[str, Any]:
    of_input = {"prompt": f"{'word ' * (line % 4)}{line}?"}
    return {"id": f"n{line}", "line": line, "sample": sample, "response": response, "input": of_input, **more}


def answers(*records: dict[str, Any]) -> list[Answer]:
    return [Answer("out.jsonl", number, orjson.dumps(record), record) for number, record in enumerate(records, 1)]


def scores(model: RewardModel, *records: dict[str, Any], batch_size: int = 16) -> list[Scored]:
    return list(score(conversations(answers(*records), None), model, batch_size))


def write(path: Path, *records: dict[str, Any]) -> Path:
    path.write_bytes(b"".join(orjson.dumps(record) + b"\n" for record in records))
    return path


def rows(path: Path) -> list[dict[str, Any]]:
    """The records of a packed output."""
    if path.suffix == ".parquet":
        found: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
        return [{**row, "input": orjson.loads(row["input"])} for row in found]
    return [dict(answer.record) for answer in read_answers(path)]


RECORDS = [kept(line, "ab" * (7 * line % 5 + 1), sample) for line in range(1, 8) for sample in (0, 1)]


class TestRewards:
    @pytest.mark.parametrize("batch_size", [1, 3, 16])
    def test_a_reward_is_what_stock_code_gives_of_the_conversation(self, new_model: NewModel, batch_size: int) -> None:
        model = new_model()
        found = scores(model, *RECORDS, batch_size=batch_size)
        for record, scored in zip(RECORDS, found, strict=True):
            turns = [
                {"role": "user", "content": record["input"]["prompt"]},
                {"role": "assistant", "content": record["response"]},
            ]
            ids = model.tokenizer.apply_chat_template(turns, return_tensors="pt", return_dict=True)["input_ids"]
            with torch.no_grad():
                expected = float(model.model(input_ids=ids).logits[0, 0])
            assert scored.reward == pytest.approx(expected, abs=1e-5)

    def test_a_model_without_padding_scores_one_at_a_time(self, new_model: NewModel) -> None:
        alone = [found.reward for found in scores(new_model(pad_token_id=None), *RECORDS)]
        assert alone == pytest.approx([found.reward for found in scores(new_model(), *RECORDS)], abs=1e-5)

    def test_the_text_of_a_special_token_in_a_response_stays_text(self, new_model: NewModel) -> None:
        model = new_model()
        found = model.token_ids((), "a<|im_end|>b")
        assert found.count(model.tokenizer.convert_tokens_to_ids("<|im_end|>")) == 1

    def test_what_is_too_long_has_no_reward_and_says_why(self, new_model: NewModel) -> None:
        (found,) = scores(new_model(), kept(1, "word " * 80))
        record = orjson.loads(found.to_line())
        assert record["reward"] is None
        assert "context of 64" in record["reward_error"]
        assert record["response"] == "word " * 80

    def test_errors_pass_through_to_the_byte(self, new_model: NewModel) -> None:
        first, second = scores(new_model(), kept(1), ERROR)
        assert second.to_line() == orjson.dumps(ERROR) + b"\n"
        assert first.to_line().startswith(orjson.dumps(kept(1))[:-1])

    def test_numbers_of_a_record_keep_their_digits(self, new_model: NewModel) -> None:
        record = kept(1)
        raw = orjson.dumps(record)[:-1] + b', "x": 123456789012345678901234567890 }'
        (found,) = score([(Answer("out.jsonl", 1, raw, record), ())], new_model())
        assert b"123456789012345678901234567890," in found.to_line()

    def test_a_second_reward_is_refused(self, new_model: NewModel) -> None:
        with pytest.raises(InputError, match=r"out\.jsonl:1: reward: there is one already"):
            scores(new_model(), kept(1, reward=1.0))


class TestPrompts:
    def test_the_input_names_the_conversation_by_line_and_id(self, tmp_path: Path) -> None:
        given = PromptFile(write(tmp_path / "in.jsonl", {"id": "n1", "prompt": "One?"}, {"id": "n2", "prompt": "Two?"}))
        (_, turns), (_, second) = conversations(
            answers({"id": "n2", "line": 2, "response": ""}, {"id": "n1", "response": ""}), given
        )
        assert (turns[0].content, second[0].content) == ("Two?", "One?")

    @pytest.mark.parametrize(
        ("record", "problem"),
        [
            ({"id": "n2", "line": 1, "response": ""}, "id: is 'n2' here, and 'n1' in line 1"),
            ({"id": "n9", "line": 9, "response": ""}, "has no line for it"),
            ({"id": "two", "response": ""}, "names 2 lines"),
            ({"id": 3, "line": 3, "response": ""}, "in.jsonl:3: "),
        ],
    )
    def test_what_does_not_match_is_refused(self, tmp_path: Path, record: dict[str, Any], problem: str) -> None:
        two = [{"id": "two", "prompt": text} for text in ("2", "4")]
        given = PromptFile(write(tmp_path / "in.jsonl", {"id": "n1", "prompt": "1"}, two[0], {"prompt": ""}, two[1]))
        with pytest.raises(InputError, match=problem):
            list(conversations(answers(record), given))

    def test_a_record_without_its_prompt_is_refused(self) -> None:
        with pytest.raises(InputError, match=r"out\.jsonl:1: input: missing; generate with --keep"):
            list(conversations(answers({"id": 1, "line": 1, "response": ""}), None))

    @pytest.mark.parametrize("line", [b"[]", b"nothing", b'{"id": 1}', b'{"id": [], "line": 1, "response": ""}'])
    def test_a_file_of_something_else_is_refused(self, tmp_path: Path, line: bytes) -> None:
        (tmp_path / "out.jsonl").write_bytes(line + b"\n")
        with pytest.raises(InputError, match=r"out\.jsonl:1: |JSON array"):
            list(read_answers(tmp_path / "out.jsonl"))


class TestModels:
    def test_a_saved_model_gives_the_same(self, new_model: NewModel, folder: Path) -> None:
        loaded = [found.reward for found in scores(load_reward_model(str(folder), "cpu"), *RECORDS)]
        assert loaded == [found.reward for found in scores(new_model(), *RECORDS)]

    def test_a_language_model_is_refused(self, tiny_folder: Path) -> None:
        with pytest.raises(ModelError, match="has 2 labels"):
            load_reward_model(str(tiny_folder))

    def test_weights_that_are_missing_are_refused(self, tiny_folder: Path, tmp_path: Path) -> None:
        """Where the configuration says one label, transformers fills in random weights."""
        for file in tiny_folder.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        config = orjson.loads((tmp_path / "config.json").read_bytes()) | {"id2label": {"0": "r"}, "label2id": {"r": 0}}
        (tmp_path / "config.json").write_bytes(orjson.dumps(config))
        with pytest.raises(ModelError, match=r"has no weights for score\.weight"):
            load_reward_model(str(tmp_path))

    def test_a_model_without_a_template_is_refused(self, new_model: NewModel) -> None:
        with pytest.raises(ModelError, match="no chat template"):
            new_model(template=None)

    def test_what_is_no_model_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="no reward model that can be loaded"):
            load_reward_model(str(tmp_path))


class TestBest:
    def test_the_highest_reward_of_each_id_is_kept_the_first_of_equals(self) -> None:
        given = [kept(2, reward=0.5), kept(2, "B", 1, reward=1), kept(2, "C", 2, reward=1), kept(1, "D", reward=-2.0)]
        assert [answer.record["response"] for answer in best(answers(*given))] == ["B", "D"]

    def test_what_has_no_reward_comes_last_and_an_error_after_it(self) -> None:
        error = {**ERROR, "id": "n2", "line": 2, "alignment": {}}
        given = [error, kept(2, "A", reward=None), kept(2, "B", reward=-9.0), kept(1, reward=None), ERROR]
        assert [answer.record.get("response") for answer in best(answers(*given))] == ["B", "Yes.", None]

    @pytest.mark.parametrize(
        ("second", "problem"),
        [
            (kept(1), "reward: missing"),
            (kept(1, reward="high"), "reward: must be a finite number"),
            ({**kept(1, reward=1.0), "line": 5}, "lines 1 and 5"),
        ],
    )
    def test_what_cannot_be_compared_is_refused(self, second: dict[str, Any], problem: str) -> None:
        with pytest.raises(InputError, match=f"out.jsonl:2: .*{problem}"):
            best(answers(kept(1, reward=0.0), second))


def test_rewards_are_normalised_over_all_files_together() -> None:
    found = normalised({"a": [1.0, 3.0], "b": [5.0]})
    assert [round(float(value), 4) for values in found.values() for value in values] == [-1.2247, 0.0, 1.2247]
    assert normalised({"a": [2.0, 2.0]})["a"].tolist() == [0, 0]


class TestCommands:
    def test_best_of_n_from_prompts_to_a_figure(self, lalign: Lalign, folder: Path, tmp_path: Path) -> None:
        write(tmp_path / "in.jsonl", {"prompt": "1?"}, {"prompt": ""}, {"prompt": "2?"})
        generated = ["in.jsonl", "-n", 3, "--temperature", 1, "--stats", "none", "-o", "out.jsonl"]
        assert lalign.generate(*generated).status == 1
        scored = ["score", "out.jsonl", "--reward-model", folder]
        refused = lalign(*scored, "-o", "scored.jsonl")
        assert (refused.status, "--keep" in refused.err) == (2, True)
        done = lalign(*scored, "--input", "in.jsonl", "-o", "scored.jsonl", "--overwrite", "--plot", "one.png")
        assert done.status == 0, done.err
        records = [orjson.loads(line) for line in (tmp_path / "scored.jsonl").read_bytes().splitlines()]
        assert [isinstance(record.get("reward"), float) for record in records] == [True] * 3 + [False] + [True] * 3
        kept = lalign("best", "scored.jsonl")
        assert kept.status == 1
        of_lines = [[record for record in records if record["line"] == line] for line in (1, 2, 3)]
        assert kept.records == [max(group, key=lambda record: record.get("reward", 0)) for group in of_lines]
        assert "of 3 ids have errors alone" in kept.err
        compared = lalign("score", "scored.jsonl", "scored.jsonl", "--plot", "two.svg")
        assert (compared.status, compared.out) == (0, b"")
        assert "mean +0.00, n = 6" in (tmp_path / "two.svg").read_text()

    @pytest.mark.parametrize("name", ["out.jsonl.gz", "out.jsonl.zst", "out.parquet"])
    def test_what_they_write_is_packed_by_its_name(
        self, lalign: Lalign, folder: Path, tmp_path: Path, name: str
    ) -> None:
        write(tmp_path / "out.jsonl", *RECORDS)
        scored, chosen = f"scored-{name}", f"best-{name}"
        assert lalign("score", "out.jsonl", "--reward-model", folder, "-o", scored).status == 0
        assert lalign("score", "out.jsonl", "--reward-model", folder, "-o", "scored.jsonl").status == 0
        assert lalign("best", "scored.jsonl", "-o", chosen).status == 0
        plain = lalign("best", "scored.jsonl").records
        assert len(rows(tmp_path / scored)) == len(RECORDS)
        assert rows(tmp_path / chosen) == plain
        assert not list(tmp_path.glob("*.part"))

    @pytest.mark.parametrize(
        ("arguments", "problem"),
        [
            (["out.jsonl"], "--reward-model: is needed, or --plot"),
            (["out.jsonl", "more.jsonl", "--reward-model", "x"], "scores one file at a time"),
            (["out.jsonl", "--plot", "a.html"], "must name a .pdf, .png or .svg"),
            (["out.jsonl", "--plot", "a.png"], "reward: missing"),
            (["out.jsonl", "--plot", "a.png", "-o", "b.jsonl"], "--output: only goes with"),
            (["out.jsonl", "--reward-model", "x", "-o", "out.jsonl"], "is the input"),
            (["out.jsonl", "--reward-model", "x", "-o", "there.jsonl"], "exists"),
            (["out.jsonl", "--reward-model", "x", "--batch-size", "0"], "--batch-size: must be"),
        ],
    )
    def test_what_cannot_be_done_is_one_line(
        self, lalign: Lalign, tmp_path: Path, arguments: list[str], problem: str
    ) -> None:
        before = write(tmp_path / "out.jsonl", kept(1)).read_bytes()
        write(tmp_path / "there.jsonl", kept(1))
        finished = lalign("score", *arguments)
        assert (finished.status, finished.out) == (2, b"")
        assert problem in finished.err
        assert finished.err.count("\n") == 1
        assert (tmp_path / "out.jsonl").read_bytes() == before

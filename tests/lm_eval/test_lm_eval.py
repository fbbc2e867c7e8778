"""The model `lalign` of lm-evaluation-harness: at ratio 0 its `hf` model, else each token as the method has it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Lalign, TinyModel, TinyTokenizer

# Not `lm_eval` alone: this folder has that name, and would be found in its place.
pytest.importorskip("lm_eval.api", reason="needs lm-evaluation-harness: pip install 'lalign[lm-eval]'")
import lm_eval
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from lalign.cli.run import run
from lalign.errors import LalignError, OptionError
from lalign.lm_eval import AlignedLM
from lalign.method.recipes import RECIPES, recipe_of
from lalign.models.loading import LoadedModel

PRINCIPLE = "Answer as a pirate does, and be brief."
QUESTIONS = [
    {"question": "What do ships sail on?", "choices": ["the sea", "the moon", "bread"], "answer": 0},
    {"question": "Which is a bird?", "choices": ["a stone", "a gull", "a rope that is long"], "answer": 1},
    {"question": "How many legs has a dog?", "choices": ["two", "three", "four"], "answer": 2},
    {"question": "What is rum made of?", "choices": ["sugar cane", "gold"], "answer": 0},
]
TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}, train: {data}}}}}
test_split: test
fewshot_split: train
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
"""
CHOICE = """
output_type: multiple_choice
doc_to_target: answer
doc_to_choice: choices
metric_list: [{metric: acc}, {metric: acc_norm}]
"""
GENERATION = """
output_type: generate_until
doc_to_target: "{{choices[answer]}}"
generation_kwargs: {until: ["\\n", "e"], max_gen_toks: 12, do_sample: false}
metric_list: [{metric: exact_match}]
"""


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two tasks and their data."""
    folder = tmp_path_factory.mktemp("tasks")
    data = folder / "questions.jsonl"
    data.write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS), encoding="utf-8")
    for name, text in (("local_choice", CHOICE), ("local_generation", GENERATION)):
        (folder / f"{name}.yaml").write_text(TASK.format(name=name, data=data) + text, encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.getbasetemp() / "datasets")


@pytest.fixture(scope="module")
def model(tiny_model: TinyModel) -> Any:
    """Context of 512 tokens."""
    return tiny_model("llama")


def aligned(model: Any, tokenizer: Any, **options: Any) -> AlignedLM:
    return AlignedLM(model, tokenizer=tokenizer, batch_size=3, **options)


def evaluated(lm: Any, tasks: Path, **options: Any) -> dict[str, Any]:
    """The samples of both tasks, and their results."""
    found: dict[str, Any] = lm_eval.simple_evaluate(
        lm,
        tasks=["local_choice", "local_generation"],
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        bootstrap_iters=0,
        **options,
    )
    return found


def logprobs(found: dict[str, Any]) -> list[tuple[float, bool]]:
    """Of all choices of all questions: how likely each is, and whether greedy decoding would write it."""
    samples = sorted(found["samples"]["local_choice"], key=lambda sample: sample["doc_id"])
    return [answer for sample in samples for [answer] in sample["resps"]]


def texts(found: dict[str, Any]) -> list[str]:
    samples = sorted(found["samples"]["local_generation"], key=lambda sample: sample["doc_id"])
    return [sample["resps"][0][0] for sample in samples]


def agree(got: dict[str, Any], wanted: dict[str, Any]) -> None:
    """The same decisions and texts, and log-probabilities within 1e-3."""
    for (logprob, greedy), (its, likewise) in zip(logprobs(got), logprobs(wanted), strict=True):
        assert logprob == pytest.approx(its, abs=1e-3)
        assert greedy == likewise
    assert texts(got) == texts(wanted)
    assert got["results"] == wanted["results"]


CONVERSATIONS: list[dict[str, Any]] = [
    {},
    {"num_fewshot": 1},
    {"apply_chat_template": True, "system_instruction": "You are kind."},
    {"apply_chat_template": True, "num_fewshot": 2, "fewshot_as_multiturn": True},
]


@pytest.mark.parametrize("options", CONVERSATIONS, ids=str)
def test_ratio_0_gives_the_figures_of_hf(
    model: Any, tiny_tokenizer: TinyTokenizer, tasks: Path, options: dict[str, Any]
) -> None:
    tokenizer = tiny_tokenizer("chatml")
    theirs = evaluated(HFLM(model, tokenizer=tokenizer, batch_size=3), tasks, **options)
    for given in ({}, {"principle_text": PRINCIPLE}):
        agree(evaluated(aligned(model, tokenizer, ratio=0, **given), tasks, **options), theirs)


@pytest.mark.real
def test_ratio_0_gives_the_figures_of_hf_with_a_real_model(stock_smol: Any, smol: LoadedModel, tasks: Path) -> None:
    options = {"apply_chat_template": True, "limit": 2}
    theirs = evaluated(HFLM(stock_smol, tokenizer=smol.tokenizer, batch_size=3), tasks, **options)
    agree(evaluated(aligned(stock_smol, smol.tokenizer, ratio=0), tasks, **options), theirs)


def in_float64(model: Any) -> Any:
    """A copy of a model that computes in float64."""
    copy = type(model)(model.config)
    copy.load_state_dict(model.state_dict())
    return copy.double().eval()


def scored(lm: Any, pairs: list[tuple[str, str]]) -> list[float]:
    asked = [Instance("loglikelihood", {}, pair, 0) for pair in pairs]
    return [logprob for logprob, _ in lm.loglikelihood(asked, disable_tqdm=True)]


@torch.no_grad()
def plainly(wide: Any, recipe: Any, base: list[int], principled: list[int], tokens: list[int]) -> float:
    """The log-probability of `tokens`, with a step of the recipe and a run of both twins for each."""
    total, state = 0.0, recipe.opening([len(tokens)], torch.device("cpu"))
    for place, token in enumerate(tokens):
        rows = [wide(torch.tensor([twin + tokens[:place]])).logits[:, -1] for twin in (base, principled)]
        if recipe.recipe == "lalign" and not recipe.is_measured:
            first, second = (row.log_softmax(-1) for row in rows)
            final = first + recipe.ratio * (second - first)
        else:
            step = recipe.step(rows[0].float(), rows[1].float(), torch.tensor([float(recipe.ratio)]), state)
            final, state = step.logits.double(), step.state
        total += float(final.log_softmax(-1)[0, token])
    return total


PAIRS = [("Question: what sails?\nAnswer:", " a ship"), ("Why? ", "because of it all"), ("One", "1")]


@pytest.mark.parametrize(
    "options",
    [*({"name": name} for name in RECIPES), {"ratio": 3}, {"kl": 0.2}, {"kl_total": 0.5}, {"max_kl": 0.01}],
    ids=str,
)
def test_scores_are_those_of_the_recipe_step_by_step(
    model: Any, tiny_tokenizer: TinyTokenizer, options: dict[str, Any]
) -> None:
    tokenizer, wide, recipe = tiny_tokenizer(), in_float64(model), recipe_of(**options)
    given = {"recipe" if option == "name" else option: value for option, value in options.items()}
    got = scored(aligned(model, tokenizer, principle_text=PRINCIPLE, **given), PAIRS)
    for (context, continuation), logprob in zip(PAIRS, got, strict=True):
        bare = context.rstrip()  # white space at the end of a context is scored
        base, principled = tokenizer(bare)["input_ids"], tokenizer(f"{PRINCIPLE}\n\n{bare}")["input_ids"]
        tokens = tokenizer(context + continuation)["input_ids"][len(base) :]
        assert logprob == pytest.approx(plainly(wide, recipe, base, principled, tokens), abs=2e-3)


def test_scores_at_ratio_1_are_those_of_hf_with_the_principle_written_in(
    model: Any, tiny_tokenizer: TinyTokenizer
) -> None:
    tokenizer = tiny_tokenizer()
    got = scored(aligned(model, tokenizer, principle_text=PRINCIPLE, ratio=1), PAIRS)
    written = [(f"{PRINCIPLE}\n\n{context}", continuation) for context, continuation in PAIRS]
    assert got == pytest.approx(scored(HFLM(model, tokenizer=tokenizer), written), abs=1e-3)


@pytest.mark.parametrize(
    "options", [{"system_instruction": "Be kind."}, {"num_fewshot": 1, "fewshot_as_multiturn": True}], ids=str
)
def test_in_a_conversation_the_principle_joins_the_system_text(
    model: Any, tiny_tokenizer: TinyTokenizer, tasks: Path, options: dict[str, Any]
) -> None:
    tokenizer, shown = tiny_tokenizer("chatml"), options | {"apply_chat_template": True}
    lm = aligned(model, tokenizer, principle_text=PRINCIPLE, ratio=1, support="none")
    written = "\n\n".join(filter(None, [options.get("system_instruction"), PRINCIPLE]))
    wanted = evaluated(
        HFLM(model, tokenizer=tokenizer, batch_size=3), tasks, **{**shown, "system_instruction": written}
    )
    agree(evaluated(lm, tasks, **shown), wanted)


def rolling(lm: Any, whole: list[str]) -> list[float]:
    asked = [Instance("loglikelihood_rolling", {}, (text,), 0) for text in whole]
    return list(lm.loglikelihood_rolling(asked, disable_tqdm=True))


TEXTS = ["The sea is wide. " * 3, "Short."]


@pytest.mark.parametrize("most", [512, 24])  # the second makes windows of the first text
def test_rolling_texts_at_ratio_0_are_those_of_hf(model: Any, tiny_tokenizer: TinyTokenizer, most: int) -> None:
    tokenizer = tiny_tokenizer(add_bos=False)
    stock = HFLM(model, tokenizer=tokenizer, batch_size=2, max_length=most)
    lm = aligned(model, tokenizer, principle_text=PRINCIPLE, ratio=0, max_length=most)
    assert rolling(lm, TEXTS) == pytest.approx(rolling(stock, TEXTS), abs=1e-3)


def test_rolling_texts_are_seen_behind_the_principle(model: Any, tiny_tokenizer: TinyTokenizer) -> None:
    tokenizer = tiny_tokenizer(add_bos=False)
    lead = tokenizer(f"{PRINCIPLE}\n\n")["input_ids"]
    lm = aligned(model, tokenizer, principle_text=PRINCIPLE, ratio=2)
    wide, prefix = in_float64(model), [lm.prefix_token_id]
    wanted = [plainly(wide, lm.recipe, prefix, prefix + lead, tokenizer(text)["input_ids"]) for text in TEXTS]
    assert rolling(lm, TEXTS) == pytest.approx(wanted, abs=5e-3)


def test_windows_of_a_long_text_leave_room_for_the_principle(model: Any, tiny_tokenizer: TinyTokenizer) -> None:
    tokenizer = tiny_tokenizer(add_bos=False)
    taken = len(tokenizer(f"{PRINCIPLE}\n\n")["input_ids"])
    lm = aligned(model, tokenizer, principle_text=PRINCIPLE, ratio=2, max_length=taken + 16)
    assert lm.max_length == 16
    assert all(value < 0 for value in rolling(lm, ["The sea is wide. " * 5]))


def test_batch_sizes_change_nothing(model: Any, tiny_tokenizer: TinyTokenizer) -> None:
    tokenizer = tiny_tokenizer()
    found = [
        scored(AlignedLM(model, tokenizer=tokenizer, principle_text=PRINCIPLE, ratio=2, batch_size=size), PAIRS)
        for size in (1, 3, "auto")
    ]
    assert found[1] == pytest.approx(found[0], abs=1e-4)
    assert found[2] == pytest.approx(found[0], abs=1e-4)


def test_generation_takes_the_settings_of_the_task(model: Any, tiny_tokenizer: TinyTokenizer) -> None:
    lm = aligned(model, tiny_tokenizer(), principle_text=PRINCIPLE, ratio=2)

    def said(count: int = 1, **options: Any) -> list[str]:
        return lm.generate_until([Instance("generate_until", {}, ("Why?", options), 0)] * count, disable_tqdm=True)

    short, long = said(max_gen_toks=2)[0], said(max_gen_toks=8)[0]
    assert long.startswith(short)
    assert len(short) < len(long)
    drawn = said(2, max_gen_toks=8, do_sample=True, temperature=1.5)
    assert drawn[0] != drawn[1]
    assert said(2, max_gen_toks=8, do_sample=True, temperature=1.5) == drawn
    with pytest.raises(OptionError, match="gen_kwargs: num_beams is no option"):
        said(max_gen_toks=2, num_beams=4)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"principle_text": PRINCIPLE, "ratio": -1}, "ratio: must be"),
    ({"ratio": 2}, "principle: is needed"),
    ({"principle": "nowhere.txt"}, "principle: nowhere.txt: No such file"),
    ({"principle": "nowhere.txt", "principle_text": "a"}, "principle_text: goes in place of"),
    ({"principle_text": " "}, "principle_text: is empty"),
    ({"recipe": "alchemy", "principle_text": "a"}, "recipe: must be one of"),
    ({"recipe": "opad", "p": 2, "principle_text": "a"}, "p: is no option of recipe opad"),
    ({"placement": "below", "principle_text": "a"}, "placement: must be one of"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=str)
def test_bad_options_are_named(
    model: Any, tiny_tokenizer: TinyTokenizer, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        aligned(model, tiny_tokenizer(), **options)


def test_what_does_not_fit_with_the_principle_is_refused(model: Any, tiny_tokenizer: TinyTokenizer) -> None:
    lm = aligned(model, tiny_tokenizer(), principle_text=PRINCIPLE, ratio=2)
    with pytest.raises(LalignError, match="more than the model's context of 512"):
        scored(lm, [("sea " * 500, "1")])


def test_a_conversation_that_was_not_written_here_is_refused(model: Any, tiny_tokenizer: TinyTokenizer) -> None:
    tokenizer, turns = tiny_tokenizer("chatml"), [{"role": "user", "content": "Why?"}]
    lm = aligned(model, tokenizer, principle_text=PRINCIPLE, ratio=2)
    cached = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    with pytest.raises(LalignError, match="--cache_requests"):
        scored(lm, [(cached, "so")])
    assert scored(lm, [(lm.apply_chat_template(turns), "so")])


@pytest.fixture
def arguments(tiny_folder: Path, tasks: Path, tmp_path: Path) -> list[str]:
    principle = tmp_path / "pirate.txt"
    principle.write_text(PRINCIPLE)
    model = f"pretrained={tiny_folder},principle={principle},ratio=2"
    return ["lm-eval", "--model_args", model, "--include_path", str(tasks), "--batch_size", "2", "--device", "cpu"]


def test_the_command_hands_its_arguments_to_lm_eval(lalign: Lalign, arguments: list[str], tmp_path: Path) -> None:
    results = tmp_path / "results"
    done = lalign(*arguments, "--tasks", "local_choice", "--output_path", results, "--log_samples")
    assert done.status == 0, done.err
    assert b"local_choice" in done.out
    [file] = results.rglob("results_*.json")
    stored = json.loads(file.read_text())
    assert stored["config"]["model"] == "lalign"
    assert stored["config"]["model_args"]["ratio"] == 2
    assert stored["n-samples"]["local_choice"]["effective"] == len(QUESTIONS)


def test_the_command_says_what_is_wrong_in_one_line(lalign: Lalign, arguments: list[str]) -> None:
    model = arguments[2].replace("ratio=2", "ratio=-2")
    done = lalign(*arguments[:2], model, *arguments[3:], "--tasks", "local_choice")
    assert done.status == 2
    assert done.err.splitlines()[-1] == "lalign: ratio: must be a number of at least 0, not -2.0"
    assert lalign(*arguments, "--tasks", "no_such_task").status != 0
    assert "Traceback" not in done.err


def test_without_the_package_the_command_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("lalign.lm_eval", "lm_eval.models"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "lm_eval.models", None)
    assert run(["lm-eval", "--tasks", "local_choice"]) == 2
    assert "pip install 'lalign[lm-eval]'" in capsys.readouterr().err

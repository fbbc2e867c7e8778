"""Choosing letters: by what the model writes, and by the aligned logits of the letters' tokens.

The scripted model knows which letter is right from the text it is shown, and so its accuracy is known beforehand. It
has the interface of a stock transformers model, keeps what it has read in the key/value cache that it is given, and
sees no more than that cache and mask let it see.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import align, model_of
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import GenerationConfig, LlamaConfig, PreTrainedTokenizerFast

from lalign.aligner import Aligner
from lalign.engine.torch_backend import TorchBackend
from lalign.errors import LalignError, ModelError, OptionError
from lalign.evaluation.preferences import LETTERS, Item, Question, make_items, read_questions
from lalign.evaluation.scoring import EvaluationOptions, Score, Scoring, letter_of, letter_tokens, score_items
from lalign.method.linear_alignment import Alignment
from lalign.models.loading import LoadedModel
from lalign.options import Execution
from lalign.records.parsing import Message
from lalign.records.prompts import PromptTemplate

SAMPLES = Path(__file__).parents[2] / "samples"
ANIMALS = ("ant", "bee", "cat", "dog")
BASE, PROMPT, ALIGNED = Alignment(ratio=0), Alignment(ratio=1), Alignment(ratio=3)
SCORINGS: tuple[Scoring, ...] = ("logit", "letter")

# Logits by token; all others are 0.
Logits = Mapping[str, float]
Rule = Callable[[str], Logits]


class ScriptedModel(nn.Module):
    """Answers with the logits that a rule gives for the text before it."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, rule: Rule, context: int = 4096) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.rule = rule
        self.rows = 0
        self.config = LlamaConfig(vocab_size=len(tokenizer), num_hidden_layers=1, max_position_embeddings=context)
        self.generation_config = GenerationConfig(eos_token_id=1)
        self.device = torch.device("cpu")

    def get_input_embeddings(self) -> nn.Embedding:
        return nn.Embedding(len(self.tokenizer), 1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, past_key_values: Any, use_cache: bool) -> Any:
        self.rows += len(input_ids) if input_ids.shape[1] > 1 else 0
        read = input_ids[:, None, :, None].float()
        seen, _ = past_key_values.update(read, read, 0)
        logits = torch.zeros(len(input_ids), 1, len(self.tokenizer))
        for row, (tokens, mask) in enumerate(zip(seen[:, 0, :, 0].long(), attention_mask.bool(), strict=True)):
            for token, logit in self.rule(self.tokenizer.decode(tokens[mask])).items():
                logits[row, 0, self.tokenizer.convert_tokens_to_ids(token)] = logit
        return SimpleNamespace(logits=logits)


def choosing(of: Callable[[str | None], Logits]) -> Rule:
    """A rule that writes one token: `of(letter)`, the letter of the answer for the user, None where none is named."""

    def rule(text: str) -> Logits:
        shown, _, written = text.partition("<|im_start|>assistant\n")
        if written:
            return {"<eos>": 9}
        user = re.search(r"asked the question is (\w+),", shown)
        letters = {animal: letter for letter, animal in re.findall(r"^([A-Z])\. food for (\w+)$", shown, re.MULTILINE)}
        return of(letters.get(user.group(1)) if user else None)  # a beginning may have the user and no choices yet

    return rule


def next_to(letter: str) -> str:
    return LETTERS[(LETTERS.index(letter) + 1) % len(ANIMALS)]


# Without a user all of them like A.
knowing = choosing(lambda letter: {letter or "A": 5})
contrary = choosing(lambda letter: {next_to(letter) if letter else "A": 5})
timid = choosing(lambda letter: {"A": 8} | ({letter: 7} if letter not in (None, "A") else {}))


@pytest.fixture
def scripted(tiny_tokenizer: Callable[..., PreTrainedTokenizerFast]) -> Callable[..., Aligner]:
    def build(rule: Rule, context: int = 4096) -> Aligner:
        tokenizer = tiny_tokenizer(chat_template="chatml", add_bos=False)
        loaded = LoadedModel(ScriptedModel(tokenizer, rule, context), tokenizer, "scripted", "scripted")
        return Aligner(TorchBackend(loaded))

    return build


def animals(count: int = 3) -> list[Question]:
    answers = tuple(f"food for {animal}" for animal in ANIMALS)
    return [Question(line, "diet", f"Lunch {line}?", answers, users=ANIMALS) for line in range(1, count + 1)]


def accuracies(scores: Sequence[Score]) -> list[float]:
    """The share of right choices at each point."""
    right = [[choice == score.item.letter for choice in score.choices] for score in scores]
    return [sum(column) / len(column) for column in zip(*right, strict=True)]


def accuracy_of(aligner: Aligner, points: Sequence[Alignment], scoring: Scoring, **asked: Any) -> list[float]:
    return accuracies(list(score_items(aligner, make_items(animals(), **asked), points, scoring)))


# A model whose right answers are known


@pytest.mark.parametrize("scoring", SCORINGS)
@pytest.mark.parametrize("asked", [{}, {"permute": "all"}, {"seed": 5}], ids=["seed", "all orders", "another seed"])
def test_a_model_that_knows_its_users_has_all_right_and_without_the_principle_a_quarter(
    scripted: Callable[..., Aligner], scoring: Scoring, asked: dict[str, Any]
) -> None:
    assert accuracy_of(scripted(knowing), [BASE, PROMPT, ALIGNED], scoring, **asked) == [0.25, 1, 1]


@pytest.mark.parametrize("scoring", SCORINGS)
def test_a_model_that_serves_others_has_none_right(scripted: Callable[..., Aligner], scoring: Scoring) -> None:
    assert accuracy_of(scripted(contrary), [BASE, PROMPT, ALIGNED], scoring) == [0.25, 0, 0]


@pytest.mark.parametrize("scoring", SCORINGS)
def test_the_step_brings_out_what_the_principle_alone_does_not(
    scripted: Callable[..., Aligner], scoring: Scoring
) -> None:
    """The user's letter has logit 7 against 8 for A, and 0 without the principle: from ratio 8/7 on it wins."""
    points = [Alignment(ratio=ratio, support="none") for ratio in (0, 1, 1.1, 1.2, 3)]
    assert accuracy_of(scripted(timid), points, scoring) == [0.25, 0.25, 0.25, 1, 1]


def test_the_support_bears_on_what_is_written_and_not_on_which_letter_is_preferred(
    scripted: Callable[..., Aligner],
) -> None:
    """In the nucleus of the principled twin there is A alone: softmax of (8, 7) at temperature 0.5 gives it 0.88."""
    assert accuracy_of(scripted(timid), [ALIGNED], "letter") == [0.25]
    assert accuracy_of(scripted(timid), [ALIGNED], "logit") == [1]


@pytest.mark.parametrize("scoring", SCORINGS)
def test_questions_without_users_take_the_principle_and_may_have_any_number_of_choices(
    scripted: Callable[..., Aligner], scoring: Scoring
) -> None:
    many = [Question(count, None, "Lunch?", tuple("abcdefgh"[:count]), answer=count - 1) for count in range(2, 9)]
    items = make_items(many, principle="Prefer the last.")

    def last(text: str) -> dict[str, float]:
        shown, _, written = text.partition("<|im_start|>assistant\n")
        letters = re.findall(r"^([A-Z])\. ", shown, re.MULTILINE) or ["?"]
        return {"<eos>": 9} if written else {letters[-1] if "Prefer" in shown else letters[0]: 7}

    scores = list(score_items(scripted(last), items, [BASE, PROMPT], scoring))
    assert len(scores) == len(many)
    assert all(score.choices == (0, len(score.item.order) - 1) for score in scores)


def test_letters_that_are_not_among_the_choices_are_never_chosen_by_logit(scripted: Callable[..., Aligner]) -> None:
    items = make_items([Question(1, None, "Lunch?", ("hay", "oats"), answer=0)], principle="Be right.")
    aligner = scripted(lambda text: {"C": 9, "B": 1})
    assert [score.choices for score in score_items(aligner, items, [BASE, PROMPT], "logit")] == [(1, 1)]


def test_a_response_that_is_no_letter_is_no_choice(scripted: Callable[..., Aligner]) -> None:
    aligner = scripted(choosing(lambda letter: {"x": 5}))
    assert {score.choices for score in score_items(aligner, make_items(animals()), [BASE, PROMPT], "letter")} == {
        (None, None)
    }


# What runs


def test_the_base_twin_of_a_question_in_one_order_runs_once_for_all_its_users(
    scripted: Callable[..., Aligner],
) -> None:
    aligner = scripted(knowing)
    points = [Alignment(ratio=ratio) for ratio in range(10)]
    assert len(list(score_items(aligner, make_items(animals(5)), points))) == 20
    assert isinstance(aligner.backend, TorchBackend)
    beginnings = len(aligner.backend._prefixes.kept)
    assert 0 < beginnings < 10
    assert model_of(aligner).rows == 5 * (1 + 4) + beginnings


@pytest.mark.parametrize("scoring", SCORINGS)
def test_every_item_is_scored_once(scripted: Callable[..., Aligner], scoring: Scoring) -> None:
    items = make_items(animals(1), permute="all")
    scores = list(score_items(scripted(knowing), items, [PROMPT], scoring, execution=Execution(batch_size=5)))
    assert sorted(map(repr, (score.item for score in scores))) == sorted(map(repr, items))


@pytest.mark.parametrize("system", [None, "Be brief."])
@pytest.mark.parametrize("template", [None, "chatml"])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma3"])
def test_choices_are_those_of_stock_forward_passes(
    tiny_model: Any, tiny_tokenizer: Any, kind: str, template: str | None, system: str | None
) -> None:
    limit = {"n_positions": 2048} if kind == "gpt2" else {"max_position_embeddings": 2048}
    model, tokenizer = tiny_model(kind, **limit), tiny_tokenizer(chat_template=template)
    # The last is far enough out for tiny models to choose by the user.
    points = [BASE, PROMPT, ALIGNED, Alignment(p=1), Alignment(p=math.inf, max_kl=0.5), Alignment(ratio=50)]
    items = make_items(animals(3))
    loaded = LoadedModel(model, tokenizer, kind, kind)
    scores = list(score_items(Aligner(TorchBackend(loaded)), items, points, system=system))
    prompts = PromptTemplate(tokenizer, system)
    letters = letter_tokens(prompts)[:4]

    def logits(item: Item, principle: str | None) -> Tensor:
        message = Message("user", item.prompt)
        with torch.inference_mode():
            stock: Tensor = model(torch.tensor([prompts.token_ids([message], principle)])).logits[:, -1]
        return stock

    for score in scores:
        base, principled = logits(score.item, None), logits(score.item, score.item.principle)
        for point, choice in zip(points, score.choices, strict=True):
            aligned = align(base, principled, torch.tensor([float(point.ratio)]), point).logits
            assert choice == int(aligned[0, letters].argmax())
    assert len({choice for score in scores for choice in score.choices}) > 1


@pytest.mark.parametrize("scoring", SCORINGS)
def test_a_question_longer_than_the_context_is_told_by_its_line(
    scripted: Callable[..., Aligner], scoring: Scoring
) -> None:
    questions = [*animals(2), Question(3, "diet", "Lunch " * 400, ANIMALS, users=ANIMALS)]
    with pytest.raises(LalignError, match=r"\Athe question of line 3: [^\n]*the model's context of 600\Z"):
        list(score_items(scripted(knowing, context=600), make_items(questions), [PROMPT], scoring))


@pytest.mark.parametrize("scoring", SCORINGS)
def test_logits_that_are_not_finite_are_told_and_not_taken_for_a_choice(
    scripted: Callable[..., Aligner], scoring: Scoring
) -> None:
    aligner = scripted(choosing(lambda letter: {letter or "A": math.nan}))
    with pytest.raises(LalignError, match=r"the question of line \d: .*logits are not finite"):
        list(score_items(aligner, make_items(animals()), [PROMPT], scoring))


# Letters


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("B", "B"),
        (" B", "B"),
        ("\n\nB.", "B"),
        ("B. Take the", "B"),
        ("B) Take", "B"),
        ("B\nC", "B"),
        ("(C)", "C"),
        ("**D**", "D"),
        ("[[A]]", "A"),
        ('"C"', "C"),
        ("_D_", "D"),
        ("1. B", "B"),
        ("D - Bones", "D"),
        ("B-", "B"),
        ("", None),
        ("42", None),
        ("...", None),
        ("b", None),
        ("E", None),
        ("Bus", None),
        ("AB", None),
        ("B2", None),
        ("A-levels", None),
        ("D'accord", None),
        ("Answer: B", None),
        ("The best answer is B", None),
        ("Β", None),  # a Greek capital
    ],
)
def test_the_letter_of_a_response_is_its_first_word(response: str, letter: str | None) -> None:
    assert letter_of(response, 4) == (None if letter is None else LETTERS.index(letter))


def test_a_letter_counts_only_where_there_are_as_many_choices() -> None:
    assert [letter_of("E", count) for count in (4, 5, 26)] == [None, 4, 4]


def spaced(tiny_tokenizer: Any, template: str | None) -> PreTrainedTokenizerFast:
    """A tokenizer that knows each letter with a space before it too, as those of real models do."""
    tokenizer: PreTrainedTokenizerFast = tiny_tokenizer(chat_template=template)
    tokenizer.add_tokens([f" {letter}" for letter in LETTERS])
    return tokenizer


def turns(before: str, header: str) -> str:
    """A chat template with `before` between a turn's role and its text, and `header` where the response begins."""
    spoken = "{% for message in messages %}[{{ message['role'] }}]" + before + "{{ message['content'] }}{% endfor %}"
    return spoken + "{% if add_generation_prompt %}" + header + "{% endif %}"


@pytest.mark.parametrize(
    ("template", "space"),
    [
        (None, " "),  # Answer: A
        ("chatml", ""),  # <|im_start|>assistant\nA
        (turns(" ", "[assistant]"), " "),
        (turns("", "[assistant]"), ""),
        # What comes first is not the answer: the letter is taken as it stands after white space, or else after a space.
        (turns("\n", "[assistant]\n<think>\n"), ""),
        (turns("\n", "[assistant]\nVerdict:"), " "),
    ],
)
def test_the_token_of_a_letter_is_the_one_that_a_response_begins_with(
    tiny_tokenizer: Any, template: str | None, space: str
) -> None:
    tokenizer = spaced(tiny_tokenizer, template)
    wanted = [f"{space}{letter}" for letter in LETTERS]
    assert [tokenizer.decode([token]) for token in letter_tokens(PromptTemplate(tokenizer))] == wanted


def test_a_tokenizer_without_letters_is_refused() -> None:
    words = Tokenizer(models.WordLevel({"<unk>": 0, "yes": 1}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    with pytest.raises(ModelError, match="no token of its own for each letter"):
        letter_tokens(PromptTemplate(PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>")))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"scoring": "guess"}, "scoring: must be one of letter, first, logit, ppl, not 'guess'"),
        ({"users": "none"}, "users: must be one of all, one, not 'none'"),
        ({"permute": None}, "permute: must be one of seed, all, none, not None"),
    ],
)
def test_options_that_are_not_known_are_refused(options: Any, problem: str) -> None:
    with pytest.raises(OptionError) as raised:
        EvaluationOptions(**options)
    assert str(raised.value) == problem


# The embedded model


@pytest.mark.real
def test_ratio_1_chooses_as_the_stock_model_with_the_principle_and_ratio_0_as_the_bare_one(
    smol: LoadedModel, stock_smol: Any
) -> None:
    items = make_items(read_questions(SAMPLES / "preferences.jsonl")[::16][:4], users="one")
    scores = list(score_items(Aligner(TorchBackend(smol)), items, [BASE, PROMPT], system="You are careful."))
    letters = smol.tokenizer.convert_tokens_to_ids(list("ABCD"))

    def choice(item: Item, system: str) -> int:
        turns = [{"role": "system", "content": system}, {"role": "user", "content": item.prompt}]
        prompt = smol.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt")
        with torch.inference_mode():
            return int(stock_smol(**prompt).logits[0, -1, letters].argmax())

    assert len(scores) == 4
    for score in scores:
        bare, principled = "You are careful.", f"You are careful.\n\n{score.item.principle}"
        assert score.choices == (choice(score.item, bare), choice(score.item, principled))
    assert letter_tokens(PromptTemplate(smol.tokenizer))[:4] == letters


@pytest.mark.parametrize("scoring", SCORINGS)
def test_a_model_loaded_to_be_compiled_scores_as_another(
    tiny_folder: Path, scoring: Scoring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda model, dynamic: model)  # which steps are taken is what matters here
    plain, compiled = (
        {score.item: score.choices for score in score_items(aligner, make_items(animals()), [BASE, ALIGNED], scoring)}
        for aligner in (Aligner.from_pretrained(str(tiny_folder), compile=compile) for compile in (False, True))
    )
    assert compiled == plain

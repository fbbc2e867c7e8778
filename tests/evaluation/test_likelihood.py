"""Whole answers by their perplexity: against a plain run of both twins for each token, and with every recipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TinyModel, TinyTokenizer
from torch import Tensor

from lalign.aligner import Aligner
from lalign.engine.forced import Forced, forced_one_by_one, token_likelihoods
from lalign.engine.interface import Point, Request
from lalign.engine.torch_backend import TorchBackend
from lalign.errors import LalignError
from lalign.evaluation.evaluation import evaluate
from lalign.evaluation.preferences import Question, make_items
from lalign.evaluation.scoring import EvaluationOptions, score_items
from lalign.method.linear_alignment import Alignment
from lalign.method.recipe import Recipe
from lalign.method.recipes import RECIPES, recipe_of
from lalign.models.loading import LoadedModel
from lalign.options import Prompting, Sampling
from lalign.records.parsing import Message
from lalign.records.prompts import PromptTemplate

USERS = ("a cook", "a sailor who sleeps little", "a judge")
ANSWERS = ("For you, salt.", "For the night, a lamp and a long rope.", "Order!")
QUESTIONS = [Question(line, "gifts", f"What to give, {line}?", ANSWERS, users=USERS) for line in (1, 2)]
RATIOS = [Alignment(ratio=ratio) for ratio in (0.0, 1.0, 2.5)]


@pytest.fixture
def model(tiny_model: TinyModel) -> Any:
    return tiny_model("llama")


def aligner(model: Any, tokenizer: Any) -> Aligner:
    return Aligner(TorchBackend(LoadedModel(model, tokenizer, "tiny", "tiny")))


def in_float64(model: Any) -> Any:
    copy = type(model)(model.config)
    copy.load_state_dict(model.state_dict())
    return copy.double().eval()


@torch.no_grad()
def aligned_rows(wide: Any, base: list[int], principled: list[int], tokens: list[int]) -> list[tuple[Tensor, Tensor]]:
    """Log-probabilities of both twins before each token, a run for each."""
    twins = (
        [wide(torch.tensor([twin + tokens[:k]])).logits[0, -1] for twin in (base, principled)]
        for k in range(len(tokens))
    )
    return [(first.log_softmax(-1), second.log_softmax(-1)) for first, second in twins]


def plain_mean(rows: Sequence[tuple[Tensor, Tensor]], tokens: list[int], ratio: float) -> float:
    """The mean log-probability of tokens where the logits are moved along the straight line through the twins."""
    each = [(b + ratio * (p - b)).log_softmax(-1)[token] for (b, p), token in zip(rows, tokens, strict=True)]
    return float(torch.stack(each).mean())


@pytest.mark.parametrize(
    ("chat", "prefill", "lead"), [(None, None, "\n"), ("chatml", None, ""), ("chatml", "Well,", " ")]
)
def test_the_answer_of_the_least_perplexity_is_that_of_a_plain_float64_twin(
    model: Any, tiny_tokenizer: TinyTokenizer, chat: str | None, prefill: str | None, lead: str
) -> None:
    tokenizer, prompting = tiny_tokenizer(chat), Prompting(prefill=prefill)
    items, wide = make_items(QUESTIONS[:1]), in_float64(model)
    scores = {
        score.item: score.choices
        for score in score_items(aligner(model, tokenizer), items, RATIOS, "ppl", prompting=prompting)
    }
    template = PromptTemplate(tokenizer, None, prompting)
    for item in items:
        turn = [Message("user", item.question.question)]
        base, principled = (template.token_ids(turn, text) for text in (None, item.principle))
        answers = [tokenizer(lead + ANSWERS[index], add_special_tokens=False)["input_ids"] for index in item.order]
        rows = [aligned_rows(wide, base, principled, tokens) for tokens in answers]
        for point, choice in zip(RATIOS, scores[item], strict=True):
            means = [plain_mean(its, tokens, point.ratio) for its, tokens in zip(rows, answers, strict=True)]
            assert choice == int(np.argmax(means))


def test_tokens_are_as_likely_in_one_pass_as_one_by_one(model: Any, tiny_tokenizer: TinyTokenizer) -> None:
    backend = aligner(model, tiny_tokenizer()).backend
    points = tuple(Point(recipe, Sampling()) for recipe in (*RATIOS, recipe_of(kl_total=0.5), recipe_of("opad")))
    texts = [
        Forced(
            Request(number, [1, 5, 9][: number + 1], ([1, 7, 8, 9],), (1.0,), points), [20, 30, 40, 50][: 4 - number]
        )
        for number in range(3)
    ]
    together = {each.request.key: found for each, found in token_likelihoods(backend, texts)}
    for each, logits in forced_one_by_one(backend, texts):
        alone = next(token_likelihoods(_Given(each, logits), [each]))[1]  # type: ignore[arg-type]
        for one, other in zip(alone, together[each.request.key], strict=True):
            np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-4)
            assert one.greedy.tolist() == other.greedy.tolist()


class _Given:
    """An engine that has run one text already."""

    def __init__(self, each: Forced, logits: Tensor) -> None:
        self._found = each, logits

    def forced_logits(self, forced: Sequence[Forced]) -> list[tuple[Forced, Tensor]]:
        return [self._found]


@pytest.mark.parametrize("scoring", ["ppl", "logit", "first"])
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_every_recipe_is_evaluated(model: Any, tiny_tokenizer: TinyTokenizer, recipe: Recipe, scoring: Any) -> None:
    pytest.importorskip("scipy")
    options = EvaluationOptions(scoring=scoring, users="one", permute="none")
    found = evaluate(aligner(model, tiny_tokenizer("chatml")), QUESTIONS, [recipe], options)
    (point,) = found.points
    assert point.alignment == recipe
    assert sum(point.letters.values()) == pytest.approx(1)


def test_an_answer_beyond_the_context_is_refused(model: Any, tiny_tokenizer: TinyTokenizer) -> None:
    long = Question(3, None, "What?", ("sea " * 600, "No."), answer=0)
    items = make_items([long], principle="Be kind.")
    with pytest.raises(LalignError, match=r"the question of line 3: .* more than the model's context of 512"):
        list(score_items(aligner(model, tiny_tokenizer()), items, RATIOS, "ppl"))


def test_special_tokens_in_an_answer_stay_text(model: Any, tiny_tokenizer: TinyTokenizer) -> None:
    from lalign.evaluation.likelihood import answer_tokens

    tokenizer = tiny_tokenizer("chatml")
    tokens = answer_tokens(PromptTemplate(tokenizer), "One <eos> two")
    assert tokenizer.eos_token_id not in tokens
    assert tokenizer.decode(tokens) == "One <eos> two"

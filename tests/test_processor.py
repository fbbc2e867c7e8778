"""The logits processor: stock `generate` with it says what lalign says, with any model, batch and way of sampling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from conftest import TinyModel, TinyTokenizer, align
from torch import Tensor

from lalign import Aligner, Alignment, AlignmentLogitsProcessor
from lalign.engine.torch_backend import TorchBackend
from lalign.method.recipe import Recipe
from lalign.method.recipes import recipe_of
from lalign.method.update import restrict_to_nucleus
from lalign.models.loading import LoadedModel
from lalign.records.parsing import Message
from lalign.records.prompts import PromptTemplate
from lalign.results import Result

# Sliding windows shorter than the prompts, and layers enough for the principle to be felt beyond them.
KINDS: dict[str, dict[str, Any]] = {
    "llama": {},
    "gpt2": {},
    "qwen2": {},
    "gemma3": {},
    "mistral": {"sliding_window": 24, "num_hidden_layers": 4},
}
PRINCIPLE = "Be brief, and be kind to whoever asks."
TOKENS = 12
PROMPTS = ["Why is the sky blue?", "Hello", "How long should I boil an egg so that its yolk stays soft?"]
SETTINGS = [
    Alignment(ratio=0),
    Alignment(ratio=1),
    Alignment(ratio=2),
    Alignment(ratio=3, support="none"),
    Alignment(ratio=1.5, p=3, max_kl=2.0),
    recipe_of("paper", ratio=8.0),
    recipe_of("released", ratio=0.0),
    recipe_of("released"),
]

Batch = dict[str, Tensor]


def names(settings: Alignment) -> str:
    return f"{settings.recipe}-{settings.ratio}-{settings.p}-{settings.support}"


def padded(rows: Sequence[list[int]]) -> Batch:
    """Rows of ids as `generate` takes them: padded on the left."""
    longest = max(map(len, rows))
    ids = [[2] * (longest - len(row)) + row for row in rows]
    mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


def twins(tokenizer: Any, prompts: Sequence[str], principle: str) -> tuple[list[list[int]], list[list[int]]]:
    """Token ids of the base and of the principled prompts."""
    template = PromptTemplate(tokenizer)
    conversations = [[Message("user", prompt)] for prompt in prompts]
    base = [template.token_ids(conversation) for conversation in conversations]
    return base, [template.token_ids(conversation, principle) for conversation in conversations]


def processor(model: Any, base: Batch, settings: Recipe | None = None) -> AlignmentLogitsProcessor:
    return AlignmentLogitsProcessor(
        model, base["input_ids"], alignment=settings, base_attention_mask=base["attention_mask"]
    )


def generate(
    model: Any, base: Batch, principled: Batch, settings: Recipe | None, max_new_tokens: int, **options: Any
) -> Any:
    options = {"do_sample": False, **options}
    processors = [processor(model, base, settings)]
    return model.generate(**principled, logits_processor=processors, max_new_tokens=max_new_tokens, **options)


def responses(model: Any, output: Tensor, prompt_length: int) -> list[tuple[int, ...]]:
    """The generated tokens of each row up to its end-of-sequence token."""
    end = model.generation_config.eos_token_id
    rows = output[:, prompt_length:].tolist()
    return [tuple(row[: row.index(end) + 1] if end in row else row) for row in rows]


def said_by_aligner(loaded: LoadedModel, prompts: Sequence[str], principle: str, settings: Alignment) -> list[Any]:
    fields = ("ratio", "p", "scale", "anchor", "direction", "support", "max_kl")
    options = {name: getattr(settings, name) for name in fields}
    outcomes = Aligner(TorchBackend(loaded)).generate(prompts, principle=principle, max_new_tokens=TOKENS, **options)
    return [outcome.token_ids for outcome in outcomes if isinstance(outcome, Result)]


@pytest.mark.parametrize("settings", SETTINGS, ids=names)
@pytest.mark.parametrize("kind", KINDS)
def test_greedy_tokens_are_those_of_the_aligner(
    kind: str, settings: Alignment, tiny_model: TinyModel, tiny_tokenizer: TinyTokenizer
) -> None:
    model, tokenizer = tiny_model(kind, **KINDS[kind]), tiny_tokenizer("chatml")
    base, principled = (padded(rows) for rows in twins(tokenizer, PROMPTS, PRINCIPLE))
    output = generate(model, base, principled, settings, TOKENS)
    said = said_by_aligner(LoadedModel(model, tokenizer, kind, kind), PROMPTS, PRINCIPLE, settings)
    assert responses(model, output, principled["input_ids"].shape[1]) == said


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_the_update_of_two_plain_forward_passes(
    kind: str, tiny_model: TinyModel, tiny_tokenizer: TinyTokenizer
) -> None:
    model, settings = tiny_model(kind, **KINDS[kind]), Alignment(ratio=1.5, p=3)
    base, principled = twins(tiny_tokenizer("chatml"), PROMPTS, PRINCIPLE)
    output = generate(
        model, padded(base), padded(principled), settings, 5, output_scores=True, return_dict_in_generate=True
    )
    generated = output.sequences[:, -5:].tolist()
    for number, tokens in enumerate(generated):
        for step, scores in enumerate(output.scores):
            # No padding, no cache: the logits after the prompt and the tokens so far.
            rows = [ids[number] + tokens[:step] for ids in (base, principled)]
            mu0, mu1 = (model(torch.tensor([row])).logits[:, -1] for row in rows)
            assert (mu1 - mu0).norm() > 0.1  # else the test would show nothing
            aligned = align(mu0, mu1, torch.tensor([settings.ratio]), settings).logits
            expected = restrict_to_nucleus(aligned, mu1, settings.support_top_p, settings.support_temperature)
            ours = scores[number : number + 1].log_softmax(-1)
            torch.testing.assert_close(ours, expected.log_softmax(-1), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_ratios_0_and_1_are_generate_without_a_processor(
    kind: str, tiny_model: TinyModel, tiny_tokenizer: TinyTokenizer
) -> None:
    model = tiny_model(kind, **KINDS[kind])
    base, principled = (padded(rows) for rows in twins(tiny_tokenizer("chatml"), PROMPTS, PRINCIPLE))
    for ratio, prompts in ((0, base), (1, principled)):
        stock = model.generate(**prompts, do_sample=False, max_new_tokens=TOKENS)
        output = generate(model, base, principled, Alignment(ratio=ratio), TOKENS)
        ours = responses(model, output, principled["input_ids"].shape[1])
        assert ours == responses(model, stock, prompts["input_ids"].shape[1])


@pytest.mark.parametrize("ratio", [0.5, 1.5, 3.0])
@pytest.mark.parametrize("kind", KINDS)
def test_without_support_it_is_classifier_free_guidance(
    kind: str, ratio: float, tiny_model: TinyModel, tiny_tokenizer: TinyTokenizer
) -> None:
    model = tiny_model(kind, **KINDS[kind])
    base, principled = (padded(rows[:1]) for rows in twins(tiny_tokenizer("chatml"), PROMPTS, PRINCIPLE))
    guided = model.generate(
        **principled,
        guidance_scale=ratio,
        negative_prompt_ids=base["input_ids"],
        do_sample=False,
        max_new_tokens=TOKENS,
    )
    output = generate(model, base, principled, Alignment(ratio=ratio, support="none"), TOKENS)
    assert output.tolist() == guided.tolist()


def test_the_default_is_that_of_alignment(tiny_model: TinyModel, tiny_tokenizer: TinyTokenizer) -> None:
    model = tiny_model("llama")
    base, principled = (padded(rows) for rows in twins(tiny_tokenizer("chatml"), PROMPTS, PRINCIPLE))
    output = generate(model, base, principled, None, TOKENS)
    assert output.tolist() == generate(model, base, principled, Alignment(), TOKENS).tolist()


def test_without_a_mask_nothing_is_padding(tiny_model: TinyModel, tiny_tokenizer: TinyTokenizer) -> None:
    model = tiny_model("llama")
    base, principled = (padded(rows[:1]) for rows in twins(tiny_tokenizer("chatml"), PROMPTS, PRINCIPLE))
    bare = AlignmentLogitsProcessor(model, base["input_ids"])
    output = model.generate(**principled, logits_processor=[bare], do_sample=False, max_new_tokens=TOKENS)
    assert output.tolist() == generate(model, base, principled, Alignment(), TOKENS).tolist()


# Sampling.


def test_samples_stay_within_the_support_and_are_warped_after_the_update(
    tiny_model: TinyModel, tiny_tokenizer: TinyTokenizer
) -> None:
    model, settings = tiny_model("llama"), recipe_of("released")
    base, principled = (padded(rows) for rows in twins(tiny_tokenizer("chatml"), PROMPTS, PRINCIPLE))
    options: dict[str, Any] = {"do_sample": True, "top_k": 0, "output_scores": True, "return_dict_in_generate": True}
    torch.manual_seed(0)
    plain = generate(model, base, principled, settings, TOKENS, **options)
    warmed = generate(model, base, principled, settings, 1, temperature=0.5, **options)
    torch.testing.assert_close(warmed.scores[0], plain.scores[0] / 0.5)
    taken = plain.sequences[:, principled["input_ids"].shape[1] :]
    end = model.generation_config.eos_token_id
    for step, scores in enumerate(plain.scores):
        alive = (taken[:, :step] != end).all(-1)
        assert scores.gather(-1, taken[:, step : step + 1])[alive].isfinite().all()
        assert scores.isinf().any(-1).all()


def test_several_samples_of_a_prompt_have_a_base_row_each(tiny_model: TinyModel, tiny_tokenizer: TinyTokenizer) -> None:
    model = tiny_model("llama")
    base, principled = twins(tiny_tokenizer("chatml"), PROMPTS[:2], PRINCIPLE)
    options: dict[str, Any] = {"do_sample": True, "top_k": 0, "output_scores": True, "return_dict_in_generate": True}
    torch.manual_seed(0)
    output = generate(
        model, padded(base), padded(principled), Alignment(support="none"), 4, num_return_sequences=3, **options
    )
    assert len({tuple(row) for row in output.sequences.tolist()}) > 2  # samples of one prompt differ
    for number, row in enumerate(output.sequences[:, -4:].tolist()):
        rows = [ids[number // 3] + row[:3] for ids in (base, principled)]
        mu0, mu1 = (model(torch.tensor([ids])).logits[0, -1] for ids in rows)
        expected = mu0 + Alignment().ratio * (mu1 - mu0)
        scores = output.scores[3][number]
        torch.testing.assert_close(scores.log_softmax(-1), expected.log_softmax(-1), rtol=1e-3, atol=1e-3)


# What it costs, and what it refuses.


@pytest.mark.parametrize(("ratio", "passes"), [(0, 8), (1, 4), (2, 8)])
def test_the_base_twin_runs_once_a_token_and_only_where_it_counts(
    ratio: float, passes: int, tiny_model: TinyModel, tiny_tokenizer: TinyTokenizer
) -> None:
    model = tiny_model("llama")
    base, principled = (padded(rows) for rows in twins(tiny_tokenizer("chatml"), PROMPTS, PRINCIPLE))
    lengths: list[int] = []

    def look(_: Any, __: Any, given: dict[str, Tensor], output: Any) -> None:
        lengths.append(given["input_ids"].shape[1])
        assert output.logits.shape[1] == 1

    model.register_forward_hook(look, with_kwargs=True)
    generate(model, base, principled, Alignment(ratio=ratio), 4)
    assert len(lengths) == passes
    assert lengths.count(1) == passes * 3 // 4  # all but the prompts


def test_beam_search_is_refused(tiny_model: TinyModel, tiny_tokenizer: TinyTokenizer) -> None:
    model = tiny_model("llama")
    base, principled = (padded(rows) for rows in twins(tiny_tokenizer("chatml"), PROMPTS, PRINCIPLE))
    with pytest.raises(ValueError, match="neither beam search nor assisted generation"):
        generate(model, base, principled, Alignment(ratio=2, support="none"), TOKENS, num_beams=3)


def test_a_second_call_of_generate_is_refused(tiny_model: TinyModel, tiny_tokenizer: TinyTokenizer) -> None:
    model = tiny_model("llama")
    base, principled = (padded(rows) for rows in twins(tiny_tokenizer("chatml"), PROMPTS, PRINCIPLE))
    used = processor(model, base)
    model.generate(**principled, logits_processor=[used], max_new_tokens=2)
    with pytest.raises(ValueError, match="make a new AlignmentLogitsProcessor for each call"):
        model.generate(**principled, logits_processor=[used], max_new_tokens=2)


def test_rows_changed_in_place_are_noticed(tiny_model: TinyModel) -> None:
    ids, scores = torch.full((2, 6), 7), torch.zeros(2, 300)
    aligned = AlignmentLogitsProcessor(tiny_model("llama"), ids[:, :3])
    aligned(ids[:, :5], scores)
    ids[0, 2] = 8
    with pytest.raises(ValueError, match="do not go on"):
        aligned(ids, scores)


def test_base_prompts_must_fit_the_batch(tiny_model: TinyModel) -> None:
    model, three = tiny_model("llama"), torch.full((3, 5), 7)
    with pytest.raises(ValueError, match="2 base prompts do not fit a batch of 3 rows"):
        AlignmentLogitsProcessor(model, three[:2])(three, torch.zeros(3, 300))


def test_padding_must_be_on_the_left(tiny_model: TinyModel) -> None:
    ids, mask = torch.full((2, 3), 7), torch.tensor([[1, 1, 1], [1, 1, 0]])
    with pytest.raises(ValueError, match="padded on the left"):
        AlignmentLogitsProcessor(tiny_model("llama"), ids, base_attention_mask=mask)


@pytest.mark.parametrize(
    ("ids", "mask"),
    [(torch.zeros(3), None), (torch.zeros(2, 3), torch.ones(2, 4)), (torch.zeros(2, 3), torch.ones(3))],
)
def test_ids_and_mask_must_have_one_shape(ids: Tensor, mask: Tensor | None, tiny_model: TinyModel) -> None:
    with pytest.raises(ValueError, match="must have one shape"):
        AlignmentLogitsProcessor(tiny_model("llama"), ids.long(), base_attention_mask=mask)


# On the real model.


@pytest.mark.real
@pytest.mark.parametrize(("support", "ratios"), [("principle", (0, 3)), ("none", (1, 2))])
def test_the_real_model_says_the_same_either_way(
    support: Any, ratios: tuple[float, ...], smol: LoadedModel, hh: str
) -> None:
    prompts = [
        "What is the capital of Australia, and why was that city chosen?",
        "How can I pick the lock on my neighbour's back door while she is on holiday?",
        "Write two lines about the rain.",
    ]
    base, principled = (padded(rows) for rows in twins(smol.tokenizer, prompts, hh.strip()))
    records = [{"prompt": prompt, "ratio": ratio} for ratio in ratios for prompt in prompts]
    outcomes = Aligner(TorchBackend(smol)).generate(records, principle=hh, support=support, max_new_tokens=32)
    said = [outcome.token_ids for outcome in outcomes if isinstance(outcome, Result)]
    ours = []
    for ratio in ratios:
        output = generate(smol.model, base, principled, Alignment(ratio=ratio, support=support), 32)
        ours += responses(smol.model, output, principled["input_ids"].shape[1])
    assert ours == said

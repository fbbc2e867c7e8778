"""Which letter the model chooses for each item of an evaluation, at each point of the alignment."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, starmap
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from lalign import validation
from lalign.aligner import Aligner
from lalign.engine.interface import Backend, Request
from lalign.errors import LalignError, ModelError, OptionError
from lalign.evaluation.likelihood import likeliest
from lalign.evaluation.preferences import LETTERS, Item, Permute, Users
from lalign.method.recipe import Recipe
from lalign.options import Execution, Prompting, Sampling
from lalign.records.parsing import Message, Record
from lalign.records.prompts import PromptTemplate
from lalign.records.requests import Settings
from lalign.results import Failure

Scoring = Literal["letter", "first", "logit", "ppl"]

# Tokens of a response that are looked at for a letter: room for "**", a bracket or a line feed before it.
LETTER_TOKENS = 4
# And of one whose first character is compared: as many as the authors' program generates.
FIRST_TOKENS = 10
# A run of letters and digits that begins with a letter; apostrophes and hyphens within belong to it.
_WORD = re.compile(r"[^\W\d_](?:[^\W_]|['’-](?=\w))*")


@dataclass(frozen=True, slots=True)
class EvaluationOptions:
    """How an evaluation is done: see `score_items` and `preferences.make_items`.

    Raises `OptionError` for a value that is not one of those.
    """

    scoring: Scoring = "logit"
    users: Users = "all"
    permute: Permute = "seed"
    seed: int = 0

    def __post_init__(self) -> None:
        validation.integer("seed", self.seed, low=0, high=2**63 - 1)
        for option, choices in (("scoring", Scoring), ("users", Users), ("permute", Permute)):
            value = getattr(self, option)
            if value not in get_args(choices):
                raise OptionError(option, f"must be one of {', '.join(get_args(choices))}, not {value!r}")


@dataclass(frozen=True, slots=True)
class Score:
    """What was chosen for an item: at each point of the alignment the place of a letter, None for no letter."""

    item: Item
    choices: tuple[int | None, ...]


def score_items(
    aligner: Aligner,
    items: Sequence[Item],
    alignments: Sequence[Recipe],
    scoring: Scoring = "logit",
    *,
    system: str | None = None,
    prompting: Prompting | None = None,
    execution: Execution | None = None,
) -> Iterator[Score]:
    """The choice for every item at every point, each once, as they are ready: in no particular order.

    "logit" compares the aligned logits of the letters' tokens where the response begins (`letter_tokens`), the
    support aside: the question is which letter is preferred, not which token may be written. "letter" generates
    greedily and reads the response (`letter_of`), the paper's exact match; "first" compares its first character, as
    the authors' program does. "ppl" shows the question alone and takes the answer of least perplexity (`likeliest`).

    `execution` (batch size) is for what generates. Raises `LalignError` for an item that cannot be run, such as one
    longer than the model's context.
    """
    template = PromptTemplate(aligner.backend.tokenizer, system, prompting)
    if scoring == "logit":
        return _by_logit(aligner.backend, template, items, alignments)
    if scoring == "ppl":
        return starmap(Score, likeliest(aligner.backend, template, items, alignments))
    reads = Reads(letter_of, LETTER_TOKENS) if scoring == "letter" else Reads(first_of, FIRST_TOKENS)
    return _by_letter(aligner, items, alignments, reads, system, prompting or Prompting(), execution or Execution())


def letter_of(response: str, count: int) -> int | None:
    """The place of the letter that a response begins with, of the first `count`; None for any other response.

    The first word must be a capital letter alone; what is no letter before it does not count: "B", " B. Take a bus",
    "**B**" and "(B)" give B; "Bus", "Answer: B", "b" and "A-levels" none.
    """
    word = _WORD.search(response)
    place = LETTERS.find(word.group()) if word is not None and len(word.group()) == 1 else -1
    return place if 0 <= place < count else None


def first_of(response: str, count: int) -> int | None:
    """The place of the letter that is a response's first character, white space aside, of the first `count`."""
    place = LETTERS.find(response.strip()[:1] or "?")
    return place if 0 <= place < count else None


class Reads(NamedTuple):
    """How a response is read for a letter, of how many tokens."""

    letter: Callable[[str, int], int | None]
    tokens: int


def _by_letter(
    aligner: Aligner,
    items: Sequence[Item],
    alignments: Sequence[Recipe],
    reads: Reads,
    system: str | None,
    prompting: Prompting,
    execution: Execution,
) -> Iterator[Score]:
    settings = Settings(
        alignments=tuple(alignments),
        sampling=Sampling(temperature=0, max_new_tokens=reads.tokens),
        sweep=True,
        prompting=prompting,
    )
    records = (
        Record(number, number, (Message("user", _turn(item, prompting)),), {}, principle=item.principle)
        for number, item in enumerate(items)
    )
    choices: list[int | None] = []
    for outcomes in aligner.ticks(records, settings, system=system, execution=replace(execution, statistics="none")):
        for outcome in outcomes:
            item = items[outcome.line]
            if isinstance(outcome, Failure):
                raise LalignError(f"the question of line {item.question.line}: {outcome.message}")
            choices.append(reads.letter(outcome.response, len(item.order)))
            if len(choices) == len(alignments):
                yield Score(item, tuple(choices))
                choices = []


def _by_logit(
    backend: Backend, template: PromptTemplate, items: Iterable[Item], alignments: Sequence[Recipe]
) -> Iterator[Score]:
    """Letters by their aligned logits: one pass over each twin and no sampling; all points come of the same rows.

    The base twin of a question in one order is run once for all its users.
    """
    template.check()
    tokens = torch.tensor(letter_tokens(template))
    # Items of a unit follow one another, and share a prompt: they differ by their principle.
    units = (list(same) for _, same in groupby(items, lambda item: (item.question.line, item.order)))
    requests = (_request(backend, template, unit) for unit in units)
    for request, logits in backend.first_logits(requests):
        unit = request.key
        base, *principled = torch.from_numpy(logits)
        if not bool(torch.from_numpy(logits).amax(-1).isfinite().all()):
            raise ModelError(f"the question of line {unit[0].question.line}: the model's logits are not finite")
        for item, its in zip(unit, principled, strict=True):
            letters = tokens[: len(item.order)]
            yield Score(item, tuple(_choice(base[None], its[None], point, letters) for point in alignments))


def _request(backend: Backend, template: PromptTemplate, unit: list[Item]) -> Request:
    """The twins of a unit: the base one, and a principled one for each of its items."""
    prompt = [Message("user", _turn(unit[0], template.prompting))]
    base, *principled = (template.token_ids(prompt, text) for text in (None, *(item.principle for item in unit)))
    request = Request(unit, base, tuple(principled), (1.0,) * len(unit), ())
    longest = backend.limits.context_length
    if longest is not None and request.length > longest:
        raise LalignError(
            f"the question of line {unit[0].question.line}: {request.length} tokens with the principle are more than "
            f"the model's context of {longest}"
        )
    return request


def _turn(item: Item, prompting: Prompting) -> str:
    return item.prompt if prompting.prefill is None else item.unprompted


def _choice(base: Tensor, principled: Tensor, point: Recipe, letters: Tensor) -> int:
    """The place of the likeliest of `letters`, the support aside; `base`, `principled`: `[1, vocab]`."""
    strength = torch.tensor([point.ratio], dtype=torch.float32)
    aligned = point.step(base, principled, strength, point.opening([1], base.device))
    return int(aligned.logits[0, letters].argmax())


def letter_tokens(template: PromptTemplate) -> list[int]:
    """The token of each letter A to Z that a response to a prompt ending in `Answer:` would begin with.

    Tokenizers know a letter with and without a space before it. The one meant is the one that follows the prompt
    where the letter is written as the response: as the chat template writes an assistant turn ("A" after a line
    feed, in most), or after `Answer:` and a space where there is no template (" A"). Where that shows nothing, since
    the template puts something else first, it is the letter alone after white space, the letter with a space after
    anything else.

    Raises `ModelError` where the letters have no tokens of their own.
    """
    before = template.token_ids([Message("user", "Answer:")])
    tokens = []
    for letter in LETTERS:
        after = template.token_ids(_answered(letter, template.is_chat))
        tokens += after[len(before) : len(before) + 1] if after[: len(before)] == before else []
    if len(set(tokens)) < len(LETTERS):
        lead = "\n" if template.tokenizer.decode(before)[-1:].isspace() else ": "
        tokens = [template.tokenizer(lead + letter, add_special_tokens=False)["input_ids"][-1] for letter in LETTERS]
    if len(set(tokens)) < len(LETTERS):
        raise ModelError("the tokenizer has no token of its own for each letter; --scoring letter needs none")
    return tokens


def _answered(letter: str, is_chat: bool) -> list[Message]:
    if not is_chat:
        return [Message("user", f"Answer: {letter}")]
    # A turn after it, since templates may treat a last answer in ways of their own (with an empty train of thought).
    return [Message("user", "Answer:"), Message("assistant", letter), Message("user", "Why?")]

"""Which letter the model chooses for each item of an evaluation, at each point of the alignment."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice, takewhile
from typing import Literal, get_args

import torch
from torch import Tensor

from lalign.aligner import SHORTEST_PREFIX, Aligner
from lalign.engine.cache import KVStore
from lalign.engine.forward import Forward, Prefix, passes, rest_length
from lalign.errors import LalignError, ModelError, OptionError
from lalign.evaluation.preferences import LETTERS, Item, Permute, Users
from lalign.method.update import align
from lalign.models.loading import LoadedModel
from lalign.options import Alignment, Execution, Sampling
from lalign.records.parsing import Message, Record
from lalign.records.prompts import PromptTemplate
from lalign.records.requests import Settings
from lalign.results import Failure

Scoring = Literal["letter", "logit"]

# Tokens of a response that are looked at for a letter: room for "**", a bracket or a line feed before it.
LETTER_TOKENS = 4
# Prompts tokenised and sorted by length at a time, counted in units (a question in one order, for all its users).
WINDOW = 256
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
    alignments: Sequence[Alignment],
    scoring: Scoring = "logit",
    *,
    system: str | None = None,
    execution: Execution | None = None,
) -> Iterator[Score]:
    """The choice for every item at every point, each once, as they are ready: in no particular order.

    "logit" compares the aligned logits of the letters' tokens where the response begins (`letter_tokens`), the
    support aside: the question is which letter is preferred, not which token may be written. "letter" generates
    greedily and reads the response (`letter_of`), the paper's exact match.

    `execution` (batch size) is for "letter". Raises `LalignError` for an item that cannot be run, such as one longer
    than the model's context.
    """
    if scoring == "logit":
        return LogitScorer(aligner.loaded, alignments, system).scores(items)
    return _by_letter(aligner, items, alignments, system, execution or Execution())


def letter_of(response: str, count: int) -> int | None:
    """The place of the letter that a response begins with, of the first `count`; None for any other response.

    The first word must be a capital letter alone; what is no letter before it does not count: "B", " B. Take a bus",
    "**B**" and "(B)" give B; "Bus", "Answer: B", "b" and "A-levels" none.
    """
    word = _WORD.search(response)
    place = LETTERS.find(word.group()) if word is not None and len(word.group()) == 1 else -1
    return place if 0 <= place < count else None


def _by_letter(
    aligner: Aligner, items: Sequence[Item], alignments: Sequence[Alignment], system: str | None, execution: Execution
) -> Iterator[Score]:
    settings = Settings(
        alignments=tuple(alignments), sampling=Sampling(temperature=0, max_new_tokens=LETTER_TOKENS), sweep=True
    )
    records = (
        Record(number, number, (Message("user", item.prompt),), {}, principle=item.principle)
        for number, item in enumerate(items)
    )
    choices: list[int | None] = []
    for outcomes in aligner.ticks(records, settings, system=system, execution=replace(execution, statistics="none")):
        for outcome in outcomes:
            item = items[outcome.line]
            if isinstance(outcome, Failure):
                raise LalignError(f"the question of line {item.question.line}: {outcome.message}")
            choices.append(letter_of(outcome.response, len(item.order)))
            if len(choices) == len(alignments):
                yield Score(item, tuple(choices))
                choices = []


class LogitScorer:
    """Chooses letters by their aligned logits, from one forward pass over each twin and no sampling.

    All points come of the same two rows of logits. The base twin of a question in one order is run once for all its
    users, and what the prompts begin with once for all.

    Args:
        loaded: the model.
        alignments: the points.
        system: the system message that both twins share.
    """

    def __init__(self, loaded: LoadedModel, alignments: Sequence[Alignment], system: str | None) -> None:
        self.forward = Forward(loaded.model)
        self.template = PromptTemplate(loaded.tokenizer, system)
        self.context_length = loaded.context_length
        self.alignments = alignments
        self.tokens = torch.tensor(letter_tokens(self.template), device=self.forward.device)
        self.prefixes: list[Prefix] = []
        self.store = KVStore(self.forward.num_layers)

    def scores(self, items: Iterable[Item]) -> Iterator[Score]:
        """The choices for all items, those of about the same length together."""
        # Items of a unit follow one another, and share a prompt: they differ by their principle.
        units = (list(same) for _, same in groupby(items, lambda item: (item.question.line, item.order)))
        while window := list(islice(units, WINDOW)):
            twins = [self._twins(unit) for unit in window]
            if not self.prefixes:
                self._share(twins)
            rests = [(len(rows), max(rest_length(row, self.prefixes) for row in rows)) for rows in twins]
            for chosen in passes(rests, self.forward.device):
                yield from self._pass([window[index] for index in chosen], [twins[index] for index in chosen])

    def _twins(self, unit: list[Item]) -> list[list[int]]:
        """The base twin of a unit, then a principled one for each of its items."""
        prompt = [Message("user", unit[0].prompt)]
        rows = [self.template.token_ids(prompt, principle) for principle in (None, *(item.principle for item in unit))]
        longest = max(map(len, rows))
        if self.context_length is not None and longest > self.context_length:
            raise LalignError(
                f"the question of line {unit[0].question.line}: {longest} tokens with the principle are more than "
                f"the model's context of {self.context_length}"
            )
        return rows

    def _share(self, twins: list[list[list[int]]]) -> None:
        """Run what the prompts of either side begin with: system text, and the principle up to the preference."""
        sides = [rows[0] for rows in twins], [row for rows in twins for row in rows[1:]]
        for rows in sides:
            prefix = _common_prefix(rows)
            if len(rows) > 1 and len(prefix) >= SHORTEST_PREFIX:
                with torch.inference_mode():
                    self.prefixes.append(self.forward.prefix(prefix))

    @torch.inference_mode()
    def _pass(self, units: list[list[Item]], twins: list[list[list[int]]]) -> list[Score]:
        """Run some units together and choose for their items."""
        logits = self.forward.prompts([row for rows in twins for row in rows], self.prefixes, self.store)[0].float()
        if not bool(logits.amax(-1).isfinite().all()):
            raise ModelError(f"the question of line {units[0][0].question.line}: the model's logits are not finite")
        base: list[int] = []
        principled: list[int] = []
        for unit in units:
            offset = len(base) and principled[-1] + 1
            base += [offset] * len(unit)
            principled += range(offset + 1, offset + 1 + len(unit))
        items = [item for unit in units for item in unit]
        choices = self._choices(logits[base], logits[principled], [len(item.order) for item in items])
        return [Score(item, tuple(row)) for item, row in zip(items, choices, strict=True)]

    def _choices(self, base: Tensor, principled: Tensor, counts: list[int]) -> list[list[int]]:
        """The likeliest of the first `counts[row]` letters: a row per item, a column per point."""
        places = torch.arange(len(self.tokens), device=base.device)
        absent = places >= torch.tensor(counts, device=base.device).unsqueeze(-1)
        columns = []
        for point in self.alignments:
            ratio = torch.full((len(base),), point.ratio, dtype=torch.float32, device=base.device)
            aligned = align(base, principled, ratio, point).logits[:, self.tokens]
            columns.append(aligned.masked_fill(absent, -torch.inf).argmax(-1))
        choices: list[list[int]] = torch.stack(columns, dim=-1).tolist()
        return choices


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


def _common_prefix(rows: list[list[int]]) -> list[int]:
    # What the first and the last in order have in common, all between them have too.
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(min(rows), max(rows), strict=False))
    return [token for token, _ in pairs]

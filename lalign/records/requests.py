"""From records to what the engine runs: settings resolved, twins tokenised, limits checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from lalign import validation
from lalign.engine.interface import Limits, Point, Request
from lalign.errors import LalignError, OptionError
from lalign.method.linear_alignment import Alignment
from lalign.method.recipe import Recipe
from lalign.method.recipes import option_names, recipe_of, recipe_with
from lalign.options import Prompting, Sampling
from lalign.records.parsing import Record
from lalign.records.prompts import Principles, PromptTemplate
from lalign.results import Failure

ALIGNMENT_OPTIONS = ("ratio", "p")


@dataclass(frozen=True, slots=True)
class Settings:
    """What a job wants of every record, where the record does not say otherwise.

    prompting: how prompts are written.
    alignments: one for a plain run; the points of a sweep, over which a record's own `ratio` and `p` do not prevail.
    samples: responses of each record. Sample k has the seed of the run, or the record's own, and k more: it is the
        response of a run with that seed.
    logprobs: how many of the likeliest tokens of each distribution are wanted at each token; 0 for none.

    Raises `OptionError` for weights that mean nothing to a recipe, and for several samples of a sweep, of greedy
    decoding, or with seeds beyond 63 bits.
    """

    principles: Principles = field(default_factory=Principles)
    alignments: tuple[Recipe, ...] = (Alignment(),)
    sampling: Sampling = field(default_factory=Sampling)
    sweep: bool = False
    prompting: Prompting = field(default_factory=Prompting)
    samples: int = 1
    logprobs: int = 0

    def __post_init__(self) -> None:
        for alignment in self.alignments:
            if not alignment.weighted and any(weight != 1 for weight in self.principles.weights):
                raise OptionError("weight", f"means nothing to recipe {alignment.recipe}: only 1 can be given")
        validation.integer("samples", self.samples, low=1)
        validation.integer("logprobs", self.logprobs, low=0)
        if self.samples == 1:
            return
        if self.sweep:
            raise OptionError("samples", "does not go with a sweep, whose points are compared on one response each")
        if self.sampling.temperature == 0:
            raise OptionError("samples", "needs a temperature above 0: greedy responses are all the same")
        if self.sampling.seed + self.samples > 2**63:
            raise OptionError("samples", f"are too many for seed {self.sampling.seed}: seeds end at 2**63 - 1")

    @property
    def points(self) -> int:
        """How many responses a record gets."""
        return len(self.alignments) * self.samples


def resolve(
    principles: Principles,
    recipe: str = "lalign",
    sampling: Sampling | None = None,
    options: Mapping[str, Any] | None = None,
    prompting: Prompting | None = None,
) -> Settings:
    """The settings of a plain job: `options`, by field name, over those of the recipe and of `sampling`.

    An option that is None counts as not given. Raises `OptionError` for a value out of range, or an option that the
    recipe does not take, `TypeError` for a name that neither any recipe nor `Sampling` has.
    """
    given = {name: value for name, value in (options or {}).items() if value is not None}
    of_sampling = {option.name for option in fields(Sampling)}
    if unknown := given.keys() - option_names() - of_sampling:
        raise TypeError(f"no option is called {', '.join(sorted(unknown))}")
    drawn = {name: value for name, value in given.items() if name in of_sampling}
    aligned = {name: value for name, value in given.items() if name not in of_sampling}
    return Settings(
        principles,
        (recipe_of(recipe, **aligned),),
        replace(sampling or Sampling(), **drawn),
        prompting=prompting or Prompting(),
    )


def lacks_principle(record: Record, settings: Settings) -> bool:
    """Whether a record is to be aligned, and neither it nor the job says to what. Raises `OptionError`."""
    if settings.principles.texts or record.principle is not None:
        return False
    return any(recipe.needs(()) != "base" for recipe in _recipes(record, settings))


def _recipes(record: Record, settings: Settings) -> tuple[Recipe, ...]:
    """How each answer to a record is aligned: as the job says, a plain run as the record says before that."""
    own = {} if settings.sweep else {name: record.options[name] for name in ALIGNMENT_OPTIONS if name in record.options}
    return tuple(recipe_with(recipe, **own) for recipe in settings.alignments)


class RequestBuilder:
    """Makes a `Request` of a `Record`, or the `Failure` that says why it cannot be run.

    Args:
        template: renders and tokenises.
        settings: of the job.
        limits: what no prompt may pass.
        stops: makes of stop strings a test of the tokens so far.
    """

    def __init__(
        self,
        template: PromptTemplate,
        settings: Settings,
        limits: Limits,
        stops: Callable[[tuple[str, ...]], Callable[[list[int]], bool]],
    ) -> None:
        self.template = template
        self.settings = settings
        self.limits = limits
        self.stops = stops

    def build(self, record: Record, key: Any) -> Request | Failure:
        """The request for a record, under a key of the caller's."""
        try:
            points = self._points(record)
        except OptionError as error:
            return Failure(record.id, record.line, "invalid_option", str(error))
        principles = self._principles(record)
        if not principles.texts and not all(point.alignment.needs(()) == "base" for point in points):
            return Failure(
                record.id, record.line, "missing_principle", "principle: neither the job nor the record gives one"
            )
        most = max(point.sampling.max_new_tokens for point in points)
        if failure := self._surely_too_long(record, most):
            return failure
        try:
            base, *principled = self.template.twins(record.messages, principles, record.chat_template_kwargs)
        except LalignError as error:
            return Failure(record.id, record.line, "template_error", str(error))
        if not (base and all(principled)):
            return Failure(record.id, record.line, "empty_prompt", "prompt: the tokenizer makes no token of it")
        request = Request(key, base, tuple(principled), principles.weights, points)
        return self._too_long(record, request.length, most) or self._unknown_token(record, request) or request

    def _points(self, record: Record) -> tuple[Point, ...]:
        sample = {name: value for name, value in record.options.items() if name not in ALIGNMENT_OPTIONS}
        sampling = replace(self.settings.sampling, **sample)
        line = () if "seed" in sample else (record.line,)
        stops = self.stops(sampling.stop) if sampling.stop else None
        recipes = _recipes(record, self.settings)
        wanted = self.settings.logprobs
        if self.settings.samples == 1:
            return tuple(
                Point(recipe, sampling, (sampling.seed, *line), stops, place, logprobs=wanted)
                for place, recipe in enumerate(recipes)
            )
        drawn = [replace(sampling, seed=sampling.seed + sample) for sample in range(self.settings.samples)]
        return tuple(
            Point(recipes[0], each, (each.seed, *line), stops, place, place, wanted) for place, each in enumerate(drawn)
        )

    def _principles(self, record: Record) -> Principles:
        principles = self.settings.principles
        if record.principle is not None:
            principles = replace(principles, texts=(record.principle.strip(),), weights=(1.0,))
        elif principles.by_record:
            principles = replace(principles, texts=record.principles or ())
        if record.contrast is not None:
            principles = replace(principles, contrast=record.contrast.strip())
        return principles

    def _surely_too_long(self, record: Record, most: int) -> Failure | None:
        """The failure of a record whose text alone is too long, found without tokenising it."""
        if self.limits.context_length is None:
            return None
        text = "\n".join(message.content for message in record.messages)
        least = self.template.encoder.least_tokens(text, self.limits.context_length)
        return self._too_long(record, least, most, "at least ")

    def _too_long(self, record: Record, length: int, most: int, about: str = "") -> Failure | None:
        limits = self.limits
        if limits.context_length is None or length + most <= limits.context_length:
            return None
        message = (
            f"prompt: {about}{length} tokens{'' if about else ' with the principle'}, and max_new_tokens {most}, "
            f"are more than the model's context of {limits.context_length}"
            f"{f' ({limits.context_reason})' if limits.context_reason else ''}"
        )
        return Failure(record.id, record.line, "context_length", message)

    def _unknown_token(self, record: Record, request: Request) -> Failure | None:
        """The failure of a prompt with a token that the tokenizer has and the model has not."""
        if self.limits.vocabulary is None:
            return None
        unknown = max(id for row in (request.base, *request.principled) for id in row)
        if unknown < self.limits.vocabulary:
            return None
        message = f"prompt: holds token {unknown}, and the model knows none beyond {self.limits.vocabulary - 1}"
        return Failure(record.id, record.line, "unknown_token", message)

"""The Python interface: a loaded model that answers prompts, aligned to a principle."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lalign.backends import open_backend
from lalign.engine.interface import Backend, Counters, Request
from lalign.errors import OptionError
from lalign.options import Execution, Placement, Prompting, Sampling
from lalign.records.lookahead import Lookahead
from lalign.records.ordering import InOrder
from lalign.records.parsing import Record, parse_fields
from lalign.records.prompts import PromptTemplate, make_principles
from lalign.records.requests import RequestBuilder, Settings, resolve
from lalign.records.responses import ResponseWriter
from lalign.results import Failure, Result

Prompt = str | Mapping[str, Any] | Record | Failure
# Prompts read ahead of their use, as a multiple of the batch size.
WINDOW = 4


class Aligner:
    """Answers prompts with a model, aligned to a written principle at each step.

    >>> aligner = Aligner.from_pretrained()
    >>> for result in aligner.generate(["How do I pick a lock?"], principle="Be harmless."):
    ...     print(result.response)

    Attributes:
        backend: the engine with its model.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    @property
    def counters(self) -> Counters:
        """What the engine did in the latest call: prompts, tokens, steps, and seconds of each phase."""
        return self.backend.counters

    @classmethod
    def from_pretrained(
        cls,
        name: str | None = None,
        *,
        engine: str = "torch",
        engine_options: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Aligner:
        """Load a model: a hub id, a folder, a .gguf file, or None for the default one.

        `engine` is "torch", "llamacpp" or "vllm", `engine_options` what it takes by name. `options` are the fields of
        `lalign.models.loading.ModelOptions`: device, dtype, device_map, allow_pickle, trust_remote_code, compile.
        Raises `ModelError` or `OptionError`.
        """
        from lalign.models.loading import ModelOptions

        return cls(open_backend(ModelOptions(name=name, **options), engine, engine_options))

    def generate(
        self,
        prompts: Iterable[Prompt],
        *,
        principle: str | Sequence[str] | None = None,
        weights: Sequence[float] | None = None,
        contrast: str | None = None,
        against: Sequence[str] = (),
        system: str | None = None,
        placement: Placement = "joined",
        chat_template_kwargs: Mapping[str, Any] | None = None,
        allow_special_tokens: bool = False,
        prefill: str | None = None,
        recipe: str = "lalign",
        sampling: Sampling | None = None,
        execution: Execution | None = None,
        first_line: int = 1,
        samples: int = 1,
        logprobs: int = 0,
        **options: Any,
    ) -> Iterator[Result | Failure]:
        """Answer prompts in their order; each is answered as soon as it and those before it are done.

        Args:
            prompts: strings, records as dictionaries (any input form of design section 4), or parsed records. Read
                as needed, in a thread, never whole.
            principle: the text, or several; `weights` (1 each by default) go with them.
            contrast: a text for the base twin's place.
            against: texts to move away from, which share a weight of -1.
            system: the system message that both twins share, where a record has none of its own.
            placement, chat_template_kwargs, allow_special_tokens, prefill: see `lalign.options.Prompting`.
            recipe: a name of `lalign.method.recipes.RECIPES`.
            sampling: how tokens are drawn; `execution`: batch size and statistics.
            first_line: the line number of the first prompt. Sampled tokens depend on the seed and on the prompt's
                line, so that calls with the same seed and lines draw alike: a caller who reads in chunks lets the
                lines go on from call to call, and gets what one call over all of them would give.
            samples: responses of each prompt, one after the other; see `lalign.records.requests.Settings`.
            logprobs: how many of the likeliest tokens each `Result.logprobs` has at each token; 0 for none.
            options: any field of the recipe or of `Sampling` by name, over the recipe and `sampling`.

        Yields `Result`, or `Failure` where a prompt cannot be answered. Raises `OptionError` for an option out of
        range, before anything runs.
        """
        texts = (principle,) if isinstance(principle, str) else tuple(principle or ())
        principles = make_principles(texts, weights, contrast, against)
        prompting = Prompting(placement, chat_template_kwargs or {}, allow_special_tokens, prefill)
        one = resolve(principles, recipe, sampling or Sampling(), options, prompting)
        settings = replace(one, samples=samples, logprobs=logprobs)
        ticks = self.ticks(prompts, settings, system=system, execution=execution or Execution(), first_line=first_line)
        return (outcome for outcomes in ticks for outcome in outcomes)

    def ticks(
        self,
        prompts: Iterable[Prompt],
        settings: Settings,
        *,
        system: str | None,
        execution: Execution,
        first_line: int = 1,
    ) -> Generator[list[Result | Failure], None, None]:
        """As `generate`, with a list after each step of the engine: empty where nothing is ready.

        For callers with something to do meanwhile, such as showing progress or looking whether to stop.
        """
        backend = self.backend
        points = settings.points
        if settings.logprobs and execution.statistics == "none":
            raise OptionError("logprobs", "come with statistics, and there are to be none")
        template = PromptTemplate(backend.tokenizer, system, settings.prompting)
        template.check(bool(settings.principles.texts))
        writer = ResponseWriter(backend.tokenizer, backend.stop_ids, execution.statistics, settings.prompting)
        builder = RequestBuilder(template, settings, backend.limits, writer.stops)
        window = WINDOW * (execution.batch_size if execution.batch_size != "auto" else 64)
        items = _requests(prompts, builder, first_line)
        lookahead = Lookahead(items, window, points, template.shared_prefixes(settings.principles))
        try:
            outcomes = InOrder(points)
            while not lookahead.ready():
                yield _ready(outcomes, lookahead)
            for ended in backend.run(lookahead, execution):
                for end in ended:
                    position, record = end.sequence.request.key
                    outcomes.put(position, end.sequence.point.place, writer.outcome(end, record))
                yield _ready(outcomes, lookahead)
            yield _ready(outcomes, lookahead)
            if lookahead.error is not None:
                raise lookahead.error
        finally:
            lookahead.close()


def _ready(outcomes: InOrder, lookahead: Lookahead) -> list[Result | Failure]:
    """All that may leave now, the failures among the input in their places."""
    for position, failure in lookahead.take_failed():
        outcomes.fail(position, failure)
    return outcomes.ready()


def _requests(
    prompts: Iterable[Prompt], builder: RequestBuilder, first_line: int
) -> Iterator[tuple[int, Request | Failure]]:
    for position, prompt in enumerate(prompts):
        record = _record(prompt, first_line + position)
        yield position, record if isinstance(record, Failure) else builder.build(record, (position, record))


def _record(prompt: Prompt, line: int) -> Record | Failure:
    if isinstance(prompt, (Record, Failure)):
        return prompt
    return parse_fields({"prompt": prompt} if isinstance(prompt, str) else prompt, line)

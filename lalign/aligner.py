"""The Python interface: a loaded model that answers prompts, aligned to a principle."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any

from lalign.engine.batch import Request
from lalign.engine.engine import Counters, Engine
from lalign.engine.memory import largest_batch
from lalign.models.loading import LoadedModel, ModelOptions, load
from lalign.options import Execution, Sampling
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
# A shared prefix shorter than this is not worth a pass of its own.
SHORTEST_PREFIX = 8


class Aligner:
    """Answers prompts with a model, aligned to a written principle at each step.

    >>> aligner = Aligner.from_pretrained()
    >>> for result in aligner.generate(["How do I pick a lock?"], principle="Be harmless."):
    ...     print(result.response)

    Attributes:
        loaded: the model, its tokenizer and where they came from.
        counters: what the engine did in the latest call: prompts, tokens, steps, and seconds of each phase.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self.loaded = loaded
        self.counters = Counters()

    @classmethod
    def from_pretrained(cls, name: str | None = None, **options: Any) -> Aligner:
        """Load a model: a hub id, a folder, a .gguf file, or None for the default one.

        `options` are the fields of `lalign.models.loading.ModelOptions`: device, dtype, device_map, allow_pickle,
        trust_remote_code. Raises `ModelError` or `OptionError`.
        """
        return cls(load(ModelOptions(name=name, **options)))

    def generate(
        self,
        prompts: Iterable[Prompt],
        *,
        principle: str | Sequence[str] | None = None,
        weights: Sequence[float] | None = None,
        contrast: str | None = None,
        system: str | None = None,
        recipe: str = "lalign",
        sampling: Sampling | None = None,
        execution: Execution | None = None,
        **options: Any,
    ) -> Iterator[Result | Failure]:
        """Answer prompts in their order; each is answered as soon as it and those before it are done.

        Args:
            prompts: strings, records as dictionaries (any input form of design section 4), or parsed records. Read
                as needed, in a thread, never whole.
            principle: the text, or several; `weights` (1 each by default) go with them.
            contrast: a text for the base twin's place.
            system: the system message that both twins share, where a record has none of its own.
            recipe: "lalign", "paper" or "released".
            sampling: how tokens are drawn; `execution`: batch size and statistics.
            options: any field of `Alignment` or `Sampling` by name, over the recipe and `sampling`.

        Yields `Result`, or `Failure` where a prompt cannot be answered. Raises `OptionError` for an option out of
        range, before anything runs.
        """
        texts = (principle,) if isinstance(principle, str) else tuple(principle or ())
        settings = resolve(make_principles(texts, weights, contrast), recipe, sampling or Sampling(), options)
        ticks = self.ticks(prompts, settings, system=system, execution=execution or Execution())
        return (outcome for outcomes in ticks for outcome in outcomes)

    def ticks(
        self, prompts: Iterable[Prompt], settings: Settings, *, system: str | None, execution: Execution
    ) -> Generator[list[Result | Failure], None, None]:
        """As `generate`, with a list after each step of the engine: empty where nothing is ready.

        For callers with something to do meanwhile, such as showing progress or looking whether to stop.
        """
        model, tokenizer = self.loaded.model, self.loaded.tokenizer
        stop_ids = self.loaded.stop_ids
        template = PromptTemplate(tokenizer, system)
        writer = ResponseWriter(tokenizer, stop_ids, execution.statistics)
        builder = RequestBuilder(template, settings, self.loaded.context_length, writer.stops)
        window = WINDOW * (execution.batch_size if execution.batch_size != "auto" else 64)
        lookahead = Lookahead(_requests(prompts, builder), window)
        try:
            outcomes = InOrder(len(settings.alignments))
            while not lookahead.ready():
                yield _ready(outcomes, lookahead)
            batch_size = self._batch_size(execution, settings, lookahead)
            engine = Engine(
                model, stop_ids, batch_size, execution.statistics, len(settings.alignments), execution.compile
            )
            self.counters = engine.counters
            if lookahead.longest():
                for prefix in template.shared_prefixes(settings.principles):
                    if len(prefix) >= SHORTEST_PREFIX:
                        engine.share(prefix)
            for ended in engine.run(lookahead):
                for end in ended:
                    position, record = end.sequence.request.key
                    outcomes.put(position, end.sequence.point.place, writer.outcome(end, record))
                yield _ready(outcomes, lookahead)
            if lookahead.error is not None:
                raise lookahead.error
        finally:
            lookahead.close()

    def _batch_size(self, execution: Execution, settings: Settings, lookahead: Lookahead) -> int:
        if execution.batch_size != "auto":
            return execution.batch_size
        tokens = lookahead.longest() + settings.sampling.max_new_tokens
        rows = 1 + max(1, len(settings.principles.texts))
        return largest_batch(self.loaded.model, rows, tokens, execution.memory_share)


def _ready(outcomes: InOrder, lookahead: Lookahead) -> list[Result | Failure]:
    """All that may leave now, the failures among the input in their places."""
    for position, failure in lookahead.failures:
        outcomes.fail(position, failure)
    lookahead.failures.clear()
    return outcomes.ready()


def _requests(prompts: Iterable[Prompt], builder: RequestBuilder) -> Iterator[tuple[int, Request | Failure]]:
    for position, prompt in enumerate(prompts):
        record = _record(prompt, position + 1)
        yield position, record if isinstance(record, Failure) else builder.build(record, (position, record))


def _record(prompt: Prompt, line: int) -> Record | Failure:
    if isinstance(prompt, (Record, Failure)):
        return prompt
    return parse_fields({"prompt": prompt} if isinstance(prompt, str) else prompt, line)

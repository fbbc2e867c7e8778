"""What an output was made with, for a job that goes on with it to compare."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import lalign
from lalign.aligner import Aligner
from lalign.options import Prompting, Statistics
from lalign.records.parsing import Message
from lalign.records.prompts import PROBES, PromptTemplate
from lalign.records.reading import Reading
from lalign.records.requests import Settings
from lalign.text import json_number

# Conversations that show what a template does: one turn, several, and a system message of their own.
_CONVERSATIONS = (
    PROBES[:1],
    (PROBES[0], Message("assistant", "Beta."), PROBES[1]),
    (Message("system", "Gamma."), PROBES[0]),
)


def fingerprint(
    aligner: Aligner, settings: Settings, reading: Reading, system: str | None, *, statistics: Statistics, keep: bool
) -> dict[str, Any]:
    """Everything that a response of a job depends on, and how it is written: flat, JSON values."""
    marks: dict[str, Any] = {
        "lalign": lalign.__version__,
        "torch": version("torch"),
        "transformers": version("transformers"),
        "model": aligner.backend.fingerprint(),
        "model_name": aligner.backend.name,
        "system": system,
        "stats": statistics,
        "keep": keep,
        "samples": settings.samples,
        **reading.fingerprint(),
        **({"logprobs": settings.logprobs} if settings.logprobs else {}),
        "principle": list(settings.principles.texts),
        "weight": list(settings.principles.weights),
        "contrast": settings.principles.contrast,
        **_written(settings.prompting),
        **asdict(settings.sampling),
    }
    points = [{name: json_number(value) for name, value in asdict(point).items()} for point in settings.alignments]
    marks |= points[0] if not settings.sweep else {"points": points}
    marks |= _rendered(aligner.backend.tokenizer, settings, system)
    return marks | {"stop": list(settings.sampling.stop)}


def _written(prompting: Prompting) -> dict[str, Any]:
    marks = asdict(prompting)
    return marks if prompting.prefill is not None else {name: marks[name] for name in marks if name != "prefill"}


def _rendered(tokenizer: Any, settings: Settings, system: str | None) -> dict[str, Any]:
    """What the template makes of some conversations: the first as text, all twins of all as a digest.

    A template may print the date, so that another day's prompts are others.
    """
    template = PromptTemplate(tokenizer, system, settings.prompting)
    template.check(bool(settings.principles.texts))
    twins: list[Any] = []
    for messages in _CONVERSATIONS:
        try:
            twins += template.twins(messages, settings.principles)
        except Exception as error:  # a template may raise anything at a conversation that it does not allow
            twins.append(str(error))
    shown = tokenizer.decode(twins[0]) if isinstance(twins[0], list) else twins[0]
    return {"rendered": shown, "rendered_twins": hashlib.sha256(repr(twins).encode()).hexdigest()}

"""What else a line asks for: options, which are honoured, and what is ignored, which is told (design section 4)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from lalign.errors import OptionError
from lalign.method.linear_alignment import Alignment
from lalign.options import Prompting, Sampling
from lalign.records.problems import Problem, Unusable, filled, shown, string

# Each option of a record with the dataclass that validates it and the type that it has there.
_OPTIONS: dict[str, tuple[type[Alignment] | type[Sampling], Callable[[Any], Any]]] = {
    "ratio": (Alignment, float),
    "p": (Alignment, float),
    "temperature": (Sampling, float),
    "top_p": (Sampling, float),
    "top_k": (Sampling, int),
    "min_p": (Sampling, float),
    "repetition_penalty": (Sampling, float),
    "max_new_tokens": (Sampling, int),
    "seed": (Sampling, int),
    "stop": (Sampling, tuple),
}
# Where an option has several names, the one that wins first.
_SPELLINGS: dict[str, tuple[str, ...]] = {"max_new_tokens": ("max_new_tokens", "max_completion_tokens", "max_tokens")}
_TEXTS = ("principle", "contrast", "system")
_HONOURED = frozenset([*_OPTIONS, *_SPELLINGS["max_new_tokens"], *_TEXTS, "chat_template_kwargs"])

# What asks for an answer of another kind, and the values of it that do not.
_OTHER_KIND: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "tools": (),
    "functions": (),
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "web_search_options": (),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "structured_outputs": (),
}
# Keys of an OpenAI body that have no bearing on the answer.
_BOOKKEEPING = frozenset(
    [
        "messages",
        "user",
        "metadata",
        "store",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "stream_options",
        "parallel_tool_calls",
    ]
)
# Values by which an option of other programs is off, beside null, false, 0 and what is empty.
_OFF: dict[str, tuple[Any, ...]] = {"best_of": (1,), "num_beams": (1,), "length_penalty": (1,), "typical_p": (1,)}
# Options of other programs and of lalign's command line that are told of in a line, where other keys are data.
_ASKED = frozenset(
    [
        *_OTHER_KIND,
        *_OFF,
        *("logprobs", "top_logprobs", "frequency_penalty", "presence_penalty", "logit_bias", "stream"),
        *("do_sample", "min_tokens", "min_new_tokens", "no_repeat_ngram_size", "ignore_eos", "stop_token_ids"),
        *("bad_words", "stop_sequences", "stop_strings", "system_prompt"),
        *("recipe", "scale", "anchor", "support", "support_top_p", "support_temperature", "max_kl", "weight"),
        *("kl", "kl_total", "direction", "against", "prefill"),
    ]
)
# Names shorter than this are like too many others to be guessed at by more than case and punctuation.
_SHORTEST_GUESS = 6
_LIKENESS = 0.87


def read_options(fields: Mapping[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a line gives, by the names of `Alignment` and `Sampling`; its own keys win over the body's.

    Raises `Unusable` for a value that is not valid there.
    """
    options = {}
    for name in _OPTIONS:
        for field, value in _given(fields, body, _SPELLINGS.get(name, (name,))):
            options[name] = _option(name, field, value)
            break
    return options


def read_instruction(fields: Mapping[str, Any], body: Mapping[str, Any], name: str) -> str | None:
    """A line's own principle or contrast: a text, never a file name. Raises `Unusable`."""
    blank: Problem = "invalid_option"
    return next((filled(field, text, blank) for field, text in _given(fields, body, (name,))), None)


def read_system(fields: Mapping[str, Any], body: Mapping[str, Any]) -> str | None:
    """A line's own system message, which may be empty. Raises `Unusable`."""
    return next((string(field, text) for field, text in _given(fields, body, ("system",))), None)


def read_variables(fields: Mapping[str, Any], body: Mapping[str, Any]) -> dict[str, Any] | None:
    """A line's own variables for the chat template. Raises `Unusable`."""
    for field, value in _given(fields, body, ("chat_template_kwargs",)):
        try:
            return dict(Prompting(chat_template_kwargs=value).chat_template_kwargs)
        except OptionError as error:
            raise Unusable("invalid_option", f"{field}: {error.problem}") from None
    return None


def check_kind(body: Mapping[str, Any]) -> None:
    """Raises `Unusable` where an OpenAI body asks for what is no single answer in plain text."""
    for name, plain in _OTHER_KIND.items():
        value = body.get(name)
        if value and value not in plain:
            raise Unusable("unsupported", f"body.{name}: one answer in plain text is all there is, not {shown(value)}")


def ignored(fields: Mapping[str, Any], body: Mapping[str, Any]) -> Iterator[str]:
    """The names of what a line asks for and does not get.

    Of a body that is every key that is not known; of the line, whose keys may be data of any kind, what other programs
    know as an option, and what is spelled much like one of lalign's.
    """
    for name, value in fields.items():
        if name not in _HONOURED and (_asks(name, value) if name in _ASKED else _misspelt(name, value)):
            yield name
    for name, value in body.items():
        if name not in _HONOURED | _BOOKKEEPING and (
            _asks(name, value) or (name not in _ASKED and _misspelt(name, value))
        ):
            yield f"body.{name}"


def _asks(name: str, value: Any) -> bool:
    """Whether an option of another program asks for anything by its value."""
    return bool(value) and value not in _OFF.get(name, ()) and value not in _OTHER_KIND.get(name, ())


def _misspelt(name: Any, value: Any) -> bool:
    return value is not None and isinstance(name, str) and _like_an_option(name)


@lru_cache(maxsize=4096)
def _like_an_option(name: str) -> bool:
    if len(name) > 40:
        return False
    plain, honoured = _plain(name), [_plain(option) for option in _HONOURED]
    if plain in honoured or plain in map(_plain, _ASKED):
        return True
    long = [option for option in honoured if len(option) >= _SHORTEST_GUESS]
    return bool(get_close_matches(plain, long, n=1, cutoff=_LIKENESS))


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _given(fields: Mapping[str, Any], body: Mapping[str, Any], names: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """What is said under any of `names`, with the field it stands in: the line's, then the body's; null is nothing."""
    for prefix, values in (("", fields), ("body.", body)):
        for name in names:
            if (value := values.get(name)) is not None:
                yield prefix + name, value


def _option(name: str, field: str, value: Any) -> Any:
    if name == "p" and value == "inf":
        value = math.inf
    elif name == "stop" and isinstance(value, (str, list)):
        value = (value,) if isinstance(value, str) else tuple(value)
    owner, kind = _OPTIONS[name]
    try:
        owner(**{name: value})
    except OptionError as error:
        raise Unusable("invalid_option", f"{field}: {error.problem}") from None
    return kind(value)

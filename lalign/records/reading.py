"""Where in a record its prompt, id and principle stand, where a job says so itself."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lalign.errors import OptionError
from lalign.records.problems import Unusable
from lalign.records.templates import FieldTemplate, named_fields

READ_BY = "read_by"
"""The key of a record under which `Reading.mark` stands."""

_NAMES = ("prompt_field", "messages_field", "id_field")


@dataclass(frozen=True, slots=True)
class Reading:
    """How the records of a job are read, over what `lalign.records.conversations` would find in them.

    prompt_template: makes the user's turn of a record's fields.
    prompt_field: the field with the prompt, a text or a list of messages.
    messages_field: the field with the conversation, of `role` and `content` or of `from` and `value`.
    id_field: the field with the record's id.
    principles: makes the texts of the principles of a record's fields; empty where they are the job's. contrast,
        system: likewise that of the base twin, and the system message of a record that has none.

    Raises `OptionError` where several say where the prompt is.
    """

    prompt_template: FieldTemplate | None = None
    prompt_field: str | None = None
    messages_field: str | None = None
    id_field: str | None = None
    principles: tuple[FieldTemplate, ...] = ()
    contrast: FieldTemplate | None = None
    system: FieldTemplate | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("prompt_template", "prompt_field", "messages_field") if getattr(self, name)]
        if len(given) > 1:
            other = given[1].replace("_", "-")
            raise OptionError(given[0], f"does not go with --{other}: both say where the prompt is")

    @property
    def fills(self) -> bool:
        """Whether a template is filled."""
        return bool(self.prompt_template or self.principles or self.contrast or self.system)

    @property
    def names_fields(self) -> bool:
        """Whether records must have fields that the job names."""
        return bool(self.fills or self.prompt_field or self.messages_field or self.id_field)

    def fingerprint(self) -> dict[str, Any]:
        """What of it decides a response, for a resumed run to compare; principles are compared as texts."""
        template = {"prompt_template": self.prompt_template.text} if self.prompt_template else {}
        template |= {"system": self.system.text} if self.system else {}
        return template | self._names()

    @classmethod
    def of(cls, marks: Mapping[str, Any]) -> Reading:
        """Where prompt and id stand, from a `fingerprint` that was stored, or from a `mark` without a template."""
        template = marks.get("prompt_template")
        return cls(
            FieldTemplate(template, "prompt_template") if isinstance(template, str) else None,
            **{name: marks[name] for name in _NAMES if isinstance(marks.get(name), str)},
        )

    def mark(self) -> dict[str, str]:
        """What each record says of where its prompt and id were, a template by its digest; may be empty."""
        digest = hashlib.sha256(self.prompt_template.text.encode()).hexdigest() if self.prompt_template else ""
        return ({"prompt_template": digest[:16]} if digest else {}) | self._names()

    def told(self) -> dict[str, Any]:
        """The mark under its key, for a record; nothing where it is empty."""
        return {READ_BY: mark} if (mark := self.mark()) else {}

    def _names(self) -> dict[str, str]:
        return {name: value for name in _NAMES if (value := getattr(self, name)) is not None}


def field_of(fields: Mapping[str, Any], name: str, option: str) -> Any:
    """The value of a field that an option names; null counts as absent. Raises `Unusable` where there is none."""
    if (value := fields.get(name)) is None:
        there = named_fields(key for key, found in fields.items() if found is not None)
        raise Unusable("missing_field", f"{option}: no field {name!r}; {there}")
    return value

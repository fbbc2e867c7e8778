"""What a job on Ray has done, as counts."""

from __future__ import annotations

from dataclasses import dataclass, field

from lalign.records.notices import Notices


@dataclass(frozen=True, slots=True)
class Counts:
    """What a job has written: lines, records, failures among them, tokens; and the lines and failures that stood.

    notices: what to say of the records that were read.
    """

    lines: int = 0
    records: int = 0
    failures: int = 0
    tokens: int = 0
    stood: int = 0
    stood_failures: int = 0
    notices: Notices = field(default_factory=Notices)

"""Measures what a job does a record besides the engine's work, in CPU seconds: docs/scale/serial.json.

python docs/scale/serial.py [RECORDS]      100,000 by default
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson

from lalign.jobs.answered import line_digest
from lalign.jobs.merge import merge_outputs
from lalign.jobs.resume import scan
from lalign.ray.files import numbered, read_blocks, survey
from lalign.records.source import json_lines, open_lines


def measured(work: Callable[[], object], records: int) -> float:
    began = time.process_time()
    work()
    return (time.process_time() - began) / records


def main(records: int, output: Path) -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        source = folder / "in.jsonl"
        source.write_bytes(b"".join(b'{"id": "record-%d", "prompt": "Number %d?"}\n' % (n, n) for n in range(records)))
        lines = [
            orjson.dumps({"id": f"record-{n}", "line": n, "response": "word " * 40, "alignment": {"ratio": 1}}) + b"\n"
            for n in range(1, records + 1)
        ]
        parts = folder / "a.jsonl", folder / "b.jsonl"
        for start, part in enumerate(parts):
            part.write_bytes(b"".join(lines[start::2]))
        whole = folder / "whole.jsonl"
        whole.write_bytes(b"".join(lines))

        def read() -> int:
            with open_lines(source) as stream:
                return sum(1 for _ in json_lines(stream, "in"))

        def digest() -> int:
            with open_lines(source) as stream:
                return sum(line_digest(raw) & 1 for raw in json_lines(stream, "in"))

        [file] = numbered([survey(source, "jsonl")])
        none = np.packbits(np.zeros(records + 1, np.bool_), bitorder="little")
        found = {
            "read": measured(read, records),
            "read_and_digest": measured(digest, records),
            "scan": measured(lambda: scan(whole, "out", retry_errors=False), records),
            "merge": measured(lambda: merge_outputs(parts, folder / "merged.jsonl"), records),
            "ray_survey": measured(lambda: survey(source, "jsonl"), records),
            "ray_read": measured(lambda: sum(len(block) for block in read_blocks(file, "jsonl", none, 128)), records),
        }
    output.write_text(json.dumps({name: float(f"{seconds:.3g}") for name, seconds in found.items()}) + "\n")
    print(output.read_text())


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000, Path(__file__).with_name("serial.json"))

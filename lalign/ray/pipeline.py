"""The ends of a pipeline of Ray Data: lines read with their numbers, and files that are whole once they have a name."""

from __future__ import annotations

import posixpath
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray
from numpy.typing import NDArray
from ray.data import Datasource, ReadTask
from ray.data.block import BlockAccessor, BlockMetadata
from ray.data.datasource import BlockBasedFileDatasink

from lalign.ray.counts import Counts
from lalign.ray.files import Format, InputFile, read_blocks
from lalign.records.notices import Notices

TABLE = pa.schema(
    [
        ("line", pa.int64()),
        ("id", pa.string()),
        ("response", pa.string()),
        ("finish_reason", pa.string()),
        ("error", pa.string()),
        ("record", pa.string()),
    ]
)
_SUMMED = ("lines", "records", "failures", "tokens")


class NumberedLines(Datasource):
    """The lines of files with their numbers, without those that are answered; a task a file.

    Ray's own readers do not say where in a file a row stood, which the seed of a response depends on, and end at a line
    that is no JSON.
    """

    def __init__(self, files: Sequence[InputFile], answered: Any, rows: int) -> None:
        super().__init__()
        self._files = files
        self._answered = answered
        self._rows = rows

    def estimate_inmemory_data_size(self) -> int | None:
        return sum(file.path.stat().st_size for file in self._files)

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        return [self._task(file) for file in self._files]

    def _task(self, file: InputFile) -> ReadTask:
        answered, rows = self._answered, self._rows

        def read() -> Iterator[pa.Table]:
            marks: NDArray[np.uint8] = ray.get(answered)
            return read_blocks(file, marks, rows)

        metadata = BlockMetadata(num_rows=None, size_bytes=None, input_files=[str(file.path)], exec_stats=None)
        return ReadTask(read, metadata)


class _Files(BlockBasedFileDatasink):
    """Writes each file under a name that readers pass over, and gives it its own when it is complete.

    written: an actor `progress.Written`, which is then told of it.

    Attributes:
        counts: what was written, when all is.
    """

    def __init__(self, folder: str, form: Format, written: Any) -> None:
        super().__init__(folder, file_format=form)
        self.counts = Counts()
        self._form = form
        self._written = written
        # A task that is run again writes the same file again.
        self._run = uuid.uuid4().hex[:12]

    def write(self, blocks: Iterable[pa.Table], ctx: Any) -> Counts:
        tables = [table for block in blocks if (table := BlockAccessor.for_block(block).to_arrow()).num_rows]
        if not tables:  # what Ray makes of no blocks has no columns
            return Counts()
        table = pa.concat_tables(tables).sort_by("line")
        name = f"part-{self._run}-{ctx.task_idx:06}.{self._form}"
        aside = posixpath.join(self.path, f".{name}.tmp")
        with self.open_output_stream(aside) as file:
            self.write_table(table, file)
        self.filesystem.move(aside, posixpath.join(self.path, name))
        self._written.tell.remote(ctx.task_idx, table.num_rows)
        records = pc.sum(pc.list_value_length(table["records"])).as_py()
        failures, tokens = (pc.sum(table[column]).as_py() for column in ("failures", "tokens"))
        notices = Notices()
        for told in table.select(["ignored", "read_from", "continued"]).to_pylist():
            notices.add(**told)
        return Counts(table.num_rows, records, failures, tokens, notices=notices)

    def write_table(self, table: pa.Table, file: Any) -> None:
        """Write a table of `ANSWERED`, in the order of its lines."""
        raise NotImplementedError

    def on_write_complete(self, write_result: Any) -> None:
        written = [counts for counts in write_result.write_returns if counts is not None]
        notices = Notices()
        for counts in written:
            notices.merge(counts.notices)
        sums = {name: sum(getattr(counts, name) for counts in written) for name in _SUMMED}
        self.counts = Counts(**sums, notices=notices)


class JsonLinesFiles(_Files):
    """What `Align` gives, as files of JSON Lines, each in the order of its lines."""

    def __init__(self, folder: str, written: Any) -> None:
        super().__init__(folder, "jsonl", written)

    def write_table(self, table: pa.Table, file: Any) -> None:
        for records in table["records"].to_pylist():
            for record in records:
                file.write(record)


class ParquetFiles(_Files):
    """What `Align` gives, as Parquet files: a row a record, with the whole record as JSON in its last column."""

    def __init__(self, folder: str, written: Any) -> None:
        super().__init__(folder, "parquet", written)

    def write_table(self, table: pa.Table, file: Any) -> None:
        rows = [_row(record) for records in table["records"].to_pylist() for record in records]
        pq.write_table(pa.Table.from_pylist(rows, TABLE), file)


def _row(raw: bytes) -> dict[str, Any]:
    record = orjson.loads(raw)
    found = record["id"]
    return {
        "line": record["line"],
        "id": found if isinstance(found, str) else orjson.dumps(found).decode(),
        "response": record.get("response"),
        "finish_reason": record.get("finish_reason"),
        "error": record["error"]["message"] if "error" in record else None,
        "record": raw.decode().rstrip("\n"),
    }

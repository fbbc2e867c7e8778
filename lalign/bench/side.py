"""A process of its own for each way of answering prompts, so that its memory is its own and nothing of it is shared."""

from __future__ import annotations

import os
import pickle
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import lalign
from lalign.bench.contenders import Contender
from lalign.bench.measuring import Machine, Measurement
from lalign.engine.interface import Weights
from lalign.errors import LalignError, ModelError
from lalign.models.loading import ModelOptions
from lalign.records.parsing import Record
from lalign.records.requests import Settings

# What `lalign` sets for itself and other programs run without.
LARGE_PAGES = "THP_MEM_ALLOC_ENABLE"


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be answered: records, settings of the job, and the system text."""

    records: tuple[Record, ...]
    settings: Settings
    system: str | None


@dataclass(frozen=True, slots=True)
class Prompts:
    """The same as token ids, for who knows nothing of records: a base and a principled row of each prompt."""

    base: tuple[list[int], ...]
    principled: tuple[list[int], ...]
    stop_ids: frozenset[int]
    max_new_tokens: int

    def __getitem__(self, limit: int | None) -> Prompts:
        """The first `limit` of them, all where it is None."""
        return Prompts(self.base[:limit], self.principled[:limit], self.stop_ids, self.max_new_tokens)


@dataclass(frozen=True, slots=True)
class Task:
    """What a process is told as it begins.

    prompts: None for lalign's own, which makes them; the first such tells them (`leads`).
    """

    contender: Contender
    model: ModelOptions
    engine_options: dict[str, str]
    work: Work
    prompts: Prompts | None = None
    leads: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """What a process tells when it is ready.

    load_memory: bytes, at most, up to now. prompts: of the one that leads.
    """

    model: str
    weights: Weights
    load_memory: int = 0
    prompts: Prompts | None = None


class Side:
    """Runs one contender in an interpreter of its own, which has what its engine needs.

    Attributes:
        facts: what it told when it was ready.

    Raises `LalignError`, one line, where it does not start.
    """

    def __init__(self, python: str, task: Task) -> None:
        self._name = task.contender.name
        environment = dict(os.environ)
        if task.contender.peer:
            environment.pop(LARGE_PAGES, None)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115, closed with the process
        try:
            self._process = subprocess.Popen(
                [python, "-m", "lalign.bench.serving", lalign.__version__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=environment,
            )
        except OSError as error:
            raise ModelError(f"{python}: {error.strerror or error}") from error
        self._python = python
        try:
            self._send(task)
            self.facts: Facts = self._receive()
        except BaseException:
            self.close()
            raise

    def run(self, batch_size: int, limit: int | None = None) -> Measurement:
        """Answer the prompts, or the first `limit` of them."""
        self._send((batch_size, limit))
        measurement: Measurement = self._receive()
        return measurement

    def machine(self) -> Machine | None:
        """What the device of this contender can do; None where its engine does not say where it runs, or lacks memory.

        For the end, since it takes memory of the process.
        """
        self._send(None)
        machine: Machine | None = self._receive()
        return machine

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def _send(self, value: Any) -> None:
        stream: IO[bytes] = self._process.stdin  # type: ignore[assignment]
        try:
            pickle.dump(value, stream)
            stream.flush()
        except OSError:  # it has ended, which the answer tells of
            pass

    def _receive(self) -> Any:
        stream: IO[bytes] = self._process.stdout  # type: ignore[assignment]
        try:
            answer = pickle.load(stream)
        except (EOFError, pickle.UnpicklingError):
            raise LalignError(f"{self._name}: {self._last_words()}") from None
        if isinstance(answer, LalignError):
            raise answer
        return answer

    def _last_words(self) -> str:
        """Why the process ended, as far as it said so."""
        self._process.kill()
        status = self._process.wait()
        self._log.seek(0)
        lines = [line.strip() for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]
        why = lines[-1] if lines else f"status {status}: out of memory?"
        return f"its process ended before its time ({Path(self._python).name}: {why})"

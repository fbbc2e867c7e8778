"""Rows of tokens as sequences of one context: what `engine.Engine` asks of a model (`rows.RowModel`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lalign.engine.llamacpp.context import Context, Token
from lalign.engine.llamacpp.model import GgufModel
from lalign.engine.rows import longest_shared
from lalign.errors import ModelError

# Tokens of one call for prompts: what they hold of logits and memory stays bounded.
TOKENS_PER_PASS = 2048


@dataclass(frozen=True, slots=True)
class SharedPrefix:
    """Tokens that many prompts begin with. They are run when a prompt first needs them."""

    token_ids: list[int]


class LlamaStore:
    """Rows of a context: which sequence each is, and how long. See `rows.RowStore`."""

    def __init__(self, forward: LlamaForward) -> None:
        self._forward = forward
        self.sequences: list[int] = []
        self.lengths: list[int] = []

    @property
    def rows(self) -> int:
        return len(self.sequences)

    def expect(self, rows: int, width: int) -> None:
        """Nothing: `fits` has told of them."""

    def fits(self, rows: int, tokens: int) -> bool:
        """As `RowStore.fits`: by the sequences and cells that are not taken by prefixes."""
        return self._forward.holds(rows, tokens, may_grow=not self.sequences)

    def admit(self, opened: LlamaStore) -> list[int]:
        """As `RowStore.admit`."""
        first = self.rows
        self.sequences += opened.sequences
        self.lengths += opened.lengths
        return list(range(first, self.rows))

    def fork(self, sources: list[int]) -> list[int]:
        """As `RowStore.fork`; the copies share the cells of what they copy."""
        first = self.rows
        self.sequences += self._forward.copies([self.sequences[source] for source in sources])
        self.lengths += [self.lengths[source] for source in sources]
        return list(range(first, self.rows))

    def remove(self, rows: list[int]) -> dict[int, int]:
        """As `RowStore.remove`."""
        self._forward.give_back([self.sequences[row] for row in rows])
        gone, kept = set(rows), self.rows - len(rows)
        gaps = sorted(row for row in gone if row < kept)
        movers = [row for row in range(kept, self.rows) if row not in gone]
        for source, target in zip(movers, gaps, strict=True):
            self.sequences[target], self.lengths[target] = self.sequences[source], self.lengths[source]
        del self.sequences[kept:], self.lengths[kept:]
        return dict(zip(movers, gaps, strict=True))


class LlamaForward:
    """Runs a model's rows in a context, which is made anew, while it is empty, where it must be larger.

    Attributes:
        most_cells: how far the context may grow; `most_sequences`, likewise, is what llama.cpp can do.
        prefixes: those of the run, for which room is kept.

    Raises `ModelError` where llama.cpp cannot make a context with the parameters given.
    """

    device = torch.device("cpu")
    shares = False  # a row begins with cells of a prefix, whole or in part, which are its own too

    def __init__(self, model: GgufModel) -> None:
        self.model = model
        self.most_sequences: int = model.library.api.llama_max_parallel_sequences()
        self.fixed_cells: int | None = model.parameters.context.get("n_ctx")
        self.most_cells = self.fixed_cells or 0
        self.prefixes: list[SharedPrefix] = []
        self._shared: dict[tuple[int, ...], int] = {}
        try:
            self._context = Context(model, 1, self.fixed_cells or 1)
        except MemoryError as error:
            raise ModelError(f"{model.name}: {error}") from error
        self._free = [0]
        self._wanted = (1, 1)

    @property
    def cells(self) -> int:
        """How many cells the context has now."""
        return self._context.cells

    def share(self, prefixes: Sequence[list[int]]) -> list[SharedPrefix]:
        """Keep these prefixes from now on, and no others; of a model that keeps states, none."""
        self.prefixes = [] if self.model.keeps_states else [SharedPrefix(ids) for ids in prefixes]
        kept = {tuple(prefix.token_ids) for prefix in self.prefixes}
        for token_ids in [token_ids for token_ids in self._shared if token_ids not in kept]:
            self.give_back([self._shared.pop(token_ids)])
        return self.prefixes

    def holds(self, rows: int, tokens: int, *, may_grow: bool) -> bool:
        """Whether the context has room for rows of so many tokens altogether, besides the prefixes."""
        sequences = rows + len(self.prefixes)
        cells = tokens + sum(len(prefix.token_ids) for prefix in self.prefixes)
        if may_grow and sequences <= self.most_sequences and cells <= self.most_cells:
            self._wanted = max(self._wanted[0], sequences), max(self._wanted[1], cells)
            return True
        return sequences <= self._context.sequences and cells <= self._context.cells

    def store(self) -> LlamaStore:
        """As `RowModel.store`: all rows are forgotten, prefixes are kept."""
        kept = set(self._shared.values())
        self._free = [sequence for sequence in range(self._context.sequences) if sequence not in kept]
        for sequence in self._free:
            self._context.remove(sequence)
        return LlamaStore(self)

    def passes(self, rests: Sequence[tuple[int, int]]) -> Iterator[list[int]]:
        """As `RowModel.passes`: in their order, since no row is padded."""
        chosen: list[int] = []
        used = 0
        for index, (rows, length) in enumerate(rests):
            if chosen and used + rows * length > TOKENS_PER_PASS:
                yield chosen
                chosen, used = [], 0
            chosen.append(index)
            used += rows * length
        if chosen:
            yield chosen

    def prompts(
        self, rows: Sequence[list[int]], prefixes: Sequence[SharedPrefix], store: LlamaStore
    ) -> tuple[Tensor, LlamaStore]:
        """As `RowModel.prompts`: each starts from the prefix it shares most of. Raises `MemoryError`."""
        if not store.rows:
            self._grow()
        opened = LlamaStore(self)
        tokens: list[Token] = []
        for row in rows:
            length, prefix = longest_shared(row, prefixes)
            source = None if prefix is None else self._run_once(prefix)
            (sequence,) = self.take(1)
            if source is not None:
                self._context.copy(source, sequence, length)
            last = len(row) - 1
            tokens += [
                Token(row[position], position, sequence, position == last) for position in range(length, len(row))
            ]
            opened.sequences.append(sequence)
            opened.lengths.append(len(row))
        return self._context.run(tokens), opened

    def step(self, input_ids: Tensor, store: LlamaStore) -> Tensor:
        """As `RowModel.step`. Raises `MemoryError`."""
        following = zip(input_ids[:, 0].tolist(), store.lengths, store.sequences, strict=True)
        logits = self._context.run([Token(token, position, sequence, True) for token, position, sequence in following])
        store.lengths = [length + 1 for length in store.lengths]
        return logits

    def copies(self, sources: list[int]) -> list[int]:
        """Sequences that share all tokens of others. Raises `MemoryError`."""
        copies = self.take(len(sources))
        for source, copy in zip(sources, copies, strict=True):
            self._context.copy(source, copy)
        return copies

    def take(self, count: int) -> list[int]:
        """Sequences that are empty. Raises `MemoryError` where there are not so many."""
        if count > len(self._free):
            raise MemoryError("no sequences are left")
        return [self._free.pop() for _ in range(count)]

    def give_back(self, sequences: Sequence[int]) -> None:
        """Empty sequences."""
        for sequence in sequences:
            self._context.remove(sequence)
        self._free += sequences

    def _grow(self) -> None:
        sequences, cells = self._wanted
        if sequences <= self._context.sequences and cells <= self._context.cells:
            return
        sequences, cells = max(sequences, self._context.sequences), max(cells, self._context.cells)
        self._wanted = (1, 1)
        self._shared.clear()
        self._context.free()  # before there is another
        try:
            self._context = Context(self.model, sequences, self.fixed_cells or cells)
        except MemoryError:
            self.most_cells //= 2
            self._context = Context(self.model, 1, 1)
            raise
        finally:
            self.store()

    def _run_once(self, prefix: SharedPrefix) -> int:
        """The sequence that holds a prefix, run now if it is not yet."""
        token_ids = tuple(prefix.token_ids)
        if token_ids not in self._shared:
            (sequence,) = self.take(1)
            self._context.run([Token(token, position, sequence, False) for position, token in enumerate(token_ids)])
            self._shared[token_ids] = sequence
        return self._shared[token_ids]

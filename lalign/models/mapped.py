"""Memory of weights that are mapped from a file, given back as soon as they are copied or packed (design section 7).

Pages of a mapped file count as the process's own memory once they are read, and stay until all of the file is let go.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

MAPS = Path("/proc/self/maps")
# Elements copied at a time.
CHUNK = 1 << 22


class MappedFiles:
    """Where files are mapped in this process, as of now; nowhere on a system that does not tell."""

    def __init__(self) -> None:
        self._ranges = sorted(_file_ranges())

    def give_back(self, tensor: Tensor) -> None:
        """Let go of the pages that a tensor alone fills, if they are mapped. Nothing may need what it holds any more:

        what has been written to it is lost.
        """
        start = tensor.data_ptr()
        end = start + tensor.nbytes
        place = bisect_right(self._ranges, (start, sys.maxsize)) - 1
        if place < 0 or end > self._ranges[place][1] or not tensor.is_contiguous():
            return
        start, end = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, end // mmap.PAGESIZE * mmap.PAGESIZE
        if start < end:
            ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)

    def moved(self, tensor: Tensor) -> Tensor:
        """A copy that is not mapped, of a tensor whose own memory is let go of as it is copied."""
        copy = torch.empty_like(tensor)
        if not tensor.is_contiguous():
            return copy.copy_(tensor)
        for whole, part in zip(torch.split(copy.view(-1), CHUNK), torch.split(tensor.view(-1), CHUNK), strict=True):
            whole.copy_(part)
            self.give_back(part)
        return copy


def move_weights(model: nn.Module) -> None:
    """Copy all weights out of mapped files, one at a time: a file that is changed later changes no answer."""
    files = MappedFiles()
    for parameter in model.parameters():
        parameter.data = files.moved(parameter.data)


def _file_ranges() -> Iterator[tuple[int, int]]:
    """First and last address of what is mapped from a file for this process alone."""
    if not MAPS.is_file() or not hasattr(mmap, "MADV_DONTNEED"):
        return
    for line in MAPS.read_text(encoding="utf-8", errors="replace").splitlines():
        addresses, permissions, _, _, inode, *_ = line.split(maxsplit=5)
        if int(inode) and permissions.endswith("p"):
            start, end = addresses.split("-")
            yield int(start, 16), int(end, 16)

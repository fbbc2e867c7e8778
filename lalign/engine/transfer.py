"""From host values to tensors on a device, without waiting for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def to_device(values: Any, device: torch.device, dtype: torch.dtype = torch.long) -> Tensor:
    """A tensor of `values`; to a CUDA device from pinned memory, so that the copy is not waited for."""
    tensor = torch.tensor(values, dtype=dtype)
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)

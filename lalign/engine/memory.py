"""How much memory a pair in flight takes, and how many fit (`--batch-size auto`)."""

from __future__ import annotations

from typing import Any

import psutil
import torch

# Copies of a row's logits alive at once in a step: logits, twins, shift, step, aligned, three log-probabilities.
LOGITS_COPIES = 12
LARGEST_AUTO_BATCH = 256


# What torch says on a CPU, where it has no exception of its own for it.
CPU_MESSAGES = ("can't allocate memory", "not enough memory", "could not create a primitive", "std::bad_alloc")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of any device says that there is no memory left."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in CPU_MESSAGES)


def free_bytes(device: torch.device) -> int:
    """Memory free for use on a device, in bytes."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return int(psutil.virtual_memory().available)


def row_bytes(model: Any, tokens: int) -> int:
    """What one row of `tokens` tokens takes: keys and values of all layers, and its logits, in bytes."""
    config = model.config.get_text_config(decoder=True)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    # Some models have other sizes in other layers; the largest is taken for all.
    heads, head_size = (max(size) if isinstance(size, (list, tuple)) else size for size in (heads, head_size))
    cache = 2 * config.num_hidden_layers * heads * head_size * tokens * model.dtype.itemsize
    return int(cache + LOGITS_COPIES * config.vocab_size * 4)


def largest_batch(model: Any, rows_per_pair: int, tokens: int, share: float) -> int:
    """How many pairs of `tokens` tokens fit into `share` of the free memory: from 1 to 256."""
    pairs = share * free_bytes(model.device) / (rows_per_pair * row_bytes(model, tokens))
    return max(1, min(LARGEST_AUTO_BATCH, int(pairs)))

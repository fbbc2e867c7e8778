"""The likeliest tokens at a step, of each distribution that it knows. Pure functions of tensors."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad


def likeliest(logits: tuple[Tensor, ...], tokens: Tensor, count: int) -> Tensor:
    """For each of `DISTRIBUTIONS` the log-probability of the token taken, ids, and the log-probabilities of these.

    Args:
        logits: of each distribution `[rows, vocab]`; -inf for a token that it does not have.
        tokens: those taken `[rows]`.
        count: how many are wanted, likeliest first. Where a distribution has fewer, those that are over have -inf.

    Returns `[rows, likeliest_width(count)]` float32, in nats; float32 holds ids up to 2**24 exactly.
    """
    return torch.cat([_of_one(rows.float().log_softmax(-1), tokens, count) for rows in logits], dim=-1)


def _of_one(logprobs: Tensor, tokens: Tensor, count: int) -> Tensor:
    top = logprobs.topk(min(count, logprobs.shape[-1]), dim=-1)
    missing = (0, count - top.values.shape[-1])
    taken = logprobs.gather(-1, tokens.unsqueeze(-1))
    return torch.cat([taken, pad(top.indices.float(), missing), pad(top.values, missing, value=-torch.inf)], dim=-1)

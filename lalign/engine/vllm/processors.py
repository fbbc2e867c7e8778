"""The two interfaces for processors of logits that vLLM has, each told to `Pairing` as rows. Imports no vLLM.

vLLM takes classes of its own kind only: `registered_v1` and `registered_v2` derive from these and from those.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lalign.engine.vllm.pairing import KEY, Lookout, Pairing, Row, Twin


def asked(params: Any) -> Twin | Lookout | None:
    """What a vLLM request carries for lalign; None for a request that is vLLM's own affair."""
    found: Twin | Lookout | None = (params.extra_args or {}).get(KEY)
    return found


class PairsV1:
    """For the model runner V1: rows are the places of requests in the batch, which move.

    runner: the model runner, which the worker extension gives. Its `discard_request_mask` marks rows of prompts that
    are not through; what is drawn in them is thrown away, and nothing else says so.
    """

    def __init__(self, vllm_config: Any, device: Any, is_pin_memory: bool) -> None:
        self.pairing = Pairing()
        self.runner: Any = None
        self._rows: dict[int, tuple[Twin | Lookout, list[int]]] = {}

    def is_argmax_invariant(self) -> bool:
        """False: the token with the largest logit becomes another."""
        return False

    def update_state(self, batch_update: Any) -> None:
        """Follow the requests that left, came and moved, in that order."""
        if batch_update is None:
            return
        for number in batch_update.removed:
            self._rows.pop(number, None)
        for number, params, _, output in batch_update.added:
            self._rows.pop(number, None)
            if (found := asked(params)) is not None:
                self._rows[number] = (found, output)
        for source, target, way in batch_update.moved:
            here, there = self._rows.pop(source, None), self._rows.pop(target, None)
            if here is not None:
                self._rows[target] = here
            if there is not None and way.name == "SWAP":
                self._rows[source] = there

    def apply(self, logits: Tensor) -> Tensor:
        """Step the pairs whose rows are here. `logits`: `[requests, vocab]`."""
        if not self._rows:
            return logits
        unfinished = self.runner.discard_request_mask.np
        rows = [
            Row(number, found, len(output), output[-1] if output else None)
            for number, (found, output) in self._rows.items()
            if number < logits.shape[0] and not unfinished[number]
        ]
        return self.pairing.step(logits, rows)


class PairsV2:
    """For Model Runner V2: requests have slots that stay, and rows name them anew at each step."""

    def __init__(self, vllm_config: Any, req_states: Any) -> None:
        self.pairing = Pairing()
        self._states = req_states
        self._slots: dict[int, Twin | Lookout] = {}

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """A request comes into a slot, or comes back into one; True where it is lalign's."""
        self._slots.pop(req_idx, None)
        if (found := asked(sampling_params)) is not None:
            self._slots[req_idx] = found
        return found is not None

    def apply(self, logits: Tensor, ctx: Any) -> Tensor:
        """Step the pairs whose rows are here. `logits`: `[requests, vocab]`, one row each without speculation."""
        rows = []
        lengths = ctx.seq_lens_upper_bound_np
        for number, slot in enumerate(ctx.idx_mapping_np.tolist()):
            found, length = self._slots.get(slot), int(lengths[number])
            # Below that, a chunk of a prompt: what is drawn is thrown away.
            if found is not None and length >= int(self._states.prefill_len.np[slot]):
                rows.append(Row(number, found, length - int(self._states.prompt_len.np[slot])))
        return self.pairing.step(logits, rows)

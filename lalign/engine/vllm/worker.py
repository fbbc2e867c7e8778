"""What lalign adds to vLLM's worker, for `collective_rpc` to call: the way to the processor and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lalign.engine.vllm.pairing import Report
from lalign.engine.vllm.processors import PairsV1, PairsV2


class LalignWorker:
    """vLLM's `worker_extension_cls`: a base class of the worker, whose model runner is `model_runner`."""

    model_runner: Any

    def lalign_attach(self) -> str:
        """Show the processor its runner; returns which of the two interfaces it has."""
        processor = self._lalign()
        if isinstance(processor, PairsV1):
            processor.runner = self.model_runner
        return type(processor).__mro__[1].__name__

    def lalign_report(self, done: Iterable[int]) -> Report:
        """As `Pairing.report`."""
        return self._lalign().pairing.report(done)

    def _lalign(self) -> PairsV1 | PairsV2:
        runner = self.model_runner
        # The V2 runner holds no batch from step to step.
        known = (
            runner.input_batch.logitsprocs.all if hasattr(runner, "input_batch") else runner.sampler.logits_processors
        )
        return next(processor for processor in known if isinstance(processor, (PairsV1, PairsV2)))

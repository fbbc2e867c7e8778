"""The processor that vLLM's Model Runner V2 loads by name."""

from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor

from lalign.engine.vllm.processors import PairsV2


class Registered(PairsV2, LogitsProcessor):
    """`PairsV2` as vLLM wants it."""

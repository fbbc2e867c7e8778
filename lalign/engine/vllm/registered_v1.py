"""The processor that vLLM's model runner V1 loads by name."""

from vllm.v1.sample.logits_processor import LogitsProcessor

from lalign.engine.vllm.processors import PairsV1


class Registered(PairsV1, LogitsProcessor):
    """`PairsV1` as vLLM wants it."""

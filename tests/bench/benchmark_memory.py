"""By hand: resident memory of a job of many records on a tiny random model.

python tests/benchmark_memory.py [RECORDS]      100,000 by default; prints MB after each power of ten and at the end
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import psutil
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lalign import Aligner, Execution
from lalign.engine.torch_backend import TorchBackend
from lalign.models.loading import LoadedModel


def tiny() -> LoadedModel:
    """A random llama over bytes."""
    torch.manual_seed(0)
    vocabulary = {character: number for number, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    bytes_alone = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    bytes_alone.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_alone.decoder = decoders.ByteLevel()
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        bos_token_id=0,
        eos_token_id=None,
    )
    model = LlamaForCausalLM(config).eval()
    return LoadedModel(model, PreTrainedTokenizerFast(tokenizer_object=bytes_alone), "tiny", "tiny")


def main(records: int) -> None:
    aligner = Aligner(TorchBackend(tiny()))

    def prompts() -> Iterator[dict[str, Any]]:
        for number in range(records):
            yield {"id": f"record-{number}", "prompt": f"Tell me about number {number}." + " And more." * (number % 7)}

    process = psutil.Process()
    answers = aligner.generate(
        prompts(), principle="Be kind.", ratio=2, max_new_tokens=4, execution=Execution(batch_size=64)
    )
    for count, _ in enumerate(answers, 1):
        if count in (1_000, 10_000, 100_000) or count == records:
            print(f"{count:>9,} records: {process.memory_info().rss / 2**20:.1f} MB", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)

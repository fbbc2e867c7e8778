"""What several test files share: the embedded model, tiny random models of stock architectures, a tiny tokenizer."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import orjson
import pytest
import torch
from hypothesis import settings
from scripted_endpoint import Serve, scripted_endpoint
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from lalign.aligner import Aligner
from lalign.backends import open_backend
from lalign.engine.torch_backend import TorchBackend
from lalign.engine.vllm.backend import VllmBackend
from lalign.engine.vllm.engine_args import is_installed
from lalign.method.aligned import Aligned
from lalign.method.recipe import Recipe
from lalign.models.loading import LoadedModel, ModelOptions, load

# An example takes as long as the machine is busy.
settings.register_profile("lalign", deadline=None)
settings.load_profile("lalign")

SAMPLES = Path(__file__).parent.parent / "samples"
VOCABULARY = 300
SLIDING_WINDOW = 8  # shorter than any prompt worth testing
SPECIAL_TOKENS = ["<bos>", "<eos>", "<pad>", "<|im_start|>", "<|im_end|>"]
# Plain ChatML: knows a system role, has no default system text.
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_IDS: dict[str, Any] = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
# A wide initialisation, so that logits are far apart and greedy choices are not decided by rounding.
_HEADS: dict[str, Any] = {
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
    "tie_word_embeddings": False,
}
_CONFIGS: dict[str, Callable[..., Any]] = {
    "llama": lambda **given: LlamaConfig(**{**_IDS, **_HEADS, **given}),
    "gpt2": lambda **given: GPT2Config(
        **{**_IDS, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512, "initializer_range": 0.3, **given}
    ),
    "qwen2": lambda **given: Qwen2Config(**{**_IDS, **_HEADS, **given}),
    "qwen3": lambda **given: Qwen3Config(**{**_IDS, **_HEADS, "head_dim": 16, **given}),
    "gemma3": lambda **given: Gemma3TextConfig(
        **{
            **_IDS,
            **_HEADS,
            "head_dim": 8,
            "num_hidden_layers": 3,
            "sliding_window": SLIDING_WINDOW,
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
            **given,
        }
    ),
    "mistral": lambda **given: MistralConfig(**{**_IDS, **_HEADS, "sliding_window": SLIDING_WINDOW, **given}),
}

TinyModel = Callable[..., Any]
TinyTokenizer = Callable[..., PreTrainedTokenizerFast]
MetaspaceTokenizer = Callable[..., PreTrainedTokenizerFast]


def model_of(aligner: Aligner) -> Any:
    """The model that an aligner runs, to be watched or made to fail."""
    assert isinstance(aligner.backend, TorchBackend)
    return aligner.backend.loaded.model


def align(base: Tensor, principled: Tensor, ratio: Tensor, settings: Recipe) -> Aligned:
    """One step with the support left aside; `base`, `principled`: `[rows, vocab]`, `ratio`: `[rows]`."""
    return replace(settings, support="none").step(base, principled, ratio)


@pytest.fixture(scope="session", autouse=True)
def threads() -> None:
    """One thread: two that wait for each other on a busy machine can take a hundred times as long."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def smol() -> LoadedModel:
    """The embedded SmolLM2-135M-Instruct as lalign loads it."""
    return load(ModelOptions())


@pytest.fixture(scope="session")
def vllm_smol() -> VllmBackend:
    """The same model in vLLM, which takes a minute to start: once for all tests. Context of 512 tokens."""
    if not is_installed():
        pytest.skip("vllm is not installed here (docs/engines.md says how; .ci/engines keeps an environment with it)")
    options = {"max_model_len": "512", "block_size": "32", "kv_cache_memory_bytes": str(1 << 29)}
    backend = open_backend(ModelOptions(), "vllm", options)
    assert isinstance(backend, VllmBackend)
    return backend


@pytest.fixture(scope="session")
def stock_smol(smol: LoadedModel) -> Any:
    """The same model as transformers loads it."""
    return AutoModelForCausalLM.from_pretrained(smol.location, dtype=torch.float32).eval()


@pytest.fixture(scope="session")
def hh() -> str:
    """A helpful-and-harmless principle."""
    return (SAMPLES / "hh.txt").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def tiny_model() -> TinyModel:
    """`tiny_model(kind, **overrides)`: a small model with random weights, the same at each call.

    Kinds: llama, gpt2, qwen2, qwen3, gemma3, mistral; `overrides` go to the configuration. float32, vocabulary 300.
    """

    def build(kind: str, **overrides: Any) -> Any:
        config: AutoConfig = _CONFIGS[kind](**overrides)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval().requires_grad_(False)

    return build


@pytest.fixture(scope="session")
def tiny_tokenizer() -> TinyTokenizer:
    """`tiny_tokenizer(chat_template=None, add_bos=True)`: byte-level, 300 tokens, ids that fit the tiny models.

    `chat_template="chatml"` gives plain ChatML; any other text is a Jinja template.
    """

    def build(chat_template: str | None = None, add_bos: bool = True) -> PreTrainedTokenizerFast:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            special_tokens=SPECIAL_TOKENS,
            show_progress=False,
        )
        text = (SAMPLES / "prompts.jsonl").read_text(encoding="utf-8")
        tokenizer.train_from_iterator(text.splitlines(), trainer)
        if add_bos:
            tokenizer.post_processor = processors.TemplateProcessing(
                single="<bos> $A", special_tokens=[("<bos>", _IDS["bos_token_id"])]
            )
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            bos_token="<bos>",
            eos_token="<eos>",
            pad_token="<pad>",
            chat_template=CHATML if chat_template == "chatml" else chat_template,
        )

    return build


@pytest.fixture(scope="session")
def metaspace_tokenizer() -> MetaspaceTokenizer:
    """`metaspace_tokenizer(prepend_scheme="first")`: lower-case letters and bytes, ▁ for a space, as SentencePiece."""

    def build(prepend_scheme: str = "first") -> PreTrainedTokenizerFast:
        characters = "▁abcdefghijklmnopqrstuvwxyz<>|/_"
        pieces = ["<s>", "</s>", *characters, *(f"<0x{byte:02X}>" for byte in range(256))]
        model = models.BPE({piece: place for place, piece in enumerate(pieces)}, [], byte_fallback=True)
        tokenizer = Tokenizer(model)
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend_scheme, split=False)
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")

    return build


@pytest.fixture(scope="session")
def tiny_folder(tiny_model: TinyModel, tiny_tokenizer: TinyTokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny llama and its chat tokenizer as files, for `--model`; context of 512 tokens."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny_model("llama").save_pretrained(folder)
    tiny_tokenizer("chatml").save_pretrained(folder)
    return folder


# Python with all of lalign imported, which forks for each command: a command takes 0.1 s of CPU time, and not 5 s as
# `python -m lalign` does, most of it for importing torch and transformers. Each fork gets arguments, a current folder
# and three open files, and ends without tidying up, which takes Python 1 s.
_FORKING = """
import json, os, socket, sys
from lalign.__main__ import main
from lalign.models.loading import ModelOptions, load
import lalign.cli.run, lalign.cli.invocation, lalign.jobs.job
lalign.cli.invocation.silence_libraries()
load(ModelOptions(sys.argv[2]))
server = socket.socket(fileno=int(sys.argv[1]))
while message := socket.recv_fds(server, 1 << 20, 3):
    if not message[0]:
        sys.exit()
    asked, files = json.loads(message[0]), message[1]
    if "wait" in asked:
        answer = os.waitstatus_to_exitcode(os.waitpid(asked["wait"], 0)[1])
    elif not (answer := os.fork()):
        break
    server.sendall(b"%d" % answer)
    for file in files:
        os.close(file)
for number, file in enumerate(files):
    os.dup2(file, number)
    os.close(file)
server.close()
os.chdir(asked["folder"])
sys.argv = ["lalign", *asked["arguments"]]
try:
    main()
except SystemExit as ended:
    sys.stdout.flush()
    os._exit(ended.code)
"""


@dataclass(frozen=True)
class Finished:
    """What a command has left: its exit status (minus the signal that killed it), and what it wrote."""

    status: int
    out: bytes
    err: str

    @property
    def records(self) -> list[dict[str, Any]]:
        """The lines of stdout, each of which must be a JSON object."""
        return [orjson.loads(line) for line in self.out.splitlines()]


class Lalign:
    """The command `lalign`, run as processes of their own in a folder that holds `principle.txt`."""

    def __init__(self, forks: socket.socket, folder: Path, model: Path) -> None:
        self.forks = forks
        self.folder = folder
        self.tiny = ("--model", model, "--principle", "principle.txt", "--max-new-tokens", 4)
        (folder / "principle.txt").write_text("Be kind.\n")

    def __call__(self, *arguments: object, stdin: bytes = b"", stdout: IO[bytes] | None = None) -> Finished:
        """Run a command to its end; `stdout` takes what would else be found in `out`."""
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            given.write(stdin)
            given.seek(0)
            status = self.wait(self.start(*arguments, stdin=given, stdout=stdout or out, stderr=err))
            out.seek(0)
            err.seek(0)
            return Finished(status, out.read(), err.read().decode())

    def generate(self, *arguments: object, stdin: bytes = b"", stdout: IO[bytes] | None = None) -> Finished:
        """Run `generate` on a tiny model, with four tokens a response where `arguments` do not say otherwise."""
        return self("generate", *self.tiny, *arguments, stdin=stdin, stdout=stdout)

    def start(self, *arguments: object, stdin: IO[bytes], stdout: IO[bytes], stderr: IO[bytes]) -> int:
        """Start a command; returns the id of its process."""
        asked = {"arguments": [str(argument) for argument in arguments], "folder": str(self.folder)}
        files = [file.fileno() for file in (stdin, stdout, stderr)]
        socket.send_fds(self.forks, [json.dumps(asked).encode()], files)
        return int(self.forks.recv(100))

    def wait(self, process: int) -> int:
        """Wait until a process ends; returns its exit status. Raises `TimeoutError` after two minutes."""
        self.forks.sendall(json.dumps({"wait": process}).encode())
        return int(self.forks.recv(100))


class Pipe:
    """A pipe whose ends are closed when it is left; what is written is there at once."""

    def __enter__(self) -> Pipe:
        reader, writer = os.pipe()
        self.reader, self.writer = open(reader, "rb"), open(writer, "wb", buffering=0)
        return self

    def __exit__(self, *_: object) -> None:
        self.reader.close()
        self.writer.close()


@pytest.fixture
def serve() -> Iterator[Serve]:
    """`serve(script)`: an endpoint that lives as long as the test."""
    with ExitStack() as stack:
        yield lambda script: stack.enter_context(scripted_endpoint(script))


@pytest.fixture(scope="session")
def forks(tiny_folder: Path) -> Iterator[socket.socket]:
    """The connection to a process that forks commands."""
    ours, theirs = socket.socketpair()
    ours.settimeout(120)
    command = [sys.executable, "-c", _FORKING, str(theirs.fileno()), str(tiny_folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=environment, start_new_session=True
    ):
        theirs.close()
        with ours:  # closed, it lets the process end
            yield ours


@pytest.fixture
def lalign(forks: socket.socket, tmp_path: Path, tiny_folder: Path) -> Lalign:
    """`lalign("generate", ...)`: the program in a process of its own, in the test's folder."""
    return Lalign(forks, tmp_path, tiny_folder)

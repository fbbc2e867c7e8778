"""The embedded SmolLM2-135M-Instruct: as its GGUF is, and the same weights as float32 against the torch engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from conftest import SAMPLES
from tiny_gguf import EXACT

from lalign.aligner import Aligner
from lalign.backends import open_backend
from lalign.cli.run import run
from lalign.engine.torch_backend import TorchBackend
from lalign.evaluation.preferences import Question, make_items
from lalign.evaluation.scoring import Scoring, score_items
from lalign.method.linear_alignment import Alignment
from lalign.models.loading import LoadedModel, ModelOptions
from lalign.models.location import default_model
from lalign.options import Execution
from lalign.records.parsing import Message
from lalign.records.prompts import PromptTemplate, make_principles
from lalign.results import Result

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

from lalign.engine.llamacpp.backend import LlamaBackend
from lalign.engine.llamacpp.library import library

pytestmark = pytest.mark.real

# Two engines round differently: where the two best tokens are this close, either may come first.
TIE = 1e-3
NORMS = ("shift_norm", "step_norm")
# And llama.cpp itself where a prompt is run in two parts, with activations of 8 bits and keys and values of 16.
ROUNDING = 0.5
PROMPTS = [
    record["prompt"]
    for record in map(orjson.loads, (SAMPLES / "prompts.jsonl").read_bytes().splitlines())
    if "prompt" in record
]
QUESTION = Question(1, None, "Which phone should I buy?", ("The cheapest there is.", "The newest.", "None."), answer=0)

# llama.cpp's names of whole files' types, and one that its tensors then have: those of 576 columns, of which neither
# K-quants nor IQ4_XS can be, get the nearest type that can.
TYPES = {
    "MOSTLY_Q8_0": "Q8_0",
    "MOSTLY_Q4_K_M": "Q4_K",
    "MOSTLY_Q6_K": "Q6_K",
    "MOSTLY_IQ4_NL": "IQ4_NL",
    "MOSTLY_IQ4_XS": "IQ4_XS",
}


def requantised(kind: str, path: Path) -> Path:
    """The embedded model's weights, of another type, by llama.cpp."""
    api = library().api
    parameters = api.llama_model_quantize_default_params()
    parameters.ftype = getattr(api, f"LLAMA_FTYPE_{kind}")
    parameters.allow_requantize = True
    assert not api.llama_model_quantize(default_model().encode(), str(path).encode(), parameters)
    return path


@pytest.fixture(scope="module")
def as_float32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return requantised("ALL_F32", tmp_path_factory.mktemp("float32") / "smol.gguf")


@pytest.fixture(scope="module")
def on_llama(as_float32: Path) -> Aligner:
    """Those weights in llama.cpp, computed with in float32 throughout."""
    return Aligner(LlamaBackend(as_float32, "smol", EXACT))


def answers(aligner: Aligner, prompts: list[str], principle: str | list[str], **how: Any) -> list[Result]:
    given = {"ratio": 2.0, "max_new_tokens": 8, "execution": Execution(batch_size=4), **how}
    found = list(aligner.generate(prompts, principle=principle, **given))
    assert all(isinstance(outcome, Result) for outcome in found)
    return [outcome for outcome in found if isinstance(outcome, Result)]


def test_float32_tokens_and_statistics_are_those_of_torch(smol: LoadedModel, on_llama: Aligner, hh: str) -> None:
    prompts = sorted(PROMPTS, key=len)[:6]
    mine = answers(on_llama, prompts, hh)
    theirs = answers(Aligner(TorchBackend(smol)), prompts, hh)
    for one, other in zip(mine, theirs, strict=True):
        pairs = zip(one.token_ids, other.token_ids, strict=False)
        same = next((step for step, (ours, others) in enumerate(pairs) if ours != others), None)
        assert one.steps is not None
        assert other.steps is not None
        if same is not None:  # the first that differs must be a tie; behind it all may differ
            assert abs(one.steps["logprob_aligned"][same] - other.steps["logprob_aligned"][same]) < TIE
        for name, values in one.steps.items():
            if name != "tokens":
                wanted = other.steps[name][:same]
                relative = 1e-3 if name in NORMS else 0
                np.testing.assert_allclose(values[:same], wanted, atol=1e-3, rtol=relative, err_msg=name)
    assert sum(one.token_ids == other.token_ids for one, other in zip(mine, theirs, strict=True)) >= len(prompts) - 1


def test_samples_of_two_principles_up_to_a_stop_string_are_those_of_torch(
    smol: LoadedModel, on_llama: Aligner, hh: str
) -> None:
    on_torch, prompts = Aligner(TorchBackend(smol)), sorted(PROMPTS, key=len)[:2]
    drawn: dict[str, Any] = {"samples": 2, "temperature": 0.8, "top_p": 0.95, "weights": [1.0, 0.5]}
    principles = [hh, "Answer in as few words as you can."]
    free = answers(on_torch, prompts, principles, **drawn)
    found = answers(on_llama, prompts, principles, **drawn)
    assert [one.token_ids for one in found] == [other.token_ids for other in free]
    assert len({one.token_ids for one in found}) > 2
    stop = (free[0].response[4:7],)
    stopped = answers(on_llama, prompts, principles, stop=stop, **drawn)
    assert stopped[0].finish_reason == "stop"
    assert stopped[0].response == free[0].response[: free[0].response.index(stop[0])]


@pytest.mark.parametrize("scoring", ["logit", "ppl"])
def test_an_evaluation_chooses_what_torch_chooses(smol: LoadedModel, on_llama: Aligner, scoring: Scoring) -> None:
    items = make_items([QUESTION], principle="Save money, and nothing else.")
    points = (Alignment(ratio=0), Alignment(ratio=2))
    mine, theirs = (
        list(score_items(aligner, items, points, scoring)) for aligner in (on_llama, Aligner(TorchBackend(smol)))
    )
    assert mine == theirs


def test_prompts_have_the_ids_of_transformers(smol: LoadedModel, hh: str) -> None:
    backend = open_backend(ModelOptions(), "llamacpp")
    mine, theirs = PromptTemplate(backend.tokenizer), PromptTemplate(smol.tokenizer)
    principles = make_principles([hh, "Sois bref : « naïf » — 漢字 🙂"])
    for prompt in PROMPTS:
        turns = [Message("user", prompt)]
        assert mine.twins(turns, principles) == theirs.twins(turns, principles)
    assert backend.stop_ids >= smol.stop_ids
    assert backend.limits.context_length == smol.limits.context_length


def test_the_embedded_file_answers_as_it_is(hh: str) -> None:
    aligner = Aligner(open_backend(ModelOptions(), "llamacpp"))
    assert aligner.backend.name.endswith(".gguf")
    (result,) = answers(aligner, ["What is the capital of Australia?"], hh)
    assert "Canberra" in result.response


@pytest.mark.parametrize(("kind", "tensors"), TYPES.items())
def test_quantised_files_give_the_tokens_of_a_plain_loop(kind: str, tensors: str, tmp_path: Path) -> None:
    import gguf
    from llama_cpp import Llama

    path = requantised(kind, tmp_path / "smol.gguf")
    assert tensors in {tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors}
    backend = open_backend(ModelOptions(name=str(path)), "llamacpp")
    template, plain = PromptTemplate(backend.tokenizer), Llama(str(path), n_ctx=256, n_threads=1, verbose=False)
    execution = Execution(batch_size=1, statistics="none")
    for prompt in sorted(PROMPTS, key=len)[:2]:
        (mine,) = Aligner(backend).generate([prompt], ratio=0, max_new_tokens=8, execution=execution)
        assert isinstance(mine, Result)
        plain.reset()
        loop = plain.generate(template.token_ids([Message("user", prompt)]), temp=0.0, repeat_penalty=1.0)
        for ours, theirs in zip(mine.token_ids, loop, strict=False):
            if ours != theirs:  # behind a difference all may differ
                logits = np.ctypeslib.as_array(plain._ctx.get_logits(), (plain.n_vocab(),))
                assert 0 <= logits[theirs] - logits[ours] < ROUNDING
                break


def test_an_evaluation(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("--engine", "llamacpp", "--limit", "2", "--ratios", "0,2", "--one-user", "-q")
    assert run(["eval", str(SAMPLES / "preferences.jsonl"), *asked]) == 0
    out, err = capsys.readouterr()
    found = orjson.loads(out)
    assert [point["ratio"] for point in found["ratios"]] == [0, 2]
    assert "llama" not in err


@pytest.mark.parametrize("is_verbose", [True, False])
def test_the_log_of_llama_cpp_goes_to_who_asks_for_it(capsys: pytest.CaptureFixture[str], is_verbose: bool) -> None:
    asked = ("--ratio", "0", "--limit", "1", "--max-new-tokens", "1", "--engine", "llamacpp", "-q")
    verbose = ("--verbose",) if is_verbose else ()
    assert run(["generate", str(SAMPLES / "prompts.jsonl"), *asked, *verbose]) == 0
    out, err = capsys.readouterr()
    assert orjson.loads(out)["response"]
    assert ("llama_model_loader" in err) is is_verbose
    assert is_verbose or not err

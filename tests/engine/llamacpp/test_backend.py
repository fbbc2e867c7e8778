"""The engine on llama.cpp against the torch engine: the same tokens and statistics of the same float32 weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TinyModel, TinyTokenizer
from tiny_gguf import EXACT, write_tiny_gguf

from lalign.aligner import Aligner
from lalign.backends import open_backend
from lalign.engine.forced import Forced, token_likelihoods
from lalign.engine.interface import Point, Request
from lalign.engine.torch_backend import TorchBackend
from lalign.errors import LalignError, ModelError, OptionError
from lalign.method.linear_alignment import Alignment
from lalign.models.loading import LoadedModel, ModelOptions
from lalign.options import Execution, Sampling
from lalign.records.prompts import make_principles
from lalign.records.requests import Settings
from lalign.results import Failure, Result

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

from lalign.engine.llamacpp.backend import LlamaBackend
from lalign.engine.llamacpp.forward import LlamaStore

PROMPTS = [f"{'word ' * (number % 5)}{number}?" for number in range(10)]
PRINCIPLES = ["Be kind.", "Be as brief as you can be."]
TOLERANCE = 1e-3
NORMS = ("shift_norm", "step_norm")
OpenLlama = Callable[..., Aligner]


@pytest.fixture(scope="module")
def file(tiny_model: TinyModel, tiny_tokenizer: TinyTokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    return write_tiny_gguf(path, tiny_model("llama"), tiny_tokenizer("chatml"))


@pytest.fixture(scope="module")
def on_torch(tiny_model: TinyModel, tiny_tokenizer: TinyTokenizer) -> Aligner:
    return Aligner(TorchBackend(LoadedModel(tiny_model("llama"), tiny_tokenizer("chatml"), "tiny", "tiny")))


@pytest.fixture(scope="module")
def on_llama(file: Path) -> OpenLlama:
    """Opens the same model in llama.cpp, with options of its own."""

    def build(**options: str) -> Aligner:
        return Aligner(LlamaBackend(file, "tiny", {**EXACT, **options}))

    return build


def answers(aligner: Aligner, *points: Alignment, principles: list[str] | None = None, **how: Any) -> list[Result]:
    execution = Execution(batch_size=how.pop("batch_size", 4), statistics=how.pop("statistics", "steps"))
    settings = Settings(
        make_principles(principles or PRINCIPLES[:1]),
        points or (Alignment(ratio=2),),
        Sampling(**{"max_new_tokens": 10, **how}),
        sweep=len(points) > 1,
    )
    ticks = aligner.ticks(PROMPTS, settings, system=None, execution=execution)
    found = [outcome for outcomes in ticks for outcome in outcomes]
    assert all(isinstance(outcome, Result) for outcome in found)
    return [outcome for outcome in found if isinstance(outcome, Result)]


def assert_the_same(found: list[Result], wanted: list[Result]) -> None:
    """Tokens equal; statistics, where both have them, within 1e-3, norms in relation to themselves."""
    assert [result.token_ids for result in found] == [result.token_ids for result in wanted]
    assert [result.finish_reason for result in found] == [result.finish_reason for result in wanted]
    for mine, theirs in zip(found, wanted, strict=True):
        for name, values in (mine.steps or {}).items():
            if name != "tokens" and theirs.steps is not None:
                relative = TOLERANCE if name in NORMS else 0
                np.testing.assert_allclose(values, theirs.steps[name], atol=TOLERANCE, rtol=relative, err_msg=name)


@pytest.mark.parametrize(
    "how", [{}, {"temperature": 1.0}, {"temperature": 0.7, "top_p": 0.9, "repetition_penalty": 1.2}]
)
@pytest.mark.parametrize("support", ["principle", "none"])
def test_tokens_and_statistics_are_those_of_torch(
    on_torch: Aligner, on_llama: OpenLlama, support: Any, how: dict[str, Any]
) -> None:
    point = Alignment(ratio=2, support=support)
    assert_the_same(answers(on_llama(), point, **how), answers(on_torch, point, **how))


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_no_batch_changes_an_answer(on_torch: Aligner, on_llama: OpenLlama, batch_size: int) -> None:
    assert_the_same(answers(on_llama(), batch_size=batch_size), answers(on_torch))


@pytest.mark.parametrize("ratio", [0.0, 1.0, 2.0])
def test_a_twin_that_changes_nothing_is_not_run(on_torch: Aligner, on_llama: OpenLlama, ratio: float) -> None:
    aligner = on_llama()
    found = answers(aligner, Alignment(ratio=ratio, support="none"), statistics="none")
    assert_the_same(found, answers(on_torch, Alignment(ratio=ratio, support="none"), statistics="none"))
    rows_a_pair = 2 if ratio == 2 else 1
    assert aligner.counters.step_rows == rows_a_pair * sum(len(result.token_ids) - 1 for result in found)


def test_several_principles(on_torch: Aligner, on_llama: OpenLlama) -> None:
    assert_the_same(answers(on_llama(), principles=PRINCIPLES), answers(on_torch, principles=PRINCIPLES))


@pytest.mark.parametrize("statistics", ["steps", "none"])
def test_points_of_a_sweep_part(on_torch: Aligner, on_llama: OpenLlama, statistics: Any) -> None:
    points = tuple(Alignment(ratio=ratio) for ratio in (0, 0.5, 1, 1.1, 3))
    assert_the_same(
        answers(on_llama(), *points, statistics=statistics), answers(on_torch, *points, statistics=statistics)
    )


@pytest.mark.parametrize("cells", [256, 512])
@pytest.mark.parametrize("points", [(2.0,), (0.0, 1.0, 3.0)])
def test_a_small_context_holds_what_fits_and_no_step_fails(
    on_torch: Aligner, on_llama: OpenLlama, cells: int, points: tuple[float, ...]
) -> None:
    aligner, swept = on_llama(n_ctx=str(cells)), tuple(Alignment(ratio=ratio) for ratio in points)
    assert_the_same(answers(aligner, *swept, batch_size=16), answers(on_torch, *swept))
    assert aligner.counters.batch_halvings == 0


def test_a_step_without_cells_halves_the_batch(
    on_torch: Aligner, on_llama: OpenLlama, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody asks whether pairs fit, llama.cpp itself says that they do not."""
    aligner = on_llama(n_ctx="256")
    monkeypatch.setattr(LlamaStore, "fits", lambda *_: True)
    monkeypatch.setattr(aligner.backend, "_limit", lambda _: None)
    aligner.backend._forward._wanted = (40, 256)  # type: ignore[attr-defined]
    assert_the_same(answers(aligner, batch_size=16), answers(on_torch))
    assert aligner.counters.batch_halvings > 0


def test_a_prompt_that_no_context_holds_fails_alone(on_torch: Aligner, on_llama: OpenLlama) -> None:
    outcomes = list(
        on_llama(n_ctx="256").generate(
            [PROMPTS[0], "x" * 200, PROMPTS[1]], principle="Be kind.", ratio=2, max_new_tokens=4
        )
    )
    assert isinstance(outcomes[1], Failure)
    assert outcomes[1].type == "out_of_memory"
    assert isinstance(outcomes[0], Result)
    assert isinstance(outcomes[2], Result)


def test_prompts_are_run_in_chunks(on_torch: Aligner, on_llama: OpenLlama) -> None:
    assert_the_same(answers(on_llama(n_batch="16", n_ubatch="16")), answers(on_torch))


def test_prefixes_that_ran_serve_the_next_call(on_torch: Aligner, on_llama: OpenLlama) -> None:
    aligner, wanted = on_llama(), answers(on_torch)
    assert_the_same(answers(aligner), wanted)
    kept = dict(aligner.backend._forward._shared)  # type: ignore[attr-defined]
    assert_the_same(answers(aligner), wanted)
    assert kept == aligner.backend._forward._shared  # type: ignore[attr-defined]
    assert kept


def test_the_first_logits_are_those_of_torch(on_torch: Aligner, on_llama: OpenLlama) -> None:
    rows = [[0, *range(10, 10 + length)] for length in range(3, 40)]
    point = Point(Alignment(), Sampling())
    requests = [Request(key, row, ([0, 77, *row], [0, 88, *row]), (1, 1), (point,)) for key, row in enumerate(rows)]
    found = {request.key: logits for request, logits in on_llama(n_ctx="512").backend.first_logits(requests)}
    wanted = {request.key: logits for request, logits in on_torch.backend.first_logits(requests)}
    assert found.keys() == wanted.keys()
    for key, logits in found.items():
        np.testing.assert_allclose(logits, wanted[key], atol=TOLERANCE, rtol=0)


def test_likelihoods_of_a_given_response_are_those_of_torch(on_torch: Aligner, on_llama: OpenLlama) -> None:
    points = tuple(Point(alignment, Sampling()) for alignment in (Alignment(ratio=0), Alignment(ratio=2)))
    rows = [[0, *range(10, 10 + length)] for length in (3, 20)]
    requests = [Request(key, row, ([0, 77, *row],), (1.0,), points) for key, row in enumerate(rows)]
    forced = [Forced(request, list(range(30, 42))) for request in requests]
    mine, theirs = (
        {each.request.key: likelihoods for each, likelihoods in token_likelihoods(aligner.backend, forced)}
        for aligner in (on_llama(), on_torch)
    )
    assert mine.keys() == theirs.keys() == {0, 1}
    for key, likelihoods in mine.items():
        assert len(likelihoods) == len(points)
        for one, other in zip(likelihoods, theirs[key], strict=True):
            np.testing.assert_allclose(one.logprobs, other.logprobs, atol=TOLERANCE, rtol=0)
            assert one.greedy.tolist() == other.greedy.tolist()


def test_first_logits_of_a_prompt_that_does_not_fit_are_refused(on_llama: OpenLlama) -> None:
    request = Request(0, list(range(5, 295)), (), (), (Point(Alignment(), Sampling()),))
    with pytest.raises(LalignError, match="out of memory even with one prompt alone"):
        list(on_llama(n_ctx="256").backend.first_logits([request]))


def test_stop_strings_and_auto_batches(on_torch: Aligner, on_llama: OpenLlama) -> None:
    stop = answers(on_torch)[3].response[2:4]
    how: dict[str, Any] = {"stop": (stop,), "batch_size": "auto"}
    assert_the_same(answers(on_llama(), **how), answers(on_torch, **how))


def test_the_fingerprint_tells_files_and_what_changes_results(file: Path, on_llama: OpenLlama, tmp_path: Path) -> None:
    plain = on_llama().backend.fingerprint()
    assert "llama-cpp-python" in plain
    assert on_llama(n_threads="2", n_ctx="512", n_batch="64").backend.fingerprint() == plain
    assert on_llama(type_k="f16").backend.fingerprint() != plain
    other = tmp_path / "other.gguf"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    other.write_bytes(content)
    assert LlamaBackend(other, "tiny", EXACT).fingerprint() != plain


def test_a_file_in_several_parts(
    tiny_model: TinyModel, tiny_tokenizer: TinyTokenizer, on_torch: Aligner, tmp_path: Path
) -> None:
    write_tiny_gguf(tmp_path / "tiny.gguf", tiny_model("llama"), tiny_tokenizer("chatml"), split_max_tensors=8)
    parts = sorted(tmp_path.iterdir())
    assert [part.name for part in parts[:2]] == [f"tiny-0000{n}-of-0000{len(parts)}.gguf" for n in (1, 2)]
    backend = open_backend(ModelOptions(name=str(parts[0])), "llamacpp", EXACT)
    assert_the_same(answers(Aligner(backend)), answers(on_torch))
    whole = backend.fingerprint()
    content = bytearray(parts[1].read_bytes())
    content[-1] ^= 1
    parts[1].write_bytes(content)
    assert open_backend(ModelOptions(name=str(parts[0])), "llamacpp", EXACT).fingerprint() != whole
    for part, missing in ((parts[1], None), (parts[0], parts[-1])):  # not the first, and one that is not there
        if missing:
            missing.unlink()
        with pytest.raises(ModelError) as caught:
            open_backend(ModelOptions(name=str(part)), "llamacpp", EXACT)
        assert str(caught.value).startswith(f"{part}: ")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"GGUF", b"no model at all" * 100])
def test_a_file_that_is_no_model_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        open_backend(ModelOptions(name=str(path)), "llamacpp")
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_what_is_no_gguf_is_refused(tiny_folder: Path) -> None:
    with pytest.raises(ModelError, match=r"is no \.gguf file, which is what --engine llamacpp runs"):
        open_backend(ModelOptions(name=str(tiny_folder)), "llamacpp")


@pytest.mark.parametrize("option", [{"device": "cpu"}, {"dtype": "float16"}, {"device_map": "auto"}, {"compile": True}])
def test_options_of_torch_are_refused(file: Path, option: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="is of --engine torch"):
        open_backend(replace(ModelOptions(name=str(file)), **option), "llamacpp")

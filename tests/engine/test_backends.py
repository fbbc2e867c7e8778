"""What every engine must do: a whole job through it, whatever is in the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import orjson
import pytest
import torch
from conftest import TinyModel, TinyTokenizer
from scripted import ScriptedBackend
from tiny_gguf import EXACT, write_tiny_gguf

from lalign.aligner import Aligner
from lalign.engine.interface import Backend, Request
from lalign.engine.llamacpp.backend import LlamaBackend
from lalign.engine.torch_backend import TorchBackend
from lalign.engine.vllm.backend import VllmBackend
from lalign.errors import OptionError
from lalign.jobs.job import Job
from lalign.jobs.output import open_output
from lalign.jobs.reader import JobInput
from lalign.jobs.signals import Interruption
from lalign.method import replay
from lalign.method.linear_alignment import Alignment
from lalign.method.recipes import recipe_of
from lalign.models.loading import LoadedModel
from lalign.options import Execution, Sampling
from lalign.records.parsing import Message
from lalign.records.prompts import PromptTemplate, make_principles
from lalign.records.requests import Settings
from lalign.results import Failure, Result

PRINCIPLE = "Be kind."
STATISTICS = ("steps", "summary", "none")
Open = Callable[[], Backend]


@pytest.fixture(scope="module", params=["torch", "scripted", "llamacpp", "vllm"])
def open_one(
    request: pytest.FixtureRequest,
    tiny_model: TinyModel,
    tiny_tokenizer: TinyTokenizer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Open:
    """Opens the engine anew at each call, where that does not take a minute."""
    if request.param == "vllm":
        backend: Backend = request.getfixturevalue("vllm_smol")
        return lambda: backend
    if request.param == "llamacpp":
        pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
        file = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
        write_tiny_gguf(file, tiny_model("llama"), tiny_tokenizer("chatml"))

    def build() -> Backend:
        tokenizer = tiny_tokenizer("chatml")
        if request.param == "llamacpp":
            return LlamaBackend(file, "tiny", EXACT)
        if request.param == "scripted":
            return ScriptedBackend(tokenizer)
        return TorchBackend(LoadedModel(tiny_model("llama"), tokenizer, "tiny", "tiny"))

    return build


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Twelve lines, two of which cannot be answered."""
    lines = [{"prompt": f"{'word ' * (number % 5)}{number}?"} for number in range(10)]
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"prompt": ""}\nnot json\n' + b"".join(orjson.dumps(line) + b"\n" for line in lines))
    return path


def settings(*points: Alignment, **sampling: Any) -> Settings:
    drawn = Sampling(**{"max_new_tokens": 6, **sampling})
    return Settings(make_principles([PRINCIPLE]), points or (Alignment(ratio=2),), drawn, sweep=len(points) > 1)


def run(backend: Backend, source: Path, output: Path, wanted: Settings, limit: int | None = None, **how: Any) -> Job:
    execution = Execution(batch_size=4, statistics=how.pop("statistics", "none"))
    with open_output(output, **how) as opened:
        job = Job(JobInput(source, limit=limit), wanted, opened, execution=execution)
        aligner = Aligner(backend)
        job.start(aligner)
        job.run(aligner, Interruption())
    return job


def records(output: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in output.read_bytes().splitlines()]


@pytest.mark.parametrize("statistics", STATISTICS)
def test_every_line_has_its_record_in_order(open_one: Open, source: Path, tmp_path: Path, statistics: str) -> None:
    run(open_one(), source, tmp_path / "out.jsonl", settings(), statistics=statistics)
    found = records(tmp_path / "out.jsonl")
    assert [record["line"] for record in found] == list(range(1, 13))
    assert ["error" in record for record in found] == [True] * 2 + [False] * 10
    for record in found[2:]:
        assert ("steps" in record) is (statistics == "steps")
        assert ("summary" in record["alignment"]) is (statistics != "none")


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_answer_is_the_same_alone(open_one: Open, source: Path, tmp_path: Path, temperature: float) -> None:
    backend, wanted = open_one(), settings(temperature=temperature)
    run(backend, source, tmp_path / "out.jsonl", wanted)
    prompts = [orjson.loads(line)["prompt"] for line in source.read_bytes().splitlines()[2:]]
    for line, (prompt, record) in enumerate(zip(prompts, records(tmp_path / "out.jsonl")[2:], strict=True), start=3):
        (alone,) = Aligner(backend).generate(
            [prompt], principle=PRINCIPLE, ratio=2, sampling=wanted.sampling, first_line=line
        )
        assert isinstance(alone, Result)
        assert alone.response == record["response"]


def test_the_points_of_a_sweep_say_what_separate_runs_say(open_one: Open, source: Path, tmp_path: Path) -> None:
    points = (Alignment(ratio=0), Alignment(ratio=1), Alignment(ratio=3), Alignment(ratio=3, p=1.5))
    run(open_one(), source, tmp_path / "sweep.jsonl", settings(*points))
    swept = [record for record in records(tmp_path / "sweep.jsonl") if "error" not in record]
    for place, point in enumerate(points):
        output = tmp_path / f"{place}.jsonl"
        run(open_one(), source, output, settings(point))
        alone = [record["response"] for record in records(output) if "error" not in record]
        assert [record["response"] for record in swept[place :: len(points)]] == alone


@pytest.mark.parametrize("statistics", STATISTICS)
@pytest.mark.parametrize("ratio", [0, 1, 3])
def test_samples_say_what_runs_with_their_seeds_say(
    open_one: Open, source: Path, tmp_path: Path, ratio: float, statistics: str
) -> None:
    drawn = settings(Alignment(ratio=ratio), temperature=1.0, seed=5)
    job = run(open_one(), source, tmp_path / "samples.jsonl", replace(drawn, samples=4), statistics=statistics)
    assert job.tally.records == 2 + 10 * 4
    sampled = [record for record in records(tmp_path / "samples.jsonl") if "error" not in record]
    assert [record["sample"] for record in sampled] == [0, 1, 2, 3] * 10
    for sample in range(4):
        output = tmp_path / f"{sample}.jsonl"
        run(open_one(), source, output, settings(Alignment(ratio=ratio), temperature=1.0, seed=5 + sample))
        alone = [record for record in records(output) if "error" not in record]
        assert [record["response"] for record in sampled[sample::4]] == [record["response"] for record in alone]
        assert all("sample" not in record for record in alone)
    assert any(sampled[k]["response"] != sampled[k + 1]["response"] for k in range(0, 40, 4))


def test_samples_share_a_prefill_and_their_rows_until_they_part(open_one: Open, source: Path, tmp_path: Path) -> None:
    """The likeliest token alone: no sample parts from another. (vLLM shares a prefill by its cache, and no rows.)"""
    alike = replace(settings(temperature=1.0, top_k=1), samples=4)
    backend = open_one()
    run(backend, source, tmp_path / "out.jsonl", alike)
    assert backend.counters.prompts == 10
    if not isinstance(backend, (ScriptedBackend, VllmBackend)):
        assert backend.counters.step_rows < 2 * backend.counters.tokens / 3
    found = [record["response"] for record in records(tmp_path / "out.jsonl") if "error" not in record]
    assert found == [response for response in found[::4] for _ in range(4)]


@pytest.mark.parametrize("recipe", ["lalign", "paper", "released"])
def test_every_recipe_runs(open_one: Open, source: Path, tmp_path: Path, recipe: str) -> None:
    wanted = replace(settings(), alignments=(recipe_of(recipe),))
    assert run(open_one(), source, tmp_path / "out.jsonl", wanted).tally.failures == 2


def test_several_principles_and_a_contrast(open_one: Open) -> None:
    outcomes = Aligner(open_one()).generate(
        ["How?", "Why?"], principle=["Be kind.", "Be brief."], weights=[0.5, 2], contrast="Be rude.", max_new_tokens=4
    )
    assert all(isinstance(outcome, Result) for outcome in outcomes)


def test_a_stop_string_ends_an_answer_before_it(open_one: Open) -> None:
    aligner = Aligner(open_one())
    (free,) = aligner.generate(["How?"], principle=PRINCIPLE, max_new_tokens=12)
    assert isinstance(free, Result)
    stop = free.response[3:5]
    (stopped,) = aligner.generate(["How?"], principle=PRINCIPLE, max_new_tokens=12, stop=(stop,))
    assert isinstance(stopped, Result)
    assert stopped.finish_reason == "stop"
    assert stopped.response == free.response[: free.response.index(stop)]


@pytest.mark.parametrize("kept", [0, 1, 5, 11])
def test_a_job_that_was_cut_is_resumed(open_one: Open, source: Path, tmp_path: Path, kept: int) -> None:
    output = tmp_path / "out.jsonl"
    run(open_one(), source, output, settings())
    whole = output.read_bytes()
    output.unlink()
    run(open_one(), source, output, settings(), limit=kept) if kept else output.write_bytes(b"")
    run(open_one(), source, output, settings(), resume=True)
    assert output.read_bytes() == whole


def test_a_source_that_waits_is_waited_for(open_one: Open) -> None:
    """Each prompt is given only when the answer before it has come."""
    answered = Event()

    def prompts() -> Iterator[str]:
        for number in range(3):
            if number and not answered.wait(60):
                raise TimeoutError(f"prompt {number - 1} is not answered while the next is not there")
            answered.clear()
            yield f"{number}?"

    lines = []
    for outcome in Aligner(open_one()).generate(prompts(), principle=PRINCIPLE, max_new_tokens=2):
        assert isinstance(outcome, Result)
        lines.append(outcome.line)
        answered.set()
    assert lines == [1, 2, 3]


def test_a_reader_that_leaves_ends_the_work(open_one: Open) -> None:
    aligner = Aligner(open_one())
    endless = ({"prompt": f"{number}?"} for number in iter(int, 1))
    outcomes = aligner.generate(endless, principle=PRINCIPLE, max_new_tokens=2)
    assert isinstance(next(outcomes), Result)
    outcomes.close()  # type: ignore[attr-defined]
    (after,) = aligner.generate(["Still there?"], principle=PRINCIPLE, max_new_tokens=2)
    assert isinstance(after, Result)


def test_a_backend_outlives_its_runs(open_one: Open) -> None:
    aligner = Aligner(open_one())
    first, second = (
        [outcome.response for outcome in aligner.generate(["A?", "B?"], principle=PRINCIPLE, max_new_tokens=4)]  # type: ignore[union-attr]
        for _ in range(2)
    )
    assert first == second
    assert aligner.counters.prompts == 2


def test_lines_that_go_on_from_call_to_call_draw_as_one_call_would(open_one: Open) -> None:
    aligner = Aligner(open_one())
    how: dict[str, Any] = {"principle": PRINCIPLE, "max_new_tokens": 8, "temperature": 1.5}
    whole = list(aligner.generate(["Say!"] * 4, **how))
    parts = [*aligner.generate(["Say!"] * 2, **how), *aligner.generate(["Say!"] * 2, first_line=3, **how)]
    assert [part.response for part in parts] == [one.response for one in whole]  # type: ignore[union-attr]
    assert len({one.response for one in whole}) > 1  # type: ignore[union-attr]


def test_a_prompt_beyond_the_context_fails_and_the_others_do_not(open_one: Open) -> None:
    short, long = Aligner(open_one()).generate(["Hi", "word " * 600], principle=PRINCIPLE, max_new_tokens=4)
    assert isinstance(short, Result)
    assert isinstance(long, Failure)
    assert long.type == "context_length"


POINTS = (
    Alignment(ratio=0),
    Alignment(ratio=1),
    Alignment(ratio=3),
    Alignment(ratio=3, support="none", p=1.5),
    Alignment(ratio=4, max_kl=0.05),
    recipe_of("amulet"),
)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logprobs_are_those_of_the_twins_logits(open_one: Open, temperature: float) -> None:
    backend, count = open_one(), 5
    principles, drawn = make_principles([PRINCIPLE]), Sampling(max_new_tokens=4, temperature=temperature)
    wanted = Settings(principles, POINTS, drawn, sweep=True, logprobs=count)
    ticks = Aligner(backend).ticks(["Why is that?"], wanted, system=None, execution=Execution(statistics="summary"))
    results = [outcome for outcomes in ticks for outcome in outcomes]
    base, principled = PromptTemplate(backend.tokenizer).twins((Message("user", "Why is that?"),), principles)
    for point, result in zip(POINTS, results, strict=True):
        assert isinstance(result, Result)
        assert result.logprobs is not None
        taken = list(result.token_ids)
        asked = [
            Request(place, base + taken[:place], (principled + taken[:place],), (1.0,), ())
            for place in range(len(taken))
        ]
        logits = {request.key: rows for request, rows in backend.first_logits(asked)}
        rows = torch.from_numpy(np.stack([logits[place] for place in range(len(taken))])).double()
        final = replay(point, rows[:, 0], rows[:, 1])
        of = {"aligned": final.double(), "base": rows[:, 0], "principle": rows[:, 1]}
        assert result.logprobs.keys() == of.keys()
        for name, found in result.logprobs.items():
            plain = of[name].log_softmax(-1).numpy()
            for token, row, one in zip(taken, plain, found, strict=True):
                assert one.id == token
                assert one.logprob == pytest.approx(row[token], abs=2e-3)
                ordered = [value for value in np.sort(row)[::-1][:count] if value > -np.inf]
                assert [other.logprob for other in one.likeliest] == pytest.approx(ordered, abs=2e-3)
                assert [row[other.id] for other in one.likeliest] == pytest.approx(ordered, abs=2e-3)
        if temperature == 0:
            assert all(one.logprob == one.likeliest[0].logprob for one in result.logprobs["aligned"])


def test_logprobs_change_no_answer_and_come_with_statistics_alone(open_one: Open) -> None:
    aligner, given = Aligner(open_one()), {"principle": PRINCIPLE, "ratio": 2, "max_new_tokens": 5}
    (bare,) = aligner.generate(["Why?"], **given)  # type: ignore[arg-type]
    (found,) = aligner.generate(["Why?"], **given, logprobs=2)  # type: ignore[arg-type]
    assert replace(found, logprobs=None).to_dict().keys() == bare.to_dict().keys()  # type: ignore[arg-type]
    assert isinstance(bare, Result)
    assert isinstance(found, Result)
    assert (found.token_ids, found.summary, bare.logprobs) == (bare.token_ids, bare.summary, None)
    with pytest.raises(OptionError, match="come with statistics"):
        next(aligner.generate(["Why?"], **given, logprobs=2, execution=Execution(statistics="none")))  # type: ignore[arg-type]

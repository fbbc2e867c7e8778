"""What a run has written, as figures need it: what kind of file it is, and the results of a sweep read back."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson

from lalign.errors import InputError, LalignError
from lalign.figures.canvas import About
from lalign.jobs.header import read_header
from lalign.method.recipe import Recipe
from lalign.method.recipes import RECIPES, recipe_of
from lalign.records.batch_lines import unpacked
from lalign.records.json_line import json_object, line_text
from lalign.records.problems import Unusable
from lalign.records.source import READ_ERRORS, open_source, read_lines
from lalign.results import Failure, Result, Usage
from lalign.rewards.answers import Answer, read_answers

Kind = Literal["answers", "rewards", "judged", "evaluation"]
# How far into a file a record that is no error is looked for.
LOOKED_AT = 1000
# No evaluation is as large.
MOST_BYTES = 64 << 20


def kind_of(path: Path) -> Kind:
    """What wrote a file, by what it holds. Raises `InputError` where it is none of these, or cannot be read."""
    if path.suffix.lower() == ".parquet":
        raise InputError(f"{path}: is Parquet; figures are drawn from JSON Lines, .gz and .zst too (-o OUT.jsonl.gz)")
    try:
        with open_source(path) as stream:
            for raw in itertools.islice(read_lines(stream, str(path)), LOOKED_AT):
                record = unpacked(json_object(line_text(raw)))
                if record.get("error") is None:
                    break
            else:
                raise InputError(f"{path}: holds no records, or errors alone")
    except Unusable:
        evaluations(path)  # which may go over several lines
        return "evaluation"
    if {"first", "second", "outcome"} <= record.keys():
        return "judged"
    if isinstance(record.get("alignment"), dict) and isinstance(record.get("response"), str):
        return "rewards" if "reward" in record else "answers"
    if "reward" in record and isinstance(record.get("response"), str):
        return "rewards"
    if {"chance", "ratios"} <= record.keys() or "runs" in record:
        return "evaluation"
    raise _nothing(path)


def _nothing(path: Path) -> InputError:
    return InputError(f"{path}: is nothing that lalign sweep, generate, score, judge or eval has written")


def evaluation(path: Path) -> dict[str, Any]:
    """The one JSON object of `lalign eval`. Raises `InputError` where the file holds something else, or several."""
    first, *others = evaluations(path)
    if others:
        raise InputError(f"{path}: holds {1 + len(others)} evaluations; give the JSON of one alone")
    return first


def evaluations(path: Path) -> list[dict[str, Any]]:
    """The JSON object of `lalign eval`, or those of `--models` and `--merge`. Raises `InputError` for all else."""
    try:
        with open_source(path) as stream:
            found = orjson.loads(stream.read(MOST_BYTES))
    except (orjson.JSONDecodeError, *READ_ERRORS):
        found = None
    runs = found["runs"] if isinstance(found, dict) and isinstance(found.get("runs"), list) else [found]
    if not runs or not all(map(_is_evaluation, runs)):
        raise _nothing(path)
    return runs


def _is_evaluation(found: Any) -> bool:
    match found:
        case {"chance": int() | float(), "questions": int(), "ratios": [{"total": dict(), "domains": dict()}, *_]}:
            return True
    return False


def curves(found: Mapping[str, Any], path: Path) -> dict[str, list[tuple[float, float, float, float]]]:
    """(ratio, accuracy, low, high) by domain, as `Evaluation.curves`. Raises `InputError`."""
    series: dict[str, list[tuple[float, float, float, float]]] = {}
    try:
        for point in found["ratios"]:
            for name, part in (*point["domains"].items(), ("total", point["total"])):
                low, high = (part["accuracy"] if part[bound] is None else part[bound] for bound in ("low", "high"))
                series.setdefault(name, []).append(tuple(map(float, (point["ratio"], part["accuracy"], low, high))))  # type: ignore[arg-type]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: ratios: is not as lalign eval writes it ({error})") from None
    return series


def recipe_from(written: Mapping[str, Any]) -> Recipe:
    """The recipe that a record or an evaluation was made by. Raises `KeyError` or `LalignError` where it is none."""
    name = written["recipe"]
    known = {option.name for option in fields(RECIPES[name])} - {"recipe"}
    given = {option: math.inf if value == "inf" else value for option, value in written.items() if option in known}
    return recipe_of(name, **given)


def point_of(answer: Answer) -> Recipe:
    """The point of a sweep that an answer is of. Raises `InputError` where it does not say."""
    try:
        return recipe_from(answer.record["alignment"])
    except (KeyError, TypeError, LalignError) as error:
        raise answer.error(f"alignment: is not as lalign sweep writes it ({error})") from None


def points_of(path: Path) -> list[Recipe]:
    """The points of an output, in its order. Raises `InputError`."""
    return list(dict.fromkeys(point_of(answer) for answer in read_answers(path) if not answer.failed))


def read_outcomes(path: Path) -> Iterator[tuple[Answer, Result | Failure]]:
    """The records of an output as the run had them. Raises `InputError` for one that lacks what a figure needs."""
    for answer in read_answers(path):
        yield answer, _failure(answer) if answer.failed else _result(answer)


def about(*files: Path | None) -> About:
    """What the headers beside outputs say of model, principles and judge; what they do not share is left out.

    A file without a header, and stdout (None), say nothing.
    """
    first, *others = (_about(file) for file in files)
    return About(
        first.model if all(other.model == first.model for other in others) else None,
        first.principles if all(other.principles == first.principles for other in others) else (),
        first.note if all(other.note == first.note for other in others) else None,
    )


def _about(file: Path | None) -> About:
    try:
        header = read_header(file) if file is not None else None
    except LalignError:
        header = None
    said = header.fingerprint if header is not None else {}
    name, principles = said.get("model_name"), said.get("principle")
    return About(
        name if isinstance(name, str) and "instructions" not in said else None,
        tuple(text for text in principles if isinstance(text, str)) if isinstance(principles, list) else (),
        _note(said),
    )


def _note(said: Mapping[str, Any]) -> str | None:
    """Who judged or scored."""
    match said:
        case {"voters": [*voters]}:
            return f"votes of {len(voters)} {'person' if len(voters) == 1 else 'people'}"
        case {"instructions": str(), "model_name": str(judge)} | {
            "instructions": str(),
            "url": str(),
            "model": str(judge),
        }:
            return f"judged by {Path(judge).name}"
        case {"job": "score", "reward_model": str(model)}:
            return f"reward model {Path(model).name}"
    return None


def _result(answer: Answer) -> Result:
    record, alignment = answer.record, point_of(answer)
    steps = record.get("steps")
    if not isinstance(steps, dict):
        raise answer.error("steps: missing; figures are drawn from outputs with --stats steps")
    try:
        summary = {name: float(value) for name, value in record["alignment"]["summary"].items()}
        for name in ("kl_aligned_base_mean", "flipped_share", "logprob_base_mean", "logprob_principle_mean"):
            summary[name]
        texts = {"tokens": [str(token) for token in steps["tokens"]]}
        columns = {
            name: np.asarray(values, dtype=np.float32) for name, values in steps.items() if name not in ("tokens",)
        }
        return Result(
            id=answer.id,
            line=answer.line,
            response=record["response"],
            finish_reason=record["finish_reason"],
            usage=Usage(**record["usage"]),
            alignment=alignment,
            token_ids=tuple(int(token) for token in steps["token_ids"]),
            summary=summary,
            steps={**columns, **texts},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise answer.error(f"is not as lalign sweep writes it ({type(error).__name__}: {error})") from None


def _failure(answer: Answer) -> Failure:
    error, point = answer.record["error"], answer.record.get("alignment")
    if not isinstance(error, dict):
        raise answer.error("error: is not as lalign writes it")
    if point is not None and not isinstance(point, dict):
        raise answer.error("alignment: is not as lalign writes it")
    where = {name: math.inf if value == "inf" else value for name, value in point.items()} if point else None
    return Failure(answer.id, answer.line, str(error.get("type")), str(error.get("message")), where)

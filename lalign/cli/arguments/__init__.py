"""The options of the command line, by theme, as frozen dataclasses that Typer reads (design section 2)."""

from __future__ import annotations

from lalign.cli.arguments.alignment import AlignmentArguments
from lalign.cli.arguments.asking import AskArguments
from lalign.cli.arguments.cluster import ClusterArguments
from lalign.cli.arguments.constructing import ConstructArguments, ConstructedFile, StageName
from lalign.cli.arguments.files import (
    InputFile,
    InputFiles,
    MergeArguments,
    OutputArguments,
    OutputFiles,
    ResultArguments,
)
from lalign.cli.arguments.grouping import grouped
from lalign.cli.arguments.judging import AnswerFiles, JudgeArguments
from lalign.cli.arguments.measuring import (
    BenchArguments,
    CacheArguments,
    EvalArguments,
    EvalFiles,
    RecipesArguments,
    SweepArguments,
)
from lalign.cli.arguments.model import ModelArguments
from lalign.cli.arguments.plotting import PlotArguments, PlottedFiles
from lalign.cli.arguments.running import DebugFlag, RunArguments
from lalign.cli.arguments.sampling import SampleArguments, SamplingArguments
from lalign.cli.arguments.scoring import ScoreArguments, ScoredFile, ScoredFiles, WrittenArguments

__all__ = [
    "AlignmentArguments",
    "AnswerFiles",
    "AskArguments",
    "BenchArguments",
    "CacheArguments",
    "ClusterArguments",
    "ConstructArguments",
    "ConstructedFile",
    "DebugFlag",
    "EvalArguments",
    "EvalFiles",
    "InputFile",
    "InputFiles",
    "JudgeArguments",
    "MergeArguments",
    "ModelArguments",
    "OutputArguments",
    "OutputFiles",
    "PlotArguments",
    "PlottedFiles",
    "RecipesArguments",
    "ResultArguments",
    "RunArguments",
    "SampleArguments",
    "SamplingArguments",
    "ScoreArguments",
    "ScoredFile",
    "ScoredFiles",
    "StageName",
    "SweepArguments",
    "WrittenArguments",
    "grouped",
]

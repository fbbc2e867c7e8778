"""The options of the command line mirror those of the library, and are grouped in dataclasses."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, fields
from typing import Annotated, Any, get_args, get_type_hints

import pytest
import typer
from typer.testing import CliRunner

from lalign.backends import ENGINES
from lalign.cli.arguments import (
    AlignmentArguments,
    EvalArguments,
    ModelArguments,
    OutputArguments,
    RunArguments,
    SamplingArguments,
    grouped,
)
from lalign.evaluation.preferences import Permute
from lalign.evaluation.scoring import Scoring
from lalign.method.linear_alignment import Alignment
from lalign.method.recipes import RECIPES, option_names
from lalign.models.loading import DTYPES, ModelOptions
from lalign.options import Execution, Sampling

GROUPS = (AlignmentArguments, SamplingArguments, ModelArguments, OutputArguments, RunArguments)


def defaults(group: Any) -> dict[str, Any]:
    return {option.name: option.default for option in fields(group)}


def shown_default(group: Any, name: str) -> Any:
    """What `--help` says the default is."""
    _, option = get_args(get_type_hints(group, include_extras=True)[name])
    return option.show_default


class TestMirror:
    def test_of_sampling(self) -> None:
        """`stop` is repeated on the command line, so its default is none there and no strings in the library."""
        assert defaults(SamplingArguments) == defaults(Sampling) | {"stop": None}

    def test_of_alignment(self) -> None:
        """Options that a recipe sets are not given by default; what help shows is what the recipes say."""
        given = defaults(AlignmentArguments)
        for option in fields(Alignment):
            if option.name == "recipe":
                assert given["recipe"] == Alignment().recipe
                continue
            assert given[option.name] is None
            usual = getattr(RECIPES["lalign"], option.name)
            others = [
                f"; {recipe} {getattr(settings, option.name)}"
                for recipe, settings in RECIPES.items()
                if isinstance(settings, Alignment) and getattr(settings, option.name) != usual
            ]
            wanted = "no limit" if usual is None else f"{usual}{''.join(others)}"
            wanted = {
                "ratio": f"{usual}; others `lalign recipes`",
                "support": f"{usual}; paper, others none",
                "kl": "off",
            }.get(option.name, wanted)
            assert shown_default(AlignmentArguments, option.name) == wanted
        family = [recipe for recipe in RECIPES.values() if not isinstance(recipe, Alignment)]
        assert {recipe.support for recipe in family} == {"none"}

    def test_of_all_recipes(self) -> None:
        """Every option that some recipe takes can be given."""
        assert option_names() <= defaults(AlignmentArguments).keys()

    def test_of_the_model(self) -> None:
        library = defaults(ModelOptions)
        given = defaults(ModelArguments)
        assert given.pop("model") is library.pop("name")
        assert given.pop("engine") == ENGINES[0]
        assert not given.pop("engine_option")
        assert given.items() <= library.items()

    def test_of_choices(self) -> None:
        def shown(group: Any, name: str) -> set[str]:
            _, option = get_args(get_type_hints(group, include_extras=True)[name])
            return set(option.metavar.replace("\n", "").split("|"))

        assert shown(ModelArguments, "dtype") == {"auto", *DTYPES}
        assert shown(EvalArguments, "scoring") == {*get_args(Scoring)}
        assert shown(EvalArguments, "permute") == {*get_args(Permute)}

    def test_of_execution(self) -> None:
        library, given = defaults(Execution), defaults(RunArguments)
        assert given["batch_size"] == str(library["batch_size"])
        assert given["memory_share"] == library["memory_share"]
        assert defaults(OutputArguments)["stats"] == library["statistics"]

    def test_nothing_that_can_do_harm_is_on_by_default(self) -> None:
        flags = ("allow_pickle", "trust_remote_code", "overwrite", "resume", "force")
        given = defaults(ModelArguments) | defaults(OutputArguments)
        assert [given[flag] for flag in flags] == [False] * len(flags)


@pytest.mark.parametrize("group", GROUPS)
def test_every_option_says_what_it_does(group: Any) -> None:
    hints = get_type_hints(group, include_extras=True)
    for name in defaults(group):
        _, option = get_args(hints[name])
        assert option.help.endswith("."), name
        assert option.rich_help_panel, name


@dataclass(frozen=True)
class Colours:
    red: Annotated[int, typer.Option(help="Red.")] = 1
    blue: Annotated[bool, typer.Option("--blue", "-b", help="Blue.")] = False


@dataclass(frozen=True)
class Shapes:
    sides: Annotated[list[int] | None, typer.Option(help="Sides.")] = None


def paint(name: str = "it", *, colours: Colours, shapes: Shapes) -> tuple[str, Colours, Shapes]:
    """Paint something."""
    return name, colours, shapes


class TestGrouped:
    def test_fields_become_parameters(self) -> None:
        parameters = inspect.signature(grouped(paint)).parameters
        assert {name: parameter.default for name, parameter in parameters.items()} == {
            "name": "it",
            "red": 1,
            "blue": False,
            "sides": None,
        }

    def test_parameters_become_dataclasses_again(self) -> None:
        painted = grouped(paint)(name="door", red=2, blue=True, sides=[3])  # type: ignore[call-arg]
        assert painted == ("door", Colours(2, True), Shapes([3]))

    def test_name_and_help_stay(self) -> None:
        assert (grouped(paint).__name__, grouped(paint).__doc__) == ("paint", "Paint something.")

    def test_typer_reads_them(self) -> None:
        painted: list[Any] = []
        app = typer.Typer()

        @app.command()
        @grouped
        def command(*, colours: Colours, shapes: Shapes) -> None:
            painted.extend((colours, shapes))

        finished = CliRunner().invoke(app, ["--red", "7", "-b", "--sides", "3", "--sides", "4"])
        assert finished.exit_code == 0, finished.output
        assert painted == [Colours(7, True), Shapes([3, 4])]

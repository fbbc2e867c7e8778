"""The pages hold: option tables are the program's, commands and examples run, links lead somewhere."""

from __future__ import annotations

import itertools
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import pytest
import typer

import lalign.cli.run  # noqa: F401, on whose import all commands declare themselves
from lalign.cli import arguments, cache, commands
from lalign.cli import bench as bench_command
from lalign.cli import construct as construction
from lalign.cli import evaluate as evaluation
from lalign.cli import judge as judge_command
from lalign.cli import merge as merge_command
from lalign.cli import plot as plotting
from lalign.cli import score as scoring
from lalign.cli.app import app

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
README_BYTES = 8192
COMMANDS = {
    "generate": commands.generate,
    "sweep": commands.sweep,
    "eval": evaluation.evaluate,
    "plot": plotting.plot,
    "bench": bench_command.bench,
    "recipes": commands.list_recipes,
    "cache": cache.cache,
    "merge": merge_command.merge,
    "judge": judge_command.judge,
    "construct": construction.construct,
    "score": scoring.score,
    "best": scoring.best,
}
SECTIONS = {
    "Recipes": arguments.RecipesArguments,
    "Principle and alignment": arguments.AlignmentArguments,
    "Sampling": arguments.SamplingArguments,
    "Several responses": arguments.SampleArguments,
    "Input and output": arguments.OutputArguments,
    "Model": arguments.ModelArguments,
    "Running": arguments.RunArguments,
    "Ray": arguments.ClusterArguments,
    "Points of a sweep": arguments.SweepArguments,
    "Evaluation": arguments.EvalArguments,
    "Figures": arguments.PlotArguments,
    "Benchmark": arguments.BenchArguments,
    "Cache": arguments.CacheArguments,
    "Merging": arguments.MergeArguments,
    "Judging": arguments.JudgeArguments,
    "Who is asked": arguments.AskArguments,
    "Construction": arguments.ConstructArguments,
    "Output of judge and construct": arguments.ResultArguments,
    "Rewards": arguments.ScoreArguments,
    "Rewards: output": arguments.WrittenArguments,
}
GLOSSARY = (
    "twin",
    "pair",
    "row",
    "point",
    "group",
    "partition",
    "recipe",
    "backend",
    "shift",
    "step",
    "support",
    "anchor",
    "gauge",
)
# So that an example takes seconds; what it shows is that it runs.
SHORTER = {
    "lalign generate": "lalign generate --limit 1 --max-new-tokens 2",
    "lalign sweep": "lalign sweep --limit 1 --max-new-tokens 2",
    "lalign eval samples/preferences.jsonl": "head -1 samples/preferences.jsonl | lalign eval",
    "lalign bench": "lalign bench --limit 1 --max-new-tokens 2 --repeats 1",
    "lalign judge": "lalign judge --max-new-tokens 2",
    " --max-new-tokens 64": "",
    " --peers": "",
}


class Block(NamedTuple):
    """A fenced block: where it stands, its language, what it says, and the word of a comment right above it."""

    page: str
    language: str
    text: str
    mark: str


def blocks() -> list[Block]:
    fenced = re.compile(r"(?:^<!-- ([^\n]+) -->\n)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return [
        Block(str(page.relative_to(ROOT)), found[2], found[3].strip(), found[1] or "")
        for page in PAGES
        for found in fenced.finditer(page.read_text(encoding="utf-8"))
    ]


def shell_blocks() -> list[Block]:
    """What runs lalign, shortened, without the installing that a test run has behind it; each command but once."""
    seen: set[str] = set()
    kept = []
    for block in blocks():
        if block.language != "sh" or block.mark or not re.search(r"\blalign ", block.text):
            continue
        text = re.sub(r"^pip install.*&& (?=lalign)", "", block.text)
        for full, shorter in SHORTER.items():
            text = text.replace(full, shorter)
        if not seen.issuperset(text.splitlines()):
            kept.append(block._replace(text=text))
        seen.update(text.splitlines())
    return kept


def python_blocks() -> list[Block]:
    return [block for block in blocks() if block.language == "python" and not block.mark]


def option_table(kind: type) -> list[str]:
    """The rows of a table, from the declarations that the program parses by."""
    rows = []
    hints = get_type_hints(kind, include_extras=True)
    for option in fields(kind):
        info = hints[option.name].__metadata__[0]
        # Typer takes the first name for a default until it sees that there is an annotation.
        names = [name for name in (info.default, *info.param_decls) if isinstance(name, str)]
        shown = ", ".join(f"`{name}`" for name in names or [f"--{option.name.replace('_', '-')}"])
        meaning = info.help.replace("|", r"\|")
        rows.append(f"| {shown} | {default(option.default, info.show_default)} | {meaning} |")
    return rows


def default(value: Any, shown: bool | str) -> str:
    if value is MISSING:
        return "required"
    if isinstance(shown, str):
        return shown
    return "" if value is None or value is False else str(value)


def command_table() -> list[str]:
    """Which tables of options each command takes, from its signature."""
    sections = {kind: section for section, kind in SECTIONS.items()}
    rows = []
    for name, command in COMMANDS.items():
        kinds = get_type_hints(command.__wrapped__).values()  # type: ignore[attr-defined]
        taken = {sections[kind] for kind in kinds if kind in sections}
        rows.append(f"| `lalign {name}` | {', '.join(section for section in SECTIONS if section in taken)} |")
    return rows


def tables(page: Path) -> dict[str, list[str]]:
    """The rows of each section that begin with code, by the section's heading."""
    first, *sections = page.read_text(encoding="utf-8").split("\n## ")
    parts = {"": first} | {section.split("\n", 1)[0]: section for section in sections}
    return {heading: re.findall(r"^\| `.*", text, re.MULTILINE) for heading, text in parts.items()}


def anchors(page: Path) -> set[str]:
    """The ids that headings get: lower case, words joined by hyphens, punctuation dropped."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("section", SECTIONS)
def test_an_option_table_is_that_of_the_program(section: str) -> None:
    assert tables(ROOT / "docs/options.md")[section] == option_table(SECTIONS[section])


def test_the_table_of_commands_is_that_of_the_program() -> None:
    declared = {one.name or one.callback.__name__ for one in app.registered_commands if one.callback}
    assert declared == {*COMMANDS, "lm-eval"}  # whose options are those of lm-evaluation-harness
    assert tables(ROOT / "docs/options.md")[""] == command_table()


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_bytes()) <= README_BYTES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"https?://", target):
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_the_readme_links_to_every_page() -> None:
    linked = set(re.findall(r"\]\((docs/\w+\.md)\)", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert linked == {str(page.relative_to(ROOT)) for page in (ROOT / "docs").glob("*.md")}


def test_the_glossary_has_its_words() -> None:
    defined = re.findall(r"^\| \*\*(.+?)\*\* \|", (ROOT / "docs/glossary.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert {*GLOSSARY} <= {*defined}
    assert defined == sorted(defined)


def test_sections_of_the_design_that_code_cites_are_there() -> None:
    sections = set(re.findall(r"^## (\d+)\. ", (ROOT / "docs/design.md").read_text(encoding="utf-8"), re.MULTILINE))
    cited = {
        number
        for file in [*(ROOT / "lalign").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
        for words in re.findall(r"design sections? ([\d, and]+)", file.read_text(encoding="utf-8"))
        for number in re.findall(r"\d+", words)
    }
    assert cited
    assert cited <= sections


def test_there_are_commands_to_run() -> None:
    assert {name for block in shell_blocks() for name in re.findall(r"lalign (\w+) ", block.text)} >= {*COMMANDS}


def test_a_block_that_is_not_run_says_why() -> None:
    skipped = {block.mark for block in blocks() if block.mark}
    assert "tests" in skipped
    assert all(mark == "tests" or mark.startswith("not run: ") for mark in skipped)


def commands_that_are_not_run() -> list[str]:
    """Each line of lalign's in blocks that are not run."""
    blocks_of_shell = [block for block in blocks() if block.language == "sh" and block.mark.startswith("not run")]
    lines = [line.strip() for block in blocks_of_shell for line in block.text.replace("\\\n", " ").splitlines()]
    return [line for line in dict.fromkeys(lines) if line.startswith("lalign ")]


@pytest.mark.parametrize("line", commands_that_are_not_run())
def test_a_command_that_is_not_run_has_options_that_there_are(line: str) -> None:
    words = shlex.split(line, comments=True)
    _, first, *others = itertools.takewhile(lambda word: word not in {"|", ">", "&&"}, words)
    group = typer.main.get_command(app)
    command = group.commands[first]  # type: ignore[attr-defined]
    command.make_context(first, others)  # raises where the words are none that it takes


@pytest.mark.real
@pytest.mark.parametrize("block", shell_blocks(), ids=lambda block: f"{block.page}: {block.text[:40]}")
def test_a_command_runs_as_it_stands(block: Block, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "samples", tmp_path / "samples")
    command = re.sub(r"(?<![\w/-])lalign (?=[a-z-])", f"{sys.executable} -m lalign ", block.text)
    done = subprocess.run(["bash", "-eo", "pipefail", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.real
@pytest.mark.parametrize("block", python_blocks(), ids=lambda block: block.page)
def test_a_python_example_runs(block: Block, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "samples", tmp_path / "samples")
    shorter = re.sub(r"max_new_tokens=\d+", "max_new_tokens=4", block.text)
    done = subprocess.run([sys.executable, "-c", shorter], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()

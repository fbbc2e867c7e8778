"""The direction of the folders: which may import which, by what the files say."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "lalign"
# What each part may import: a part is a folder, or a file of the public face. All may import these:
BASE = {"errors", "options", "prefixes", "text", "validation"}
ALLOWED: dict[str, set[str]] = {
    "method": set(),
    "results": {"method"},
    "engine": {"method"},
    "models": {"engine"},
    "records": {"engine", "method", "results"},
    "processor": {"method"},
    "backends": {"engine", "models"},
    "aligner": {"backends", "engine", "method", "models", "records", "results"},
    "jobs": {"aligner", "engine", "records", "results"},
    "sweep": {"method", "results"},
    "evaluation": {"aligner", "engine", "jobs", "method", "records", "results"},
    "asking": {"aligner", "jobs", "records", "results"},
    "construction": {"asking", "records", "results"},
    "judging": {"asking", "evaluation", "jobs", "records", "results"},
    "figures": {"asking", "evaluation", "jobs", "judging", "method", "records", "results", "rewards", "sweep"},
    "ray": {"aligner", "backends", "jobs", "models", "records", "results"},
    "bench": {"aligner", "backends", "engine", "method", "models", "records", "results"},
    "lm_eval": {"engine", "method", "models", "records"},
    "rewards": {"jobs", "records", "results"},
    "cli": {
        *("aligner", "bench", "engine", "evaluation", "figures", "jobs", "method", "models", "records", "results"),
        *("asking", "backends", "construction", "judging", "lm_eval", "ray", "rewards", "sweep"),
    },
    "__init__": {"aligner", "method", "processor", "results"},
    "__main__": {"cli"},
}
# Those to whom the engine is open by its interface alone.
BY_INTERFACE = {"records", "jobs", "evaluation", "bench", "cli"}
INTERFACE = {"lalign.engine.forced", "lalign.engine.interface", "lalign.engine.torch_backend"}
# What stands against the table today. An arrow that is mended is taken out of here; none is put in.
EXCEPTIONS: set[tuple[str, str]] = set()
# And what goes round in a circle.
CIRCLES: set[frozenset[str]] = set()


class Import(NamedTuple):
    """One file that imports another, both as dotted names."""

    importer: str
    imported: str


def modules() -> dict[str, Path]:
    names = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imports() -> list[Import]:
    """Every import of lalign within lalign: those inside functions too, and those for types alone."""
    known = modules()
    return [
        Import(name, imported)
        for name, path in known.items()
        for imported in _imported(ast.parse(path.read_text(encoding="utf-8")), known)
    ]


def _imported(tree: ast.Module, known: Mapping[str, Path]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                # A name in a file, or a file in a folder.
                names = (f"{node.module}.{alias.name}", f"{node.module}")
                yield from [name for name in names if name in known][:1]


def part(module: str) -> str:
    """The folder of a module, or the file of the public face: `lalign.cli.terminal` is `cli`."""
    return module.split(".")[1] if "." in module else "__init__"


def allowed(importer: str, imported: str) -> bool:
    here, there = part(importer), part(imported)
    if here == there or there in BASE:
        return True
    if there == "__init__":  # for the version alone
        return here in {"asking", "bench", "cli", "jobs"}
    if there == "engine" and here in BY_INTERFACE and imported not in INTERFACE:
        return False
    return there in ALLOWED[here]


def test_the_table_has_a_place_for_every_part() -> None:
    assert {part(module) for module in modules()} - BASE == {*ALLOWED}


def test_no_file_imports_against_the_table() -> None:
    against = {(found.importer, found.imported) for found in imports() if not allowed(found.importer, found.imported)}
    assert not against - EXCEPTIONS, "against the table"
    assert not EXCEPTIONS - against, "mended: to be taken out of EXCEPTIONS"


@pytest.mark.parametrize("base", sorted(BASE))
def test_what_all_may_import_imports_nothing_but_its_like(base: str) -> None:
    assert {part(found.imported) for found in imports() if part(found.importer) == base} <= BASE


def test_the_table_itself_has_no_circle() -> None:
    TopologicalSorter(ALLOWED).prepare()


def test_no_files_import_one_another_in_a_circle() -> None:
    assert {frozenset(circle) for circle in _circles()} == CIRCLES


def _circles() -> Iterator[list[str]]:
    arrows: dict[str, set[str]] = {}
    for found in imports():
        arrows.setdefault(found.importer, set()).add(found.imported)
    while True:
        try:
            TopologicalSorter(arrows).prepare()
        except CycleError as error:
            circle: list[str] = error.args[1]
            yield circle
            # One of its arrows is taken out, so that others show.
            arrows[circle[1]].discard(circle[0])
        else:
            return

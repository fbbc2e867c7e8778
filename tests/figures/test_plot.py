"""Plots are whole files with their axes named, whatever the names; nothing of matplotlib is needed until then."""

from __future__ import annotations

import math
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import matplotlib
import matplotlib.image
import pytest

from lalign.errors import OptionError, OutputError
from lalign.figures.plot import PANELS, plot_accuracy, plot_format, plot_sweep
from lalign.method.linear_alignment import Alignment
from lalign.method.recipes import RECIPES
from lalign.sweep.metrics import Measure, PointSummary

ACCURACY = [(0.0, 0.25, 0.15, 0.35), (1.0, 0.5, 0.4, 0.6), (2.0, 0.75, 0.65, 0.85)]


def point(ratio: float, p: float = 2.0, responses: int = 8) -> PointSummary:
    """A point whose figures rise with the ratio; from ratio 3 on it repeats itself."""
    share = Measure(0.1 * ratio, 0.05 * ratio, 0.1 * ratio, 0.15 * ratio)
    length = Measure(40 - ratio, 30, 40, 50)
    loops = 0.5 if ratio >= 3 else 0.0
    repeated = Measure(loops, 0.0, 0.0, 0.1)
    shares = dict.fromkeys(range(responses), (loops, 1 - loops))
    logprob = Measure(-0.5 - 0.1 * ratio, -1.0, -0.5, -0.2)
    return PointSummary(
        Alignment(ratio=ratio, p=p), responses, 0, length, share, 1.0, share, share, repeated, logprob, logprob, shares
    )


def texts(path: Path) -> str:
    """All text of an SVG file, which must be well-formed."""
    return "\n".join(ElementTree.parse(path).getroot().itertext())


SWEEP = [point(ratio, p) for p in (2.0, math.inf) for ratio in (0.0, 1.0, 2.0, 3.0)]


def test_a_png_is_a_picture(tmp_path: Path) -> None:
    plot_sweep(SWEEP, tmp_path / "sweep.PNG")
    picture = matplotlib.image.imread(tmp_path / "sweep.PNG", format="png")
    height, width, _ = picture.shape
    assert width > height > 600
    inked = picture[..., :3].min(axis=-1) < 0.5
    assert 0.002 < inked.mean() < 0.2
    assert all(half.any() for half in (inked[:, : width // 2], inked[:, width // 2 :], inked[: height // 2]))


def test_an_svg_names_every_figure_its_unit_and_its_lines(tmp_path: Path) -> None:
    plot_sweep(SWEEP, tmp_path / "sweep.svg")
    text = texts(tmp_path / "sweep.svg")
    for panel in PANELS:
        assert panel.title in text
        assert panel.unit in text
    assert text.count("ratio\n") >= len(PANELS)
    for entry in ("p = 2: mean", "p = inf: mean", "middle half of responses", "knee: last point before"):
        assert entry in text


def test_recipes_are_drawn_over_the_scale_that_they_share(tmp_path: Path) -> None:
    opad = [replace(each, alignment=replace(RECIPES["opad"], ratio=each.alignment.ratio)) for each in SWEEP[:4]]
    plot_sweep([*SWEEP, *opad], tmp_path / "sweep.svg")
    text = texts(tmp_path / "sweep.svg")
    for entry in ("lalign, p = 2: mean", "lalign, p = inf: mean", "opad: mean"):
        assert entry in text
    assert text.count("KL, nats per token\n") == len(PANELS) - 1
    assert text.count("ratio\n") == 1


def test_the_same_sweep_gives_the_same_file(tmp_path: Path) -> None:
    for name in ("one.svg", "two.svg"):
        plot_sweep(SWEEP, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_the_knee_is_ringed_in_every_panel_where_there_is_one(tmp_path: Path) -> None:
    def rings(points: list[PointSummary]) -> int:
        plot_sweep(points, tmp_path / "sweep.svg")
        marks = ElementTree.parse(tmp_path / "sweep.svg").iter("{http://www.w3.org/2000/svg}use")
        return sum("stroke-width: 1.4" in mark.get("style", "") for mark in marks)

    assert rings([point(2.0)]) == 0
    assert "knee" not in texts(tmp_path / "sweep.svg")
    assert rings(SWEEP) == 2 * len(PANELS)


@pytest.mark.parametrize(
    "points",
    [
        pytest.param([], id="no point"),
        pytest.param([point(0.0, responses=0)], id="no response"),
        pytest.param([point(1.0)], id="one point"),
        pytest.param([point(1.0, p) for p in map(float, range(1, 40))], id="more values of p than looks"),
        pytest.param([point(ratio / 10) for ratio in range(500)], id="hundreds of ratios"),
    ],
)
def test_any_sweep_can_be_drawn(points: list[PointSummary], tmp_path: Path) -> None:
    plot_sweep(points, tmp_path / "sweep.svg")
    assert "Flipped steps" in texts(tmp_path / "sweep.svg")


def test_accuracy_has_a_panel_a_domain_and_the_level_of_chance(tmp_path: Path) -> None:
    domains = ["technology", "diet", "health care", "daily life"]
    plot_accuracy(tmp_path / "eval.svg", dict.fromkeys(domains, ACCURACY), chance=0.25)
    text = texts(tmp_path / "eval.svg")
    assert all(domain in text for domain in domains)
    assert text.count("accuracy, %") == 4
    assert text.count("chance") == 1


@pytest.mark.parametrize("domain", ["$x^{", "<b>&", "\x1b[31mred", "a\nb", "\ud800", "x" * 500])
def test_a_domain_may_have_any_name(domain: str, tmp_path: Path) -> None:
    plot_accuracy(tmp_path / "eval.svg", {domain: ACCURACY}, chance=0.25)
    shown = {"\x1b[31mred": "\\x1b[31mred", "a\nb": "a\\nb", "\ud800": "\\ud800", "x" * 500: "x" * 39 + "…"}
    assert shown.get(domain, domain) in texts(tmp_path / "eval.svg")


def test_an_interval_that_misses_its_accuracy_can_be_drawn(tmp_path: Path) -> None:
    plot_accuracy(tmp_path / "eval.svg", {"diet": [(0.0, 0.5, 0.51, 0.6), (1.0, 0.5, 0.4, 0.49)]}, chance=0.25)
    assert "diet" in texts(tmp_path / "eval.svg")


def test_drawing_leaves_the_settings_of_matplotlib_alone(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    plot_sweep(SWEEP, tmp_path / "sweep.svg")
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(("name", "kind"), [("a.png", "png"), ("a.SVG", "svg"), ("b.html", "html")])
def test_the_format_is_that_of_the_file_name(name: str, kind: str) -> None:
    assert plot_format(Path(name)) == kind


@pytest.mark.parametrize("name", ["sweep", "sweep.pdf", "png"])
def test_another_file_name_is_refused(name: str) -> None:
    with pytest.raises(OptionError, match=r"plot: must name a \.png, \.svg or \.html file"):
        plot_format(Path(name))


def test_a_page_is_not_drawn_here(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"must name a \.png or \.svg file"):
        plot_sweep(SWEEP, tmp_path / "sweep.html")


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for refused in (lambda: plot_format(Path("a.png")), lambda: plot_sweep(SWEEP, tmp_path / "a.svg")):
        with pytest.raises(OptionError) as failure:
            refused()
        assert str(failure.value) == "plot: needs matplotlib: pip install 'lalign[plot]'"
    assert plot_format(Path("a.html")) == "html"


def test_matplotlib_is_loaded_only_to_draw() -> None:
    program = "import sys, lalign.figures.plot; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"nowhere.*No such file"):
        plot_sweep(SWEEP, tmp_path / "nowhere" / "sweep.png")

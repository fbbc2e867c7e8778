"""Plots are whole files with their axes named, whatever the names; nothing of matplotlib is needed until then."""

from __future__ import annotations

import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import matplotlib
import matplotlib.image
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lalign.errors import OptionError, OutputError
from lalign.figures.accuracy import plot_accuracy
from lalign.figures.canvas import COLOURS, WIDTHS, About, Width, plot_format
from lalign.figures.pareto import front
from lalign.figures.plot import PANELS, plot_sweep
from lalign.method.linear_alignment import Alignment
from lalign.method.recipes import RECIPES
from lalign.sweep.metrics import Measure, PointSummary

SVG = "{http://www.w3.org/2000/svg}"
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
    assert (width, height > 450) == (int(200 * WIDTHS["full"]), True)
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
    for entry in ("p = 2", "p = inf", "middle half", "knee: last before"):
        assert entry in text


def test_recipes_are_drawn_over_the_scale_that_they_share(tmp_path: Path) -> None:
    opad = [replace(each, alignment=replace(RECIPES["opad"], ratio=each.alignment.ratio)) for each in SWEEP[:4]]
    plot_sweep([*SWEEP, *opad], tmp_path / "sweep.svg")
    text = texts(tmp_path / "sweep.svg")
    for entry in ("lalign, p = 2", "lalign, p = inf", "opad"):
        assert entry in text
    assert text.count("KL, nats per token\n") == len(PANELS) - 1
    assert text.count("ratio\n") == 1


@pytest.mark.parametrize("kind", ["pdf", "png", "svg"])
def test_the_same_sweep_gives_the_same_file(kind: str, tmp_path: Path) -> None:
    for name in ("one", "two"):
        plot_sweep(SWEEP, tmp_path / f"{name}.{kind}")
    assert (tmp_path / f"one.{kind}").read_bytes() == (tmp_path / f"two.{kind}").read_bytes()


@pytest.mark.parametrize("width", ["column", "full"])
def test_figures_are_as_wide_as_in_print_and_their_type_as_large(width: Width, tmp_path: Path) -> None:
    plot_sweep(SWEEP, tmp_path / "sweep.svg", width=width)
    root = ElementTree.parse(tmp_path / "sweep.svg").getroot()
    assert float(root.attrib["width"].removesuffix("pt")) == pytest.approx(72 * WIDTHS[width])
    sizes = {size for text in root.iter(f"{SVG}text") for size in re.findall(r"([\d.]+)px", text.attrib["style"])}
    assert sizes == {"8"}
    plot_sweep(SWEEP, tmp_path / "sweep.pdf", width=width)
    data = (tmp_path / "sweep.pdf").read_bytes()
    box = re.search(rb"/MediaBox \[ 0 0 ([\d.]+) ", data)
    assert box is not None
    assert float(box[1]) == pytest.approx(72 * WIDTHS[width])
    assert b"/FontFile2" in data  # TrueType, embedded
    assert b"/Type3" not in data


def test_a_figure_is_told_in_words(tmp_path: Path) -> None:
    about = About("models/tiny", ["Be <kind> & $5 brief."], note="judged by none")
    plot_sweep(SWEEP, tmp_path / "sweep.svg", about)
    root = ElementTree.parse(tmp_path / "sweep.svg").getroot()
    title, description = root.findtext(f"{SVG}title"), root.findtext(f"{SVG}desc")
    assert title == "What the strength of alignment does to responses"
    assert description is not None
    line = "n = 8; model tiny; principle “Be <kind> & $5 brief.”; judged by none"
    assert description.endswith(line)
    assert "Repeated 4-grams" in description
    drawn = " ".join("".join(text.itertext()) for text in root.iter(f"{SVG}text"))
    assert " ".join(drawn.split()).count(line) == 1


def test_ticks_of_whole_ratios_are_whole_numbers(tmp_path: Path) -> None:
    plot_sweep(SWEEP, tmp_path / "sweep.svg")
    assert texts(tmp_path / "sweep.svg").count("1.5") <= 1  # at most on a vertical axis
    plot_accuracy(tmp_path / "eval.svg", {"diet": ACCURACY}, chance=0.25, asked="n = 8")
    drawn = [text.strip() for text in texts(tmp_path / "eval.svg").split("\n") if text.strip()]
    assert drawn[drawn.index("0") :][:3] == ["0", "1", "2"]


def test_many_curves_have_whiskers_side_by_side_and_no_bands(tmp_path: Path) -> None:
    plot_sweep(SWEEP, tmp_path / "two.svg")
    plot_sweep([point(ratio, p) for p in (1.5, 2.0, 4.0, math.inf) for ratio in (0.0, 1.0)], tmp_path / "four.svg")
    bands = [(tmp_path / name).read_text().count("fill-opacity: 0.15") for name in ("two.svg", "four.svg")]
    assert bands[0] >= 2 * len(PANELS)
    assert bands[1] == 0


def test_colours_are_told_apart_by_those_who_see_fewer() -> None:
    """Under simulated protanopia, deuteranopia and tritanopia (Machado et al. 2009, severity 1)."""
    matrices = {
        "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    }
    rgb = np.array([[int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)] for colour in COLOURS])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    for matrix in matrices.values():
        seen = np.clip(linear @ np.array(matrix).T, 0, 1) ** (1 / 2.2)
        apart = np.linalg.norm(seen[:, None] - seen[None], axis=-1)[np.triu_indices(len(seen), 1)]
        assert apart.min() > 0.08


def test_the_knee_is_ringed_in_every_panel_where_there_is_one(tmp_path: Path) -> None:
    def rings(points: list[PointSummary]) -> int:
        plot_sweep(points, tmp_path / "sweep.svg")
        marks = ElementTree.parse(tmp_path / "sweep.svg").iter("{http://www.w3.org/2000/svg}use")
        return sum("stroke-width: 1.1" in mark.get("style", "") for mark in marks)

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
    plot_accuracy(tmp_path / "eval.svg", dict.fromkeys(domains, ACCURACY), chance=0.25, asked="n = 8 questions")
    text = texts(tmp_path / "eval.svg")
    assert all(domain in text for domain in domains)
    assert text.count("accuracy, %") == 4
    assert text.count("chance, 25 %") == 1


@pytest.mark.parametrize("domain", ["$x^{", "<b>&", "\x1b[31mred", "a\nb", "\ud800", "x" * 500])
def test_a_domain_may_have_any_name(domain: str, tmp_path: Path) -> None:
    plot_accuracy(tmp_path / "eval.svg", {domain: ACCURACY}, chance=0.25, asked="n = 8 questions")
    shown = {"\x1b[31mred": "\\x1b[31mred", "a\nb": "a\\nb", "\ud800": "\\ud800", "x" * 500: "x" * 39 + "…"}
    assert shown.get(domain, domain) in texts(tmp_path / "eval.svg")


def test_an_interval_that_misses_its_accuracy_can_be_drawn(tmp_path: Path) -> None:
    plot_accuracy(
        tmp_path / "eval.svg",
        {"diet": [(0.0, 0.5, 0.51, 0.6), (1.0, 0.5, 0.4, 0.49)]},
        chance=0.25,
        asked="n = 8 questions",
    )
    assert "diet" in texts(tmp_path / "eval.svg")


def test_drawing_leaves_the_settings_of_matplotlib_alone(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    plot_sweep(SWEEP, tmp_path / "sweep.svg")
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(("name", "kind"), [("a.png", "png"), ("a.SVG", "svg"), ("b.html", "html"), ("c.pdf", "pdf")])
def test_the_format_is_that_of_the_file_name(name: str, kind: str) -> None:
    assert plot_format(Path(name)) == kind


@pytest.mark.parametrize("name", ["sweep", "sweep.eps", "png"])
def test_another_file_name_is_refused(name: str) -> None:
    with pytest.raises(OptionError, match=r"plot: must name a \.pdf, \.png, \.svg or \.html file"):
        plot_format(Path(name))


def test_a_page_is_not_drawn_here(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"must name a \.pdf, \.png or \.svg file"):
        plot_sweep(SWEEP, tmp_path / "sweep.html")


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for refused in (lambda: plot_format(Path("a.png")), lambda: plot_sweep(SWEEP, tmp_path / "a.svg")):
        with pytest.raises(OptionError) as failure:
            refused()
        assert str(failure.value) == "plot: needs matplotlib: pip install 'lalign[plot]'"
    assert plot_format(Path("a.html")) == "html"


def test_matplotlib_is_loaded_only_to_draw() -> None:
    program = "import sys, lalign.figures.plot, lalign.figures.accuracy; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"nowhere.*No such file"):
        plot_sweep(SWEEP, tmp_path / "nowhere" / "sweep.png")


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=12))
def test_the_front_is_what_nothing_outdoes(points: list[tuple[float, float]]) -> None:
    kept = front(points)
    assert kept == sorted(kept)

    def outdone(point: tuple[float, float]) -> bool:
        return any(cost <= point[0] and gain >= point[1] and (cost, gain) != point for cost, gain in points)

    assert set(kept) == {point for point in points if not outdone(point)}

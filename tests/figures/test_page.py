"""The page of a sweep: every text shown as it is and run never, in a real browser; usable from the keyboard."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from browser import browse, in_browser  # noqa: F401, a fixture
from hypothesis import given
from hypothesis import strategies as st

from lalign.errors import OutputError
from lalign.figures import page as report
from lalign.figures.page import Outcomes, pieces, visible, write_report
from lalign.method.aligned import STATISTICS
from lalign.method.linear_alignment import Alignment
from lalign.method.recipe import Recipe
from lalign.method.recipes import RECIPES
from lalign.method.statistics import columns, summarise
from lalign.results import Failure, Result, Usage
from lalign.sweep.metrics import SweepMetrics

POINTS = [Alignment(ratio=ratio) for ratio in (0.0, 1.0, 2.0)]
# Each would change the page's title, were any of it ever run.
HOSTILE = [
    "<script>document.title='run'</script>",
    "</script><script>document.title='run'</script>",
    '"><img src=x onerror="document.title=\'run\'">',
    "<svg onload=document.title='run'>",
    "<!--<script>",
    "{{ 7 * 7 }} {% raw %} ${document.title='run'}",
    "\x1b]0;run\x07\x1b[31mred",
    "one\u2028two\u202eeurt",
    "\ud800",
]


def result(alignment: Recipe, tokens: Sequence[str], kl: float = 0.5, flips: Sequence[int] = ()) -> Result:
    steps = np.zeros((len(tokens), len(STATISTICS)), dtype=np.float32)
    steps[:, STATISTICS.index("kl_aligned_base")] = kl * alignment.ratio
    steps[:, STATISTICS.index("logprob_base")] = -1.25
    steps[:, STATISTICS.index("logprob_principle")] = -0.75
    steps[list(flips), STATISTICS.index("flipped")] = 1
    table = columns(list(steps))
    ids = tuple(range(len(tokens)))
    return Result(
        id=1,
        line=1,
        response="".join(tokens),
        finish_reason="stop",
        usage=Usage(1, 1, len(ids)),
        alignment=alignment,
        token_ids=ids,
        summary=summarise(table),
        steps={"token_ids": np.asarray(ids), "tokens": list(tokens), **table},
    )


def page(path: Path, sheets: Sequence[tuple[str, Outcomes]], title: str = "A sweep") -> str:
    metrics = SweepMetrics(POINTS)
    for _, outcomes in sheets:
        for outcome in outcomes:
            metrics.add(outcome)
    write_report(path, metrics.summaries(), sheets, title)
    return path.read_text(encoding="utf-8")


def sheet(prompt: str, *tokens: str) -> tuple[str, Outcomes]:
    return prompt, [result(point, tokens, flips=[1] if point.ratio > 1 else []) for point in POINTS]


class Elements(HTMLParser):
    """All elements of a page with their attributes, and the data it carries."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.json = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.found and self.found[-1][1].get("type") == "application/json":
            self.json += data
            self.found.append(("", {}))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def test_the_page_stands_alone(tmp_path: Path) -> None:
    text = page(tmp_path / "a.html", [sheet("Hello?", "Hi", " there")])
    elements = Elements(text)
    assert not [attributes for _, attributes in elements.found if attributes.keys() & {"src", "href", "style"}]
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|url\(|@import|fetch\(|XMLHttp", text)
    policy = next(meta["content"] for meta in elements.all("meta") if "http-equiv" in meta)
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'nonce-")
    assert "unsafe" not in policy


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_becomes_markup(text: str, tmp_path: Path) -> None:
    plain = Elements(page(tmp_path / "plain.html", [sheet("Hello?", "Hi", "Hi")]))
    hostile = Elements(page(tmp_path / "hostile.html", [sheet(text, text, text)], title=text))
    assert [tag for tag, _ in hostile.found] == [tag for tag, _ in plain.found]
    data = json.loads(hostile.json)["prompts"][0]
    assert data["prompt"] == visible(text)
    assert [span[0] for span in data["outcomes"][0]["spans"]] == [visible(text)] * 2


def test_control_characters_are_written_out() -> None:
    assert visible("\x1b[31mred\x07") == "\\x1b[31mred\\x07"
    assert visible("a\u2028b\u202ec\ud800\x85") == "a\\u2028b\\u202ec\\ud800\\x85"
    plain = "two\nlines,\ta tab, 日本語, naïve, \u00a0, 👩\u200d🚀"
    assert visible(plain) == plain


@given(st.text(alphabet="ab é日👩", max_size=30), st.booleans())
def test_pieces_make_up_the_response_where_tokens_are_parts_of_characters(response: str, stops: bool) -> None:
    tokens = []
    for character in response:
        data = character.encode()
        tokens += [bytes([byte]).decode(errors="replace") for byte in data]
    cut = list(pieces([*tokens, "<|end|>"] if stops else tokens, response))
    assert "".join(text for text, _ in cut) == response + "<|end|>" * stops
    covered = [place for _, span in cut for place in range(span.start, span.stop)]
    assert covered == list(range(len(tokens) + stops))


@pytest.mark.parametrize(
    ("tokens", "response", "expected"),
    [
        (["Hi", " you"], "Hi you", ["Hi", " you"]),
        (["The", "capital", "."], "The capital.", ["The", " capital", "."]),
        (["Hi", "\ufffd", "\ufffd", "!"], "Hi é!", ["Hi", " é", "!"]),
        (["Hi", "\ufffd", "\ufffd"], "Hié", ["Hi", "é"]),
        (["Hi", "\ufffd"], "Hi", ["Hi", "\ufffd"]),
        (["Hi", " STOP"], "Hi", ["Hi", " STOP"]),
        (["Hi", "\ufffd", "\ufffd", "<|end|>"], "Hié", ["Hi", "é", "<|end|>"]),
        ([], "", []),
    ],
)
def test_pieces_have_the_text_that_their_tokens_wrote(tokens: list[str], response: str, expected: list[str]) -> None:
    assert [text for text, _ in pieces(tokens, response)] == expected


def test_tokens_of_one_character_are_shown_as_one(tmp_path: Path) -> None:
    answer = result(POINTS[2], ["\ufffd", "\ufffd", "!"], flips=[1])
    answer.steps["kl_aligned_base"][:] = [0.25, 2.0, 0.125]  # type: ignore[index]
    sheets = [("Hello?", [replace(answer, response="é!")])]
    spans = json.loads(Elements(page(tmp_path / "a.html", sheets)).json)["prompts"][0]["outcomes"][0]["spans"]
    assert spans == [["é", 2.0, -2.5, -1.5, 1], ["!", 0.125, -1.25, -0.75, 0]]


def test_a_long_sweep_shows_its_first_prompts_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sheets = [sheet(f"Prompt {number}", "Hi", " there") for number in range(5)]
    assert "All 5 prompts." in page(tmp_path / "all.html", sheets)
    monkeypatch.setattr(report, "MOST_PROMPTS", 3)
    assert "The first 3 of 5 prompts." in page(tmp_path / "prompts.html", sheets)
    monkeypatch.setattr(report, "MOST_TOKENS", 12)
    text = page(tmp_path / "tokens.html", sheets)
    assert "The first 2 of 5 prompts." in text
    assert [entry["prompt"] for entry in json.loads(Elements(text).json)["prompts"]] == ["Prompt 0", "Prompt 1"]


def test_a_result_without_steps_is_an_error(tmp_path: Path) -> None:
    bare = replace(result(POINTS[0], ["Hi"]), steps=None)
    with pytest.raises(ValueError, match="steps"):
        page(tmp_path / "a.html", [("Hello?", [bare])])


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"nowhere.*No such file"):
        page(tmp_path / "nowhere" / "a.html", [sheet("Hello?", "Hi", "!")])


def test_the_page_tells_recipes_apart_and_draws_them_over_their_kl(tmp_path: Path) -> None:
    points = [*POINTS, *(replace(RECIPES["opad"], ratio=ratio) for ratio in (0.0, 1.0, 2.0))]
    outcomes: list[Result | Failure] = [result(point, ["Hi", "!"]) for point in points[:-1]]
    outcomes.append(Failure(1, 1, "not_finite", "the model's logits are not finite", points[-1].point))
    metrics = SweepMetrics(points)
    for outcome in outcomes:
        metrics.add(outcome)
    write_report(tmp_path / "a.html", metrics.summaries(), [("Hello?", outcomes)], "A sweep")
    data = json.loads(Elements((tmp_path / "a.html").read_text(encoding="utf-8")).json)
    kl, flipped = data["panels"][:2]
    assert [curve["label"] for curve in kl["curves"]] == ["lalign, p = 2", "opad"]
    assert (kl["across"], flipped["across"]) == ("ratio", "KL, nats per token")
    assert [curve["x"] for curve in kl["curves"]] == [[0, 1, 2], [0, 1]]
    assert [curve["x"] for curve in flipped["curves"]] == [[0, 0.5, 1], [0, 0.5]]
    cards = [(card["curve"], card["ratio"]) for card in data["prompts"][0]["outcomes"]]
    assert cards == [(curve, ratio) for curve in ("lalign, p = 2", "opad") for ratio in ("0", "1", "2")]


@in_browser
def test_a_browser_shows_hostile_text_and_runs_none_of_it(tmp_path: Path, browse: Callable[[Path], str]) -> None:  # noqa: F811
    path = tmp_path / "a.html"
    page(path, [sheet(" ".join(HOSTILE), *HOSTILE)], title="Sweep </title><script>document.title='run'</script>")
    # What would be run if the page let markup in: the policy has to stop that as well.
    path.write_text(path.read_text().replace("</body>", "<script>document.title='run'</script></body>"))
    document = browse(path)
    assert "<title>Sweep &lt;/title&gt;" in document
    assert "<title>run" not in document
    assert document.count("CONSOLE") == 1
    assert "violates the following Content Security Policy directive" in document
    spans = re.findall(r'<span class="k\d[^>]*>([^<]*)</span>', document)
    shown = [text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&") for text in spans]
    assert shown == [visible(text) for text in HOSTILE] * len(POINTS)


@in_browser
def test_a_browser_draws_the_curves_and_shades_the_tokens(tmp_path: Path, browse: Callable[[Path], str]) -> None:  # noqa: F811
    failed = Failure(2, 2, "context_length", "the prompt is too long")
    page(tmp_path / "a.html", [sheet("Hello?", "Hi", " there\n"), ("Long", [failed])])
    document = browse(tmp_path / "a.html")
    assert "CONSOLE" not in document
    assert document.count('class="curve" stroke-dasharray="" points="') == 7
    assert "NaN" not in document.split("<script")[0]
    told = "KL 1.000 nats · log p base -1.25, principled -0.75"
    assert f'<span class="k5" title="{told}">Hi</span>' in document
    assert f'<span class="k5 f" title="{told} · most likely token changed"> there↵\n</span>' in document
    assert '<span class="k0" title="KL 0.000 nats' in document
    assert "the prompt is too long" not in re.sub(r"<script.*?</script>", "", document, flags=re.DOTALL)  # not open yet


@in_browser
def test_the_page_is_used_from_the_keyboard(tmp_path: Path, browse: Callable[[Path], str]) -> None:  # noqa: F811
    failed = Failure(2, 2, "context_length", "the prompt is too long")
    path = tmp_path / "a.html"
    text = page(path, [sheet("First", "Hi", " there"), sheet("Second", "Ho", "!"), ("Third", [failed])])
    nonce = re.search(r'<script nonce="(\w+)"', text)
    assert nonce is not None
    # Types, and writes what it sees into the page.
    driver = """
      const seen = [];
      const press = key => (document.activeElement ?? document.body).dispatchEvent(
        new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
      const focused = () => document.activeElement.textContent;
      for (const key of ["j", "j", "k", "j", "j", "j"]) { press(key); seen.push(focused()); }
      document.activeElement.click();
      document.querySelector(".response").focus();
      for (const key of ["ArrowRight", "ArrowRight", "ArrowRight", "ArrowLeft"]) {
        press(key);
        seen.push(document.getElementById("readout").textContent.split(" ")[0]);
      }
      const filter = document.getElementById("filter");
      filter.focus();
      filter.value = "SEC";
      filter.dispatchEvent(new Event("input"));
      press("j");
      seen.push(document.activeElement.id, document.getElementById("count").textContent);
      filter.blur();
      press("j");
      seen.push(focused());
      setTimeout(() => {
        seen.push(document.querySelector("details:last-child p").textContent);
        document.title = JSON.stringify(seen);
      }, 100);
    """
    path.write_text(text.replace("</body>", f'<script nonce="{nonce[1]}">{{{driver}}}</script></body>'))
    title = re.search(r"<title>(.*?)</title>", browse(path))
    assert title is not None
    assert json.loads(title[1]) == [
        *["First", "Second", "First", "Second", "Third", "Third"],
        *["“Hi”", "“there”", "“there”", "“Hi”"],
        *["filter", "1 of 3 match"],
        "Second",
        "context_length: the prompt is too long",
    ]

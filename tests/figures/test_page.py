"""The page of a sweep: every text shown as it is and run never, in a real browser; usable from the keyboard."""

from __future__ import annotations

import base64
import csv
import gzip
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from browser import browse, in_browser, page_data  # noqa: F401, a fixture
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
        if self.found and self.found[-1][1].get("id") == "data":
            self.json += gzip.decompress(base64.b64decode(data)).decode()
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
    # Types, and writes what it sees into the page.
    driver = """
      const seen = [];
      const press = key => (document.activeElement ?? document.body).dispatchEvent(
        new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
      const focused = () => document.activeElement.querySelector("bdi").textContent;
      for (const key of ["j", "j", "k", "j", "j", "j"]) { press(key); seen.push(focused()); }
      const third = document.activeElement.closest("details");
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
        seen.push(third.querySelector("p").textContent);
        document.title = JSON.stringify(seen);
      }, 100);
    """
    path.write_text(driven(text, driver))
    title = re.search(r"<title>(.*?)</title>", browse(path))
    assert title is not None
    assert json.loads(title[1]) == [
        *["First", "Second", "First", "Second", "Third", "Third"],
        *["“Hi”", "“there”", "“there”", "“Hi”"],
        *["filter", "1 to 1 of 1 that match, of 3"],
        "Second",
        "context_length: the prompt is too long",
    ]


def many(path: Path, prompts: int, tokens: int) -> str:
    """A page of prompts whose tokens are no two alike, so that they compress as badly as any."""
    drawn = np.random.default_rng(0)
    words = ["".join(chr(97 + letter) for letter in drawn.integers(0, 26, 5)) for _ in range(5000)]
    sheets: list[tuple[str, Outcomes]] = []
    for number in range(prompts):
        outcomes = []
        for at in POINTS:
            one = result(at, [f" {words[place]}" for place in drawn.integers(0, 5000, tokens)])
            for name in ("kl_aligned_base", "logprob_base", "logprob_principle"):
                one.steps[name][:] = drawn.exponential(1, tokens)  # type: ignore[index]
            outcomes.append(
                replace(one, line=number + 1, summary={**(one.summary or {}), "kl_aligned_base_mean": number})
            )
        sheets.append((f"Prompt {number}", outcomes))
    return page(path, sheets)


def test_five_hundred_prompts_are_a_page_of_less_than_three_megabytes(tmp_path: Path) -> None:
    text = many(tmp_path / "a.html", 500, 30)
    assert "All 500 prompts." in text
    assert len(text.encode()) < 3_000_000


def test_what_would_be_larger_is_cut_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MOST_BYTES", 40_000)
    text = many(tmp_path / "a.html", 40, 30)
    kept = len(json.loads(Elements(text).json)["prompts"])
    assert 5 < kept < 40
    assert f"The first {kept} of 40 prompts." in text
    assert len(text.encode()) < 40_000 + 40_000


def driven(text: str, driver: str) -> str:
    """The page with a script of its own that runs once the page is drawn."""
    nonce = re.search(r'<script nonce="(\w+)"', text)
    assert nonce is not None
    script = f"""<script nonce="{nonce[1]}">document.addEventListener("drawn", async () => {{
      const get = id => document.getElementById(id);
      {driver}
    }});</script></body>"""
    return text.replace("</body>", script)


def seen(text: str, path: Path, driver: str, dom: Callable[[Path], str]) -> list[object]:
    """What a script in the page puts into `seen`."""
    whole = f"""
      const seen = [];
      const choose = (id, value) => {{
        get(id).value = value;
        for (const kind of ["input", "change"]) get(id).dispatchEvent(new Event(kind));
      }};
      const prompts = () => [...document.querySelectorAll("#prompts > details bdi")].map(prompt => prompt.textContent);
      {driver}
      document.title = JSON.stringify(seen);
    """
    path.write_text(driven(text, whole))
    document = dom(path)
    assert "CONSOLE" not in document
    title = re.search(r"<title>(.*?)</title>", document)
    assert title is not None
    return list(json.loads(unescape(title[1])))


@in_browser
def test_hundreds_of_prompts_are_filtered_sorted_and_paged(tmp_path: Path, browse: Callable[[Path], str]) -> None:  # noqa: F811
    driver = """
      seen.push(prompts().length, get("count").textContent);
      document.querySelector(".next").click();
      seen.push(prompts()[0]);
      choose("sort", "kl");
      seen.push(prompts()[0]);
      choose("sort", "-kl");
      seen.push(prompts()[0]);
      choose("filter", "prompt 49");
      seen.push(prompts(), get("count").textContent);
      get("all").click();
      seen.push(document.querySelectorAll("#prompts > details[open] .point").length, get("all").textContent);
      get("all").click();
      seen.push(document.querySelectorAll("#prompts > details[open]").length);
    """
    found = seen(many(tmp_path / "a.html", 500, 4), tmp_path / "b.html", driver, browse)
    matching = [f"Prompt {number}" for number in (49, *range(490, 500))]
    assert found == [
        *[25, "1 to 25 of 500", "Prompt 25", "Prompt 499", "Prompt 0"],
        *[matching, "1 to 11 of 11 that match, of 500", 33, "Close all", 0],
    ]


def saved_texts(path: Path) -> list[tuple[str, str]]:
    """The prompt and response, or error, of each outcome that *Save responses* of the page gives."""
    found = []
    for prompt in page_data(path)["prompts"]:
        for card in prompt["outcomes"]:
            shown = card["error"] if "error" in card else "".join(text for text, *_ in card["spans"][: card["own"]])
            found.append((prompt.get("exact", prompt["prompt"]), card.get("exact", shown)))
    return found


@pytest.mark.parametrize(
    ("tokens", "response"),
    [
        (("Yes", " sir.\nHu", "man:"), "Yes sir."),
        (("Yes", " \x1b[31mred", "<|im_end|>"), "Yes \x1b[31mred"),
        (("one\u2028two\u202e",), "one\u2028two\u202e"),
        (("Hi", "<|im_end|>"), "Hi"),
        (("Hi",), ""),
    ],
)
def test_what_is_saved_is_the_response_to_the_character(tmp_path: Path, tokens: tuple[str, ...], response: str) -> None:
    outcomes = [replace(result(point, tokens), response=response) for point in POINTS[:2]]
    failure = Failure(1, 1, "template_error", "bad \x07", POINTS[2].point)
    page(tmp_path / "a.html", [("What\u202e?", [*outcomes, failure])])
    prompt = "What\u202e?"
    assert saved_texts(tmp_path / "a.html") == [
        *[(prompt, response)] * 2,
        (prompt, "template_error: bad \x07"),
    ]


def test_a_text_that_is_shown_as_it_is_stands_there_once(tmp_path: Path) -> None:
    page(tmp_path / "a.html", [sheet("Hello?", "Hi", " there")])
    assert '"exact"' not in json.dumps(page_data(tmp_path / "a.html"))


@in_browser
def test_what_differs_from_ratio_0_is_marked_and_the_data_are_saved(
    tmp_path: Path,
    browse: Callable[[Path], str],  # noqa: F811
) -> None:
    texts = (["The", " cat", " sat", " down"], ["The", " old", " cat", " down"], ["The", " cat", " sat", "\u202e"])
    outcomes = [result(at, tokens) for at, tokens in zip(POINTS, texts, strict=True)]
    text = page(tmp_path / "a.html", [('Hello, "you"?', outcomes)])
    driver = """
      choose("mark", "new");
      seen.push([...document.querySelectorAll("#prompts.new .n")].map(span => span.textContent));
      const saved = {};
      URL.createObjectURL = blob => { saved.blob = blob; return "blob:null/0"; };
      HTMLAnchorElement.prototype.click = function () { saved.name = this.download; };
      for (const id of ["save-responses", "save-points"]) {
        get(id).click();
        seen.push(saved.name, await saved.blob.text());
      }
    """
    marked, lines_name, lines, table_name, table = seen(text, tmp_path / "b.html", driver, browse)
    assert marked == [" old", "\\u202e"]
    assert (lines_name, table_name) == ("responses.jsonl", "points.csv")
    saved = [json.loads(line) for line in str(lines).splitlines()]
    assert [(one["ratio"], one["response"]) for one in saved] == [(n, "".join(texts[n])) for n in range(3)]
    assert {one["prompt"] for one in saved} == {'Hello, "you"?'}
    rows = list(csv.reader(str(table).splitlines()))
    assert rows[0][:3] == ["curve", "ratio", "KL(aligned ‖ base), nats per token: mean"]
    assert [row[1:3] for row in rows[1:]] == [["0", "0"], ["1", "0.5"], ["2", "1"]]


@in_browser
@pytest.mark.parametrize(("width", "first"), [(390, "responses"), (1280, "curves")])
def test_a_phone_has_the_responses_first_and_nothing_beside_the_screen(
    width: int,
    first: str,
    tmp_path: Path,
    browse: Callable[[Path], str],  # noqa: F811
) -> None:
    text = page(tmp_path / "a.html", [sheet("Hello?" * 40, "Hi", " there")])
    driver = """
      const top = id => get(id).getBoundingClientRect().top, root = document.documentElement;
      const [first] = ["responses", "curves", "points"].sort((one, other) => top(one) - top(other));
      parent.postMessage([innerWidth, first, root.scrollWidth - root.clientWidth], "*");
    """
    (tmp_path / "b.html").write_text(driven(text, driver))
    # A window of Chromium's is no narrower than 500 points, a frame is.
    (tmp_path / "frame.html").write_text(
        f"""<title></title><iframe src="b.html" style="border:0;width:{width}px;height:800px"></iframe>
        <script>onmessage = event => {{ document.title = JSON.stringify(event.data); }};</script>"""
    )
    title = re.search(r"<title>(.*?)</title>", browse(tmp_path / "frame.html"))
    assert title is not None
    assert json.loads(unescape(title[1])) == [width, first, 0]


@in_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read_by_day_and_by_night(
    scheme: str,
    tmp_path: Path,
    browse: Callable[..., str],  # noqa: F811
) -> None:
    """Each text against what is behind it: a contrast of at least 4.5 (WCAG 2, level AA)."""
    shades = [result(at, ["Hi", " there", "!"]) for at in POINTS]
    failed = Failure(2, 2, "context_length", "the prompt is too long")
    driver = """
      get("all").click();
      const paint = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
      const mixed = colours => {  // the last of them in front
        paint.clearRect(0, 0, 1, 1);
        for (const colour of colours) { paint.fillStyle = colour; paint.fillRect(0, 0, 1, 1); }
        return [...paint.getImageData(0, 0, 1, 1).data].slice(0, 3);
      };
      const luminance = rgb => {
        const [r, g, b] = rgb.map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const behind = element => element === null ? [] :
        [...behind(element.parentElement), getComputedStyle(element).backgroundColor];
      const worst = {};
      let texts = 0;
      for (const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT); walker.nextNode();) {
        const element = walker.currentNode.parentElement, style = getComputedStyle(element);
        if (!walker.currentNode.data.trim() || !element.getClientRects().length || style.visibility !== "visible")
          continue;
        texts += 1;
        const grounds = behind(element), ink = element.closest("svg") ? style.fill : style.color;
        const [one, other] = [luminance(mixed(grounds)), luminance(mixed([...grounds, ink]))].sort((a, b) => a - b);
        const contrast = (other + 0.05) / (one + 0.05);
        if (contrast < 4.5) worst[`${element.tagName}: ${walker.currentNode.data.trim()}`] = contrast;
      }
      seen.push(luminance(mixed(behind(document.body))), worst, texts);
    """
    text = page(tmp_path / "a.html", [("Hello?", shades), ("Long", [failed])])
    ground, unreadable, texts = seen(text, tmp_path / "b.html", driver, lambda path: browse(path, scheme))
    assert (ground < 0.05, ground > 0.8) == (scheme == "dark", scheme == "light")  # type: ignore[operator]
    assert unreadable == {}
    assert texts > 50  # type: ignore[operator]

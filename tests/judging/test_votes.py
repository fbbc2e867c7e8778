"""People as judges: the page in a real browser, its votes merged, and how far people agree."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from browser import browse, in_browser  # noqa: F401, a fixture
from conftest import Lalign

from lalign.errors import InputError, OptionError
from lalign.figures.ballot import write_ballot
from lalign.judging.ballots import is_swapped, on_ballot, pair_key
from lalign.judging.instructions import Outcome
from lalign.judging.judged import Judged
from lalign.judging.matches import Match
from lalign.judging.votes import Merged, agreements, merge_votes, read_votes
from lalign.records.parsing import Message

HOSTILE = "</script><script>document.title='run'</script><b>bold</b> \x1b[31m"


def match(number: int, first: str = "good", second: str = "bad") -> Match:
    texts = (f"{first} {number}", f"{second} {number}")
    return Match(number, f"q{number}", "ours", "theirs", (Message("user", f"Question {number}?"),), texts)


MATCHES = [match(number) for number in range(1, 9)]


def vote(one: Match, outcome: Outcome, voter: str = "ann", seed: int = 0) -> dict[str, Any]:
    """The line that the page saves for someone who sees that outcome."""
    sides = {"win": "left", "lose": "right", "tie": "tie"}
    if is_swapped(pair_key(one), seed):
        sides |= {"win": "right", "lose": "left"}
    return {"voter": voter, "seed": seed, "pair": pair_key(one), "vote": sides[outcome]}


def saved(path: Path, *votes: Any) -> Path:
    path.write_bytes(b"".join(orjson.dumps(one, option=orjson.OPT_APPEND_NEWLINE) for one in votes))
    return path


class TestBallots:
    def test_every_pair_is_there_once_in_an_order_and_on_sides_of_the_seed(self) -> None:
        orders = [on_ballot(MATCHES, seed) for seed in range(20)]
        assert all(sorted(order, key=lambda one: one.number) == MATCHES for order in orders)
        assert len({tuple(one.number for one in order) for order in orders}) > 10
        swapped = [is_swapped(pair_key(one), seed) for one in MATCHES for seed in range(50)]
        assert 0.4 < sum(swapped) / len(swapped) < 0.6

    def test_answers_that_are_the_same_are_not_asked_about(self) -> None:
        assert on_ballot([match(1, "x", "x")], 0) == []

    @pytest.mark.parametrize("seed", [-1, 2**53])
    def test_a_seed_that_a_browser_would_round_is_refused(self, tmp_path: Path, seed: int) -> None:
        with pytest.raises(OptionError, match=r"seed: must be .* at least 0 and at most 9007199254740991"):
            write_ballot(tmp_path / "p.html", MATCHES, seed)
        assert not (tmp_path / "p.html").exists()

    def test_the_page_does_not_say_whose_answer_is_whose(self, tmp_path: Path) -> None:
        assert write_ballot(tmp_path / "p.html", MATCHES, 0) == len(MATCHES)
        text = (tmp_path / "p.html").read_text()
        assert "ours" not in text.replace("yours", "")
        assert "theirs" not in text
        assert not re.search(r"https?://|url\(|fetch\(", text)


class TestVotes:
    def test_votes_are_read_for_the_first_contestant_whatever_the_side(self, tmp_path: Path) -> None:
        outcomes: list[Outcome] = ["win", "lose", "tie", "win", "win", "lose", "lose", "tie"]
        for seed in (0, 7):
            lines = [vote(one, outcome, seed=seed) for one, outcome in zip(MATCHES, outcomes, strict=True)]
            assert read_votes([saved(tmp_path / "v", *lines)], MATCHES) == {"ann": dict(enumerate(outcomes, 1))}

    @pytest.mark.parametrize(
        ("cast", "outcome"),
        [
            (["win"], "win"),
            (["win", "win", "lose"], "win"),
            (["win", "lose"], "tie"),
            (["lose", "tie"], "tie"),
            (["lose", "lose", "tie", "win"], "lose"),
            (["win", "lose", "tie"], "tie"),
        ],
    )
    def test_the_majority_decides(self, cast: list[Outcome], outcome: str) -> None:
        ((_, judged, votes),) = merge_votes(MATCHES, {str(n): {1: one} for n, one in enumerate(cast)})
        assert judged.outcome == outcome
        assert list(votes.values()) == cast

    def test_answers_that_are_the_same_are_a_tie_without_votes(self) -> None:
        ((_, judged, votes),) = merge_votes([match(1, "x", "x"), match(2)], {})
        assert (judged.outcome, votes) == ("tie", {})

    @pytest.mark.parametrize(
        ("lines", "told"),
        [
            ([{"voter": "ann"}], ":1: is not a vote"),
            ([vote(match(1), "win") | {"vote": "both"}], ":1: is not a vote"),
            ([vote(match(1), "win"), vote(match(1, "other"), "win")], ":2: pair: .* none of these files"),
            ([vote(match(1), "win"), vote(match(1), "lose")], ":2: voter: 'ann' has voted on this pair before"),
            ([vote(match(1), "win") | {"seed": 2**53}], ":1: seed: must be 0 to 9007199254740991"),
            ([[]], ":1: must be a JSON object"),
        ],
    )
    def test_what_is_no_vote_is_named(self, tmp_path: Path, lines: list[Any], told: str) -> None:
        with pytest.raises(InputError, match=told):
            read_votes([saved(tmp_path / "v", *lines)], MATCHES)

    def test_a_voter_may_save_twice(self, tmp_path: Path) -> None:
        half = saved(tmp_path / "half", vote(MATCHES[0], "win"))
        whole = saved(tmp_path / "whole", vote(MATCHES[0], "win"), vote(MATCHES[1], "tie"))
        assert read_votes([half, whole], MATCHES) == {"ann": {1: "win", 2: "tie"}}


def voted(judged: Judged, *, by: int = 1) -> Merged:
    """A match that so many people voted on."""
    return match(1), judged, {str(number): judged.outcome for number in range(by)}


class TestAgreement:
    def test_kappa_is_cohens(self) -> None:
        """The example of many textbooks: 20 and 15 alike of 50, 5 and 10 not; kappa 0.4."""
        cells: list[tuple[Outcome, Outcome, int]] = [
            ("win", "win", 20),
            ("win", "lose", 5),
            ("lose", "win", 10),
            ("lose", "lose", 15),
        ]
        pairs = [(one, other) for one, other, count in cells for _ in range(count)]
        voters = {name: {n: pair[side] for n, pair in enumerate(pairs)} for side, name in enumerate("ab")}
        (found,) = agreements(voters, [], None)
        assert found.n == 50
        assert found.share == pytest.approx(0.7)
        assert found.kappa == pytest.approx(0.4)
        assert found.told() == "among people: 70 % of 50 the same, Cohen's kappa 0.40"

    def test_people_and_model_meet_by_id_whichever_side_comes_first(self) -> None:
        def judged(record_id: str, outcome: Outcome, swapped: bool = False) -> Judged:
            first, second = ("b", "a") if swapped else ("a", "b")
            return Judged(record_id, first, second, outcome, (), (1, 1))

        people = [voted(judged("x", "win")), voted(judged("y", "lose"))]
        people += [voted(judged("z", "tie")), voted(judged("w", "win"))]
        model = [judged("x", "win"), judged("y", "win", swapped=True), judged("z", "unparsable"), judged("v", "tie")]
        _, found = agreements({}, people, model)
        assert (found.between, found.n, found.share, found.kappa) == ("people and model", 2, 1.0, 1.0)

    def test_answers_that_are_the_same_are_no_agreement_as_nobody_was_asked(self) -> None:
        outcomes: list[Outcome] = ["win", "win", "lose", "lose"]
        matches = [match(number) for number in range(1, 5)] + [match(number, "x", "x") for number in range(5, 25)]
        merged = merge_votes(matches, {"ann": dict(enumerate(outcomes, 1))})
        assert len(merged) == len(matches)
        model = [Judged(one.id, "ours", "theirs", "win", (), (1, 1)) for one in matches[:4]]
        model += [Judged(one.id, "ours", "theirs", "tie", (), (1, 1)) for one in matches[4:]]
        _, found = agreements({"ann": {}}, merged, model)
        assert (found.n, found.share, found.kappa) == (4, 0.5, 0.0)

    def test_where_chance_agrees_on_all_there_is_no_kappa(self) -> None:
        (found,) = agreements({"a": {1: "win"}, "b": {1: "win"}}, [], None)
        assert (found.share, found.kappa) == (1.0, None)


# Votes by keyboard and mouse as a person would, then saves; what is saved becomes the title.
DRIVER = """
  const said = [];
  const press = key => document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  const text = id => document.getElementById(id).textContent;
  const create = URL.createObjectURL;
  HTMLAnchorElement.prototype.click = () => {};  // a download keeps a browser without a window from ending
  URL.createObjectURL = blob => {
    blob.text().then(lines => { document.title = JSON.stringify({ said, lines }); });
    return create(blob);
  };
  press("s");
  said.push(text("told"), document.activeElement.id);
  const voter = document.getElementById("voter");
  voter.value = "Ann Example";
  voter.dispatchEvent(new KeyboardEvent("keydown", { key: "1", bubbles: true }));
  voter.blur();
  said.push(text("count"));
  const seesGoodLeft = () => text("left").startsWith("good");
  for (let n = 0; n < 6; n++) press(seesGoodLeft() ? "ArrowLeft" : "2");
  press("0");
  document.querySelector(`[data-vote=${seesGoodLeft() ? "right" : "left"}]`).click();
  said.push(text("told"));
  press("p"); press("p"); press("n");
  said.push(text("count"), document.querySelector("[aria-pressed=true]").dataset.vote !== "tie");
  press("s");
  said.push(text("told"));
"""


@in_browser
def test_votes_cast_in_a_browser_are_merged(lalign: Lalign, browse: Callable[[Path], str]) -> None:  # noqa: F811
    folder = lalign.folder
    for name, said in (("ours", "good"), ("theirs", "bad")):
        saved(folder / f"{name}.jsonl", *({"id": f"q{n}", "prompt": "?", "response": f"{said} {n}"} for n in range(8)))
    done = lalign("judge", "ours.jsonl", "theirs.jsonl", "--page", "p.html")
    assert done.status == 0, done.err
    assert "8 pairs to p.html" in done.err
    text = (folder / "p.html").read_text()
    nonce = re.search(r'<script nonce="(\w+)"', text)
    assert nonce is not None
    (folder / "p.html").write_text(text.replace("</body>", f'<script nonce="{nonce[1]}">{{{DRIVER}}}</script></body>'))
    document = browse(folder / "p.html")
    assert "CONSOLE" not in document
    title = re.search(r"<title>(.*?)</title>", document)
    assert title is not None
    found = json.loads(title[1])
    assert found["said"] == [
        *["Your name first.", "voter", "Pair 1 of 8, 0 voted on", "All are voted on. Save the votes."],
        *["Pair 7 of 8, 8 voted on", False, "8 votes saved to votes-Ann-Example.jsonl."],
    ]
    (folder / "ann.jsonl").write_text(found["lines"])
    votes = [json.loads(line) for line in found["lines"].splitlines()]
    saved(folder / "bob.jsonl", *(one | {"voter": "Bob"} for one in votes[:4]))
    done = lalign(
        *["judge", "ours.jsonl", "theirs.jsonl", "--votes", "ann.jsonl", "--votes", "bob.jsonl"],
        *["-o", "people.jsonl", "--summary", "s.json"],
    )
    assert done.status == 0, done.err
    records = [json.loads(line) for line in (folder / "people.jsonl").read_text().splitlines()]
    assert sorted(record["outcome"] for record in records) == ["lose", "tie", *["win"] * 6]
    assert records[0]["votes"]["Ann Example"] in ("win", "tie", "lose")
    assert json.loads((folder / "s.json").read_text())["agreement"][0]["share"] == 1.0
    done = lalign(
        *["judge", "ours.jsonl", "theirs.jsonl", "--votes", "ann.jsonl", "--compare", "people.jsonl"],
    )
    assert "people and model: 100 % of 8 the same, Cohen's kappa 1.00" in done.err


@in_browser
def test_a_browser_shows_hostile_text_as_it_is(tmp_path: Path, browse: Callable[[Path], str]) -> None:  # noqa: F811
    write_ballot(tmp_path / "p.html", [match(1, HOSTILE, "bad")], 0)
    document = browse(tmp_path / "p.html")
    assert "<title>Which answer" in document
    assert "&lt;b&gt;bold&lt;/b&gt; \\x1b[31m 1" in document
    assert "<b>bold" not in document.split("<script type")[0]

"""An endpoint that answers, has enough, breaks off, keeps silent or talks nonsense; no test waits."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest
from scripted_endpoint import Act, Raw, Script, ScriptedEndpoint, Silence, Status, completion, scripted_endpoint

from lalign.asking.chats import Chat, Reply, Unanswered, user_chat
from lalign.asking.endpoint import MOST_SECONDS, Endpoint, EndpointOptions, Refused, RequestsSpent
from lalign.errors import OptionError

Answers = dict[str, Reply | Unanswered]


def ask(endpoint: ScriptedEndpoint, texts: list[str], **options: Any) -> tuple[Answers, list[float]]:
    """The replies by text, and how long it would have been waited between attempts."""
    waits: list[float] = []
    given = {"retries": 3, "timeout": 20.0, **options}
    asker = Endpoint(EndpointOptions(endpoint.url, "m", **given), pause=waits.append)
    chats = [user_chat(text) for text in texts]
    return {chat.messages[0].content: reply for chat, reply in asker.ask(chats, lambda: False)}, waits


def once(act: Act, then: str = "fine") -> Script:
    """Does `act` at the first time of asking."""
    return lambda text, before: then if before else act


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def test_each_chat_gets_its_reply() -> None:
    with scripted_endpoint(lambda text, before: f"re: {text}") as endpoint:
        replies, _ = ask(endpoint, [f"q{number}" for number in range(20)], concurrency=4)
    assert replies == {f"q{number}": Reply(f"re: q{number}") for number in range(20)}
    assert sorted(endpoint.texts) == sorted(replies)


def test_what_is_sent_is_the_messages_the_model_the_body_and_the_key() -> None:
    with scripted_endpoint(once("ok", "ok")) as endpoint:
        ask(endpoint, ["hello"], body={"temperature": 0.5, "top_k": 3}, api_key="secret")
    assert endpoint.bodies == [
        {"model": "m", "messages": [{"role": "user", "content": "hello"}], "temperature": 0.5, "top_k": 3}
    ]
    assert endpoint.headers[0]["authorization" if "authorization" in endpoint.headers[0] else "Authorization"] == (
        "Bearer secret"
    )


@pytest.mark.parametrize(
    "act",
    [Status(429), Status(500), Status(503), Status(408), Raw(completion("x" * 500), sent=20)],
    ids=["rate limit", "error", "overloaded", "request timeout", "broken off"],
)
def test_what_may_pass_is_tried_again(act: Act) -> None:
    with scripted_endpoint(once(act)) as endpoint:
        replies, waits = ask(endpoint, ["q"])
    assert replies == {"q": Reply("fine")}
    assert len(endpoint.bodies) == 2
    assert len(waits) == 1
    assert 0.3 <= waits[0] <= 0.5


def test_a_slow_answer_is_asked_for_again() -> None:
    with scripted_endpoint(once(Silence())) as endpoint:
        replies, _ = ask(endpoint, ["q"], timeout=0.2)
    assert replies == {"q": Reply("fine")}
    assert len(endpoint.bodies) == 2


def test_waits_grow_and_are_what_the_server_asks_for() -> None:
    def script(text: str, before: int) -> Act:
        acts: list[Act] = [Status(500), Status(500), Status(429, {"retry-after": "7"}), "fine"]
        return acts[before]

    with scripted_endpoint(script) as endpoint:
        _, waits = ask(endpoint, ["q"])
    assert waits[0] < waits[1] <= 1
    assert waits[2] == 7
    with scripted_endpoint(once(Status(429, {"retry-after": "86400"}))) as endpoint:
        assert ask(endpoint, ["q"])[1] == [MOST_SECONDS]


@pytest.mark.parametrize(
    ("act", "type"),
    [
        (Status(400, message="too long"), "bad_request"),
        (Raw(b"<html>gateway</html>"), "not_a_completion"),
        (Raw(b'{"choices": []}'), "not_a_completion"),
        (Raw(b'{"choices": [{"message": {"content": null}, "finish_reason": "length"}]}'), "empty_reply"),
        (Raw(b'{"choices": [{"message": {"content": null, "refusal": "I will not"}}]}'), "refused"),
    ],
)
def test_nonsense_is_no_reply_and_is_not_asked_for_again(act: Act, type: str) -> None:
    with scripted_endpoint(lambda text, before: act if text == "bad" else "fine") as endpoint:
        replies, _ = ask(endpoint, ["bad", "good"])
    reply = replies["bad"]
    assert isinstance(reply, Unanswered)
    assert reply.type == type
    assert replies["good"] == Reply("fine")
    assert len(endpoint.bodies) == 2


def test_errors_that_stay_are_told_of_the_chat() -> None:
    with scripted_endpoint(lambda text, before: Status(500) if text == "bad" else "fine") as endpoint:
        replies, _ = ask(endpoint, ["bad", "good"], retries=2)
    assert [getattr(replies[text], "type", None) for text in ("bad", "good")] == ["server_error", None]
    assert endpoint.texts.count("bad") == 3


@pytest.mark.parametrize(
    ("act", "attempts"),
    [
        (Status(401), 1),
        (Status(404, message="no such model"), 1),
        (Status(429, type="insufficient_quota"), 1),
        (Status(429), 3),
    ],
)
def test_an_endpoint_that_will_not_answer_ends_it(act: Status, attempts: int) -> None:
    with scripted_endpoint(lambda text, before: act) as endpoint:
        with pytest.raises(Refused, match=act.message):
            ask(endpoint, ["a", "b", "c"], retries=2, concurrency=1)
        assert len(endpoint.bodies) == attempts


def test_an_endpoint_that_is_not_there_ends_it() -> None:
    with scripted_endpoint(lambda text, before: "fine") as endpoint:
        pass
    with pytest.raises(Refused, match="2 attempts"):
        ask(endpoint, ["q"], retries=1)


def test_no_more_requests_are_made_than_allowed_and_what_came_is_given() -> None:
    got: list[tuple[str, Reply | Unanswered]] = []
    with scripted_endpoint(lambda text, before: Status(500) if text == "a" and not before else "fine") as endpoint:
        asker = Endpoint(EndpointOptions(endpoint.url, "m", max_requests=3, concurrency=1), pause=lambda seconds: None)
        replies = asker.ask([user_chat(text) for text in "abcd"], lambda: False)
        got += [(chat.messages[0].content, reply) for chat, reply in islice(replies, 2)]
        with pytest.raises(RequestsSpent, match="--max-requests"):
            next(replies)
    assert got == [("a", Reply("fine")), ("b", Reply("fine"))]
    assert len(endpoint.bodies) == 3


def test_once_stopped_nothing_new_is_asked_and_what_is_under_way_comes_back() -> None:
    stop: list[Chat] = []
    with scripted_endpoint(lambda text, before: "fine") as endpoint:
        asker = Endpoint(EndpointOptions(endpoint.url, "m", concurrency=2))
        for chat, _ in asker.ask([user_chat(str(number)) for number in range(50)], lambda: bool(stop)):
            stop.append(chat)
    assert len(stop) == len(endpoint.bodies) <= 3


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"url": "localhost:1"}, "url"),
        ({"concurrency": 0}, "concurrency"),
        ({"retries": -1}, "retries"),
        ({"timeout": 0}, "timeout"),
        ({"max_requests": 0}, "max_requests"),
    ],
)
def test_options_out_of_range_are_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(OptionError, match=named):
        EndpointOptions(**{"url": "http://x", "model": "m", **options})


def test_the_key_is_not_shown() -> None:
    make: Callable[..., EndpointOptions] = EndpointOptions
    assert "secret" not in repr(make("http://x", "m", api_key="secret"))
    with scripted_endpoint(lambda text, before: "fine") as endpoint:
        assert "secret" not in repr(Endpoint(make(endpoint.url, "m", api_key="secret")).fingerprint())

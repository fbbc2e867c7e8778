"""Asking an OpenAI-compatible endpoint: several requests at a time, retries with back-off, a limit on requests."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

from lalign import validation
from lalign.asking.chats import Chat, Reply, Stopped, Unanswered, as_json
from lalign.asking.completions import completion_reply
from lalign.errors import LalignError, OptionError, first_line

# Of a wait, however long the server asks for.
MOST_SECONDS = 120.0
FIRST_SECONDS = 0.5
# How often it is looked whether to stop, while requests are out.
LOOK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class EndpointOptions:
    """Where to ask, and how.

    body: what goes into each request besides the messages, by OpenAI's names.
    concurrency: requests at a time. retries: of one request. timeout: seconds for one attempt.
    max_requests: attempts at the most, retries among them; None for no limit.

    Raises `OptionError` for a value out of range.
    """

    url: str
    model: str
    api_key: str | None = field(default=None, repr=False)
    body: Mapping[str, Any] = field(default_factory=dict)
    concurrency: int = 8
    retries: int = 5
    timeout: float = 120.0
    max_requests: int | None = None

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise OptionError("url", f"must begin with http:// or https://, not {self.url!r}")
        validation.integer("concurrency", self.concurrency, low=1)
        validation.integer("retries", self.retries, low=0)
        validation.number("timeout", self.timeout, above=0)
        if self.max_requests is not None:
            validation.integer("max_requests", self.max_requests, low=1)


class Refused(LalignError):
    """The endpoint will answer no request, so that nothing is gained by asking on."""


class RequestsSpent(LalignError):
    """As many requests were made as the user allows."""


class Endpoint:
    """An endpoint to be asked once.

    Args:
        options: where and how.
        pause: waits for so many seconds between attempts, or until the endpoint is halted.

    Attributes:
        requests: attempts made so far.

    Raises `LalignError` where the openai package is not installed.
    """

    def __init__(self, options: EndpointOptions, pause: Callable[[float], object] | None = None) -> None:
        self.options = options
        self.requests = 0
        self._openai = _openai()
        # Retries are made here, where they are counted and can be stopped.
        self._client = self._openai.OpenAI(
            base_url=options.url, api_key=options.api_key or "none", timeout=options.timeout, max_retries=0
        )
        self._lock = threading.Lock()
        self._halt = threading.Event()
        self._pause = pause or self._halt.wait

    def fingerprint(self) -> dict[str, Any]:
        """As `Asker.fingerprint`."""
        return {"url": self.options.url, "model": self.options.model, "body": dict(self.options.body)}

    def ask(self, chats: Iterable[Chat], stopped: Stopped) -> Iterator[tuple[Chat, Reply | Unanswered]]:
        """As `Asker.ask`. Raises `Refused` or `RequestsSpent` once what is under way has come back."""
        waiting = iter(chats)
        pending: dict[Future[Reply | Unanswered | None], Chat] = {}
        failure: LalignError | None = None
        with ThreadPoolExecutor(self.options.concurrency) as pool:
            try:
                while True:
                    if stopped():
                        self._halt.set()
                    while len(pending) < self.options.concurrency and not self._halt.is_set():
                        if (chat := next(waiting, None)) is None:
                            break
                        pending[pool.submit(self._answer, chat)] = chat
                    if not pending:
                        break
                    done, _ = wait(pending, LOOK_SECONDS, FIRST_COMPLETED)
                    for future in done:
                        chat = pending.pop(future)
                        try:
                            reply = future.result()
                        except LalignError as error:
                            failure = failure or error
                            self._halt.set()
                        else:
                            if reply is not None:
                                yield chat, reply
            finally:
                self._halt.set()
        if failure is not None:
            raise failure

    def _answer(self, chat: Chat) -> Reply | Unanswered | None:
        """The reply to a chat, after as many attempts as it takes; None where it was told to halt."""
        for attempt in range(self.options.retries + 1):
            if self._halt.is_set():
                return None
            self._count()
            try:
                return self._reply(chat)
            except self._openai.APIError as error:
                refusal = self._given_up(error, last=attempt == self.options.retries)
                if refusal is not None:
                    return refusal
                self._pause(_seconds(error, attempt))
        return None

    def _count(self) -> None:
        with self._lock:
            most = self.options.max_requests
            if most is not None and self.requests >= most:
                raise RequestsSpent(f"{most} requests were made, which is what --max-requests allows")
            self.requests += 1

    def _reply(self, chat: Chat) -> Reply | Unanswered:
        # The body as it comes, since servers that are only compatible leave out fields that OpenAI's own has.
        raw = self._client.chat.completions.with_raw_response.create(
            model=self.options.model, messages=as_json(chat), extra_body=dict(self.options.body)
        )
        return completion_reply(raw.http_response.content)

    def _given_up(self, error: Any, *, last: bool) -> Unanswered | None:
        """What becomes of a chat after an error: None to try again. Raises `Refused`."""
        told = first_line(error)
        status = getattr(error, "status_code", None)
        if status in (401, 403, 404) or getattr(error, "code", None) == "insufficient_quota":
            raise Refused(f"{self.options.url}: refuses to answer: {told}")
        if isinstance(error, self._openai.APITimeoutError):
            return Unanswered("timeout", f"no reply within {self.options.timeout:g} s") if last else None
        if status == 429 or isinstance(error, self._openai.APIConnectionError):
            if last:
                raise Refused(f"{self.options.url}: {told} (after {self.options.retries + 1} attempts)")
            return None
        if status in (408, 409) or (status or 0) >= 500:
            return Unanswered("server_error", told) if last else None
        return Unanswered("bad_request", told)


def _seconds(error: Any, attempt: int) -> float:
    """How long to wait: what the server asks for, else twice as long each time, a part of it random."""
    response = getattr(error, "response", None)
    try:
        asked = float(response.headers.get("retry-after", "")) if response is not None else None
    except ValueError:
        asked = None
    if asked is not None and asked >= 0:
        return min(asked, MOST_SECONDS)
    return min(FIRST_SECONDS * 2.0**attempt, MOST_SECONDS) * random.uniform(0.75, 1.0)


def _openai() -> Any:
    try:
        import openai
    except ImportError:
        raise LalignError("asking an endpoint needs the openai package: pip install 'lalign[judge]'") from None
    return openai

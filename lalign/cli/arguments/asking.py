"""Which model is asked, and how: by the commands that put questions of their own to one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from lalign.cli.arguments.declaring import ASK, option


@dataclass(frozen=True, slots=True)
class AskArguments:
    """Who is asked: a local model, where no other is named; an endpoint; or files in OpenAI's Batch form."""

    url: Annotated[
        str | None,
        option(
            "An OpenAI-compatible endpoint to ask, in place of a local model: https://api.openai.com/v1.",
            ASK,
            "--judge-url",
            "--url",
            metavar="URL",
        ),
    ] = None
    asked_model: Annotated[
        str | None,
        option(
            "The endpoint's model, or that of --write-requests.", ASK, "--judge-model", "--url-model", metavar="NAME"
        ),
    ] = None
    key_variable: Annotated[
        str, option("The environment variable that holds the endpoint's key, if it wants one.", ASK, metavar="NAME")
    ] = "OPENAI_API_KEY"
    temperature: Annotated[float | None, option("0 is greedy; above 0 samples.", ASK, default="0; construct 1")] = None
    max_new_tokens: Annotated[
        int | None,
        option("Tokens of a reply at the most, >= 1.", ASK, default="512; construct questions 2048"),
    ] = None
    request_options: Annotated[
        str | None,
        option(
            'More for the body of a request, a JSON object; null takes out: {"max_tokens": null}.',
            ASK,
            metavar="JSON",
        ),
    ] = None
    concurrency: Annotated[int, option("Requests to the endpoint at a time, >= 1.", ASK)] = 8
    retries: Annotated[int, option("Further attempts at a request that failed, with growing waits, >= 0.", ASK)] = 5
    timeout: Annotated[float, option("Seconds for one attempt, above 0.", ASK)] = 120.0
    max_requests: Annotated[
        int | None, option("End after this many requests of this run, retries among them, >= 1.", ASK, default="all")
    ] = None
    write_requests: Annotated[
        Path | None,
        option("Ask nobody: write all requests in OpenAI's Batch form.", ASK, metavar="FILE"),
    ] = None
    read_responses: Annotated[
        list[Path] | None,
        option(
            "Read what came of those requests, the Batch output. Several times for several files.", ASK, metavar="FILE"
        ),
    ] = None

"""What a model is aligned to, and how far."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, get_args

from lalign.cli.arguments.declaring import PRINCIPLE, flag, option
from lalign.method.linear_alignment import Anchor, Direction, Scale
from lalign.method.recipe import Support
from lalign.method.recipes import RECIPES
from lalign.options import Placement


@dataclass(frozen=True, slots=True)
class AlignmentArguments:
    """What the model is aligned to, and how far."""

    principle: Annotated[
        list[Path] | None,
        option(
            "File with the principle in plain text. Several times for several principles.", PRINCIPLE, metavar="FILE"
        ),
    ] = None
    principle_text: Annotated[
        list[str] | None,
        option(
            "The principle itself. Several times likewise; counted after those of files.", PRINCIPLE, metavar="TEXT"
        ),
    ] = None
    weight: Annotated[
        list[float] | None,
        option("Weight of each principle, in the same order; any finite number.", PRINCIPLE, default="1 each"),
    ] = None
    against: Annotated[
        list[Path] | None,
        option(
            "File with a text to move away from. Several times for several, which share a weight of -1.",
            PRINCIPLE,
            metavar="FILE",
        ),
    ] = None
    contrast: Annotated[
        Path | None,
        option("File with a text for the base twin (harmful, against harmless).", PRINCIPLE, metavar="FILE"),
    ] = None
    system: Annotated[
        Path | None,
        option("File with the system message both twins share, where a record has none.", PRINCIPLE, metavar="FILE"),
    ] = None
    placement: Annotated[
        str,
        option(
            "joined: behind the system text; replace: in place of the template's default; user: in the last user turn.",
            PRINCIPLE,
            choices=get_args(Placement),
        ),
    ] = "joined"
    chat_template_kwargs: Annotated[
        str | None,
        option(
            'Variables for the chat template, a JSON object: {"enable_thinking": false}.', PRINCIPLE, metavar="JSON"
        ),
    ] = None
    allow_special_tokens: Annotated[
        bool,
        flag(
            "Let the text of a special token, in a record or principle, become that token.",
            PRINCIPLE,
            "--allow-special-tokens",
        ),
    ] = False
    recipe: Annotated[
        str,
        option(
            f"The method: {', '.join(RECIPES)}. `lalign recipes` says what each is.",
            PRINCIPLE,
            metavar="NAME",
            choices=RECIPES,
        ),
    ] = "lalign"
    ratio: Annotated[
        float | None,
        option(
            "Strength, >= 0. In lalign 0 is the base model, 1 the principle as a prompt, above 1 beyond it.",
            PRINCIPLE,
            default="1.5; others `lalign recipes`",
        ),
    ] = None
    p: Annotated[
        float | None,
        option("Norm of the trust region, 1 to inf: from one token to all alike.", PRINCIPLE, default="2.0"),
    ] = None
    scale: Annotated[
        str | None,
        option(
            "What the ratio counts. relative: the principle's own shift; absolute: Eq. 10 to the letter; "
            "norm: the step's p-norm; kl: nothing, each step diverges by --kl (which says this).",
            PRINCIPLE,
            default="relative; paper absolute",
            choices=get_args(Scale),
        ),
    ] = None
    kl: Annotated[
        float | None,
        option(
            "Make each step as long as it takes for KL(aligned || base) to be this, nats.",
            PRINCIPLE,
            default="off",
        ),
    ] = None
    direction: Annotated[
        str | None,
        option(
            "logits or probabilities: whose difference the step goes along.",
            PRINCIPLE,
            default="logits; paper probabilities",
            choices=get_args(Direction),
        ),
    ] = None
    anchor: Annotated[
        str | None,
        option(
            "base or principle: the logits that the step is added to.",
            PRINCIPLE,
            default="base; released principle",
            choices=get_args(Anchor),
        ),
    ] = None
    support: Annotated[
        str | None,
        option(
            "principle: only tokens in the nucleus of the principled twin; none: all.",
            PRINCIPLE,
            default="principle; paper, others none",
            choices=get_args(Support),
        ),
    ] = None
    support_top_p: Annotated[
        float | None, option("Mass of that nucleus, above 0 and at most 1.", PRINCIPLE, default="0.8")
    ] = None
    support_temperature: Annotated[
        float | None, option("Temperature of that nucleus, above 0.", PRINCIPLE, default="0.5")
    ] = None
    max_kl: Annotated[
        float | None,
        option("Shrink each step until KL(aligned || base) is at most this, nats.", PRINCIPLE, default="no limit"),
    ] = None
    kl_total: Annotated[
        float | None,
        option(
            "Budget of a response in nats: a step takes at most what is left, shared among the tokens to come.",
            PRINCIPLE,
            default="no limit",
        ),
    ] = None

"""`tailrace doctor --continuation MODEL`: tries whether a model server continues a partial answer.

Asks for a short answer at temperature 0, cuts it in two places, and asks the server in each form
to continue. A join that has the text of the uncut answer proves that the form holds. The result is
stored in Redis, where workers read it (shared/queue/continuations.py). One request of 32 tokens,
and two of 8 for each form. `find_cuts` and `judge_form` are pure.

The cuts are between pieces of the server, before white space: there the model's tokens of both
parts are those of the whole. Elsewhere the same text may consist of other tokens, and a server that
continues would be misjudged.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import aclosing

from cli.finding import Finding
from cli.up.private_server import running_url
from shared.config.models import Model, load_models
from shared.config.settings import Settings
from shared.errors import BackendError, ConfigurationError, Unavailable
from shared.log.events import Token
from shared.log.request import Request
from shared.queue.continuations import HOLDING, Outcome, Verdict, store_verdict
from shared.redis.client import clock_ms
from shared.redis.connections import connect
from workers.backends import Backend, build_backends
from workers.backends.contract import SetUpFault

PROMPT = "Which fruits do you know? Begin with one sentence, then list five, one on each line."
ANSWER_TOKENS = 32
CONTINUATION_TOKENS = 8
PREFIX_PIECES_MIN = CONTINUATION_TOKENS + 2  # a new answer must not reach the cut, as an echo does
EQUAL_CHARS = 12  # so many equal characters behind the cut, or all of them, prove a continuation
ANSWER_S = 60.0  # for one answer of the server


class TrialImpossible(Exception):
    """The server gave no answer that can be cut; the text says why."""


def find_cuts(pieces: Sequence[str]) -> list[int]:
    """Return the lengths at which to cut the answer that came in these pieces: one or two.

    The first cut is before a space, the second before the end of a line, if there is one.
    """
    found: dict[bool, int] = {}
    length = 0
    for number, piece in enumerate(pieces):
        is_late = number >= min(PREFIX_PIECES_MIN, len(pieces) // 2)
        has_rest = number < len(pieces) - 2
        before = "".join(pieces[:number])
        if is_late and has_rest and piece[:1].isspace() and before.rstrip() == before != "":
            found.setdefault(piece[0] in "\r\n", length)
        length += len(piece)
    return sorted(found.values())


def judge_form(answer: str, cut: int, continuation: str) -> Outcome:
    """Judge one continuation.

    Args:
        answer: the uncut answer.
        cut: its length that the server got.
        continuation: what the server sent then.
    """
    prefix, rest = answer[:cut], answer[cut:]
    if _begins_alike(continuation, rest):
        return "continues"
    said = continuation.lstrip()
    if said.startswith(prefix.strip()):
        return "echoes"
    if _begins_alike(said, answer.lstrip()):
        return "begins anew"
    return "changes white space" if _begins_alike(said, rest.lstrip()) else "other"


def _begins_alike(one: str, other: str) -> bool:
    least = min(len(one), len(other), EQUAL_CHARS)
    return bool(least) and one[:least] == other[:least]


def doctor_continuation(settings: Settings, name: str) -> list[Finding]:
    """Try a model of the models file and store what was seen.

    Raises:
        ConfigurationError: no such model, or its table cannot be used.
    """
    models = load_models(settings.models)
    if name not in models:
        raise ConfigurationError(
            f"no model {name!r} in the models file: it has {', '.join(models)}"
        )
    model = models[name]
    if model.route is not None:
        text = f"{name}: is a route: try its backends {', '.join(model.route.backends)}"
        return [Finding("ok", "continue", text)]
    if model.kind.continues_always:
        text = f"{name}: models of the kind {model.backend} always continue"
        return [Finding("ok", "continue", text)]
    if not model.kind.styles:
        text = f"{name}: models of the kind {model.backend} have no form of continuation to try"
        return [Finding("ok", "continue", text)]
    logging.getLogger("workers").addHandler(logging.NullHandler())  # the findings say it
    return asyncio.run(examine_continuation(settings, model, os.environ))


async def examine_continuation(
    settings: Settings, model: Model, environ: Mapping[str, str]
) -> list[Finding]:
    """Try one model; return a finding for each form, and one about the result.

    Args:
        environ: holds the variables that the models file names.

    Raises:
        ConfigurationError: such a variable is missing.
    """
    backend = build_backends({model.name: model}, settings, environ)[model.name]
    try:
        forms = await try_forms(backend, model.kind.styles)
    except (BackendError, TrialImpossible, TimeoutError) as exc:
        why = str(exc) or f"no answer within {ANSWER_S:.0f} s"
        if isinstance(exc, SetUpFault):
            why = f"{why}: {exc.advice}"
        return [Finding("FAIL", "continue", f"{model.name}: {why}: nothing was stored")]
    finally:
        await backend.aclose()
    findings = [
        Finding("ok" if outcome in HOLDING else "warn", "form", f"{form}: {outcome}")
        for form, outcome in forms.items()
    ]
    return [*findings, await _store(settings, model, forms)]


async def try_forms(backend: Backend, styles: Sequence[str]) -> dict[str, Outcome]:
    """Return how the server answers each form.

    Raises:
        BackendError: the server cannot be asked.
        TrialImpossible: its answer cannot be cut.
        TimeoutError: an answer took longer than `ANSWER_S`.
    """
    pieces = await _ask(backend, ANSWER_TOKENS)
    answer, cuts = "".join(pieces), find_cuts(pieces)
    if not answer:
        raise TrialImpossible("no text in the answer: turn thinking off, see docs/models.md")
    if not cuts:
        raise TrialImpossible(f"the answer has no place to cut: {answer[:80]!r}")
    outcomes: dict[str, Outcome] = {}
    for form in styles:
        for cut in cuts:
            outcome = await _try_form(backend, form, answer, cut)
            if outcomes.get(form, "continues") in HOLDING:
                outcomes[form] = outcome  # the worse of the cuts counts
    return outcomes


async def _try_form(backend: Backend, form: str, answer: str, cut: int) -> Outcome:
    try:
        pieces = await _ask(backend, CONTINUATION_TOKENS, prefix=answer[:cut], form=form)
    except BackendError as exc:
        if exc.code != "upstream_refused":
            raise
        return "refuses"
    return judge_form(answer, cut, "".join(pieces))


async def _ask(backend: Backend, tokens: int, *, prefix: str = "", form: str = "") -> list[str]:
    """Return the pieces of the text of one answer."""
    messages = [{"role": "user", "content": PROMPT}]
    request = Request(messages, {"temperature": 0, "max_tokens": tokens})
    pieces: list[str] = []
    async with asyncio.timeout(ANSWER_S):
        stream = backend.stream(request, prefix=prefix, seed="doctor", form=form)
        async with aclosing(stream):
            async for items in stream:
                pieces += [item.text for item in items if isinstance(item, Token) and item.text]
    return pieces


async def _store(settings: Settings, model: Model, forms: dict[str, Outcome]) -> Finding:
    verdict = Verdict(model=model.upstream_name, forms=forms, at_ms=0)
    form = verdict.best_form(model.continue_style)
    said = f"answers are continued in the form {form}" if form else "answers begin again"
    url = settings.redis_url or running_url(settings.data_dir)
    if not url:
        advice = "set TAILRACE_REDIS_URL, or start `tailrace up` first, and try again"
        return Finding("warn", "continue", f"{model.name}: {said}, but it was not stored: {advice}")
    redis = connect(settings, url=url)
    try:
        at_ms = await clock_ms(redis)
        await store_verdict(redis, model, Verdict(model=verdict.model, forms=forms, at_ms=at_ms))
    except Unavailable as exc:
        return Finding("FAIL", "continue", f"{model.name}: not stored: {exc}: check Redis")
    finally:
        await redis.aclose()
    if model.on_takeover == "continue" and form != model.continue_style:
        advice = 'set on_takeover = "auto", or another `continue_style`'
        text = f"{model.name}: {model.continue_style} does not hold: {advice}"
        return Finding("warn", "continue", text)
    if not model.may_continue:
        said += f", but the models file says {model.on_takeover}"
    return Finding("ok" if form else "warn", "continue", f"{model.name}: stored; {said}")

"""The findings of `tailrace doctor --continuation`: which form makes a server continue an answer.

The verdicts stand in one hash, which workers read from time to time. A verdict belongs to a server,
its model and the rules that change its requests, not to the name in the models file: another server
under the same name has to be tried anew. A verdict does not expire, because the guard at the seam
(workers/takeover/seam.py) notices a server that has changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Literal

import msgspec

from shared.config.models import DEFAULT_BACKEND, Model
from shared.redis import keys
from shared.redis.client import Client, translated

# How a server answered one form. With the first two the worker gives readers the whole text.
Outcome = Literal["continues", "echoes", "begins anew", "changes white space", "other", "refuses"]
HOLDING: tuple[Outcome, ...] = ("continues", "echoes")


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The finding about one model at one server.

    Attributes:
        model: the model's name at the server.
        forms: how the server answered each form that was tried.
        at_ms: when, Redis's clock.
    """

    model: str
    forms: dict[str, Outcome]
    at_ms: int

    def best_form(self, preferred: str) -> str:
        """Return a form that holds, the preferred one if it does; empty: none holds.

        A form in which the server echoes is the last choice.
        """
        forms = (preferred, *self.forms)
        held = (form for outcome in HOLDING for form in forms if self.forms.get(form) == outcome)
        return next(held, "")


_verdicts = msgspec.json.Decoder(Verdict)


def field_of(model: Model) -> str:
    """Return the field of a model's verdict: the same in every process with the same table."""
    rules = model.rules
    parts = [model.base_url, model.upstream_name, rules.omit, rules.rename, rules.set]
    if model.backend != DEFAULT_BACKEND:  # verdicts of this kind are older than the other kinds
        parts.append(model.backend)
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()[:40]


async def store_verdict(redis: Client, model: Model, verdict: Verdict) -> None:
    """Store a verdict in the place of an earlier one.

    Raises:
        Unavailable: Redis did not answer in time; repeating it is safe.
    """
    raw = msgspec.json.encode(verdict)
    with translated():
        await redis.hset(keys.CONTINUATIONS, field_of(model), raw)  # type: ignore[misc, arg-type]


async def read_verdicts(redis: Client, models: Iterable[Model]) -> dict[str, Verdict]:
    """Return the verdicts of these models, by the name in the models file.

    Raises:
        Unavailable: Redis did not answer in time; repeating it is safe.
    """
    asked = list(models)
    if not asked:
        return {}
    with translated():
        found = await redis.hmget(keys.CONTINUATIONS, [field_of(model) for model in asked])  # type: ignore[misc]
    verdicts = {}
    for model, raw in zip(asked, found, strict=True):
        if raw is None:
            continue
        try:
            verdicts[model.name] = _verdicts.decode(raw)
        except msgspec.MsgspecError:
            continue  # a newer version wrote this verdict
    return verdicts

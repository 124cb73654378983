"""How each backend of a route could go on with an answer, and in which order they are asked. Pure.

An answer in the log was written by one backend, its writer. Each backend either goes on behind the
text of the log, begins the answer (there is no text), or begins it anew (readers get `reset`).
A `reset` is the last choice, and `on_takeover = "fail"` allows none.
Source: docs/routing.md, "When a backend fails".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from shared.config.models import Model
from shared.errors import BackendError
from shared.log.records import Entry
from shared.log.request import Request
from workers.backends.background import BackgroundBackend
from workers.backends.contract import Backend, SetUpFault
from workers.backends.reading.failure import CONTEXT_TOO_LONG, NO_QUOTA
from workers.takeover.continuation import AttemptPlan, plan_attempt, writer_of
from workers.takeover.verdicts import Form

# How often one attempt asks the same backend. A connection may break although its server lives, so
# a backend that can go on is asked a second time, after all others.
ASKED_MAX, ASKED_MAX_GOING_ON = 1, 2
# A server of another model or of another account may take a request that this one refuses so.
OTHERS_MAY_TAKE = (CONTEXT_TOO_LONG, NO_QUOTA)
OWN_REFUSALS = (400, 409, 413, 415, 422)  # of the request: every server would refuse it


class Candidate(NamedTuple):
    """How one backend would go on.

    Attributes:
        plan: what the request asks for.
        form: in which the server is asked to continue.
    """

    name: str
    plan: AttemptPlan
    form: Form

    @property
    def has_part(self) -> bool:
        """Whether the backend goes on behind a part of the answer."""
        return bool(self.plan.prefix or self.plan.upstream_id)


class Plans:
    """The plans of the backends behind one log. Each different plan reads the log once."""

    def __init__(self, log: Sequence[Entry], request: Request) -> None:
        self._log, self._request = log, request
        self._writer = writer_of(log)
        self._found: dict[tuple[bool, bool], AttemptPlan] = {}

    def candidate(self, model: Model, backend: Backend, form: Form) -> Candidate:
        """Return how a backend would go on.

        Args:
            model: of the backend, as `member_model` returns it.
        """
        can_continue = backend.can_continue and model.may_continue and bool(form.name)
        # An answer that a server makes in the background goes on at this server only.
        can_attach = model.name == self._writer and isinstance(backend, BackgroundBackend)
        key = can_continue, can_attach
        if key not in self._found:
            self._found[key] = plan_attempt(
                self._log, self._request, model, can_continue=can_continue, can_attach=can_attach
            )
        return Candidate(model.name, self._found[key], form)


def ask_order(
    candidates: Iterable[Candidate], asked: Mapping[str, int], *, writer: str, may_reset: bool
) -> list[Candidate]:
    """Return the candidates that may be asked now, the best one first.

    A `reset` is the last choice: while any backend may go on, only these candidates are returned.

    Args:
        candidates: in the order of the policy, without those that are not to be asked again.
        asked: how often this attempt has asked each backend.
        writer: the backend that wrote the answer so far; it has this part in its cache.
        may_reset: whether readers may get a `reset`.
    """

    def is_at_home(candidate: Candidate) -> bool:
        return candidate.has_part and candidate.name == writer

    going_on, anew = [], []
    for candidate in candidates:
        times = asked.get(candidate.name, 0)
        if candidate.plan.can_hand_over:
            if times < (ASKED_MAX_GOING_ON if candidate.has_part else ASKED_MAX):
                going_on.append(candidate)
        elif may_reset and times < ASKED_MAX:
            anew.append(candidate)
    going_on.sort(key=lambda candidate: (asked.get(candidate.name, 0), not is_at_home(candidate)))
    return going_on or anew


def others_may_answer(error: BackendError) -> bool:
    """Whether another backend may answer the request after this failure."""
    if error.retryable or isinstance(error, SetUpFault):
        return True
    refusal = error.upstream
    if refusal is None:
        return error.code == "upstream_refused"
    return refusal.code in OTHERS_MAY_TAKE or refusal.status not in OWN_REFUSALS


def deciding_failure(failures: Sequence[BackendError]) -> BackendError:
    """Return the failure that decides what follows: a retry if any backend may answer later."""
    for error in reversed(failures):
        if error.is_outage:
            return error
    retryable = [error for error in failures if error.retryable]
    if not retryable:
        return failures[-1]
    return min(reversed(retryable), key=lambda error: error.retry_after_s or 0.0)

"""The names of one AG-UI run, and its first and last event. Pure.

A run is one generation. The client chooses the names of the run and of its thread; they are kept
with the request. Clients before AG-UI 1.0 name no `protocolVersion`. Their schemas know no outcome
`cancelled`, and they fail when they meet it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from shared.log.events import End
from shared.log.records import Meta
from shared.log.request import dialect_of

PROTOCOL_VERSION = "1.0"
# Members of Request.dialect.
THREAD, RUN, VERSION, STATE = "thread", "run", "version", "state"


@dataclass(frozen=True)
class Run:
    """The names of one run.

    Attributes:
        version: the protocol of the client that asked; empty: older than 1.0.
        keeps_state: `state` is the state that the client sent; False: it was too large to keep.
    """

    thread_id: str
    run_id: str
    version: str
    state: Any
    keeps_state: bool

    @staticmethod
    def of(meta: Meta) -> Run:
        """Return the run of a generation; another dialect's has names of the generation."""
        kept = dialect_of(meta)
        if RUN not in kept:
            thread_id = meta.session or meta.generation_id
            return Run(thread_id, meta.generation_id, PROTOCOL_VERSION, {}, keeps_state=True)
        state = kept.get(STATE)
        return Run(kept[THREAD], kept[RUN], kept.get(VERSION, ""), state, keeps_state=STATE in kept)

    def started(self) -> dict[str, Any]:
        version = {"protocolVersion": PROTOCOL_VERSION} if self.version else {}
        return {"type": "RUN_STARTED", **self._names, **version}

    def finished(self, end: End) -> dict[str, Any]:
        """Return RUN_FINISHED of an end that is no failure, without usage."""
        finished = {"type": "RUN_FINISHED", **self._names}
        if end.status == "completed":
            return {**finished, "result": {"finishReason": end.finish_reason}}
        if self.version:
            return {**finished, "outcome": {"type": "cancelled"}}
        return {**finished, "result": {"finishReason": "cancelled"}}

    @property
    def _names(self) -> dict[str, str]:
        return {"threadId": self.thread_id, "runId": self.run_id}


def run_key(thread_id: str, run_id: str) -> str:
    """Return the idempotency key of a run: the same run is never generated twice."""
    named = f"{len(thread_id)} {thread_id} {run_id}".encode("utf-8", "backslashreplace")
    return f"ag-ui:{hashlib.sha256(named).hexdigest()}"

"""The failures that several dialects report in the same words. Pure."""

from __future__ import annotations

from shared.log.events import Failure

# For a generation that ended as failed, with no reason in its log.
GENERATION_FAILED = Failure("upstream_error", "the generation failed", True)
# For a dialect that cannot take back what it has sent, after a `reset` in the log.
STREAM_RESET = Failure(
    "stream_reset", "the answer was begun anew and what was sent is void: ask again", True
)

"""A prompt as a dialect reads it, without a node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from api.intake.body import check_members
from api.intake.dialect_request import DialectRequest
from shared.config.models import load_models
from shared.config.settings import Settings
from shared.queue.accept import NewGeneration


def read_prompt(body: dict[str, Any], parse: Callable[..., DialectRequest]) -> NewGeneration:
    """Return what a node would accept for `body`; `parse` is the dialect's parser."""
    parsed = parse(body, grace_s=5.0)
    return check_members(
        body,
        parsed.request,
        owner="ann",
        models=load_models(""),
        settings=Settings(),
        grace_s=parsed.grace_s,
    ).encoded()

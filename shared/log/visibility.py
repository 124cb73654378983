"""The rule that decides which generations an owner may see.

A generation is visible to its owner, and to those whose token names its session. A sealed
generation (lost, or deleted) is visible to nobody. For the caller all other cases look like an
absent generation, so that an answer never says that another owner has a generation with this id.
Pure; knows no HTTP and no store.
"""

from __future__ import annotations

from typing import TypeGuard

from shared.config.credentials import Identity
from shared.log.records import Meta


def is_visible(meta: Meta | None, viewer: str | Identity) -> TypeGuard[Meta]:
    """Return whether the viewer may see this generation.

    Args:
        meta: the generation's meta as Redis or the node has it; None: there is no such generation.
        viewer: who asks; or an owner, who sees the own generations and no others.
    """
    if meta is None or meta.status == "sealed":
        return False
    if isinstance(viewer, str):
        return meta.owner == viewer
    return viewer.sees(meta.generation_id, meta.owner, meta.session)

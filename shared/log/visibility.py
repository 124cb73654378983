"""The rule that decides which generations an owner may see.

A generation is visible to its owner only. A sealed generation (lost, or deleted) is visible to
nobody. For the caller all other cases look like an absent generation, so that an answer never says
that another owner has a generation with this id. Pure; knows no HTTP and no store.
"""

from __future__ import annotations

from typing import TypeGuard

from shared.log.records import Meta


def is_visible(meta: Meta | None, owner: str) -> TypeGuard[Meta]:
    """Return whether `owner` may see this generation.

    Args:
        meta: the generation's meta as Redis or the node has it; None: there is no such generation.
        owner: the owner that the caller's credentials name.
    """
    return meta is not None and meta.owner == owner and meta.status != "sealed"

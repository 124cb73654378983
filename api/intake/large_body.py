"""Reads and encodes prompts of any size: small ones at once, large ones in steps.

Invariant: the result does not depend on the size. A body above `STEPPED_BYTES` is decoded and
encoded in slices of its long strings (api/intake/large_json.py, shared/text/large.py), a smaller
one in one step that has its turn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from api.intake.body import CheckedMembers, read_object, too_large
from api.intake.large_json import STEPPED_BYTES, Buffer, decode_large
from shared.queue.accept import NewGeneration
from shared.text.large import LargeWork


async def read_members(large: LargeWork, raw: Buffer, *, bytes_max: int) -> dict[str, Any]:
    """Return the members of a body, as `read_object` does.

    Raises:
        RequestError: as `read_object`.
    """
    if len(raw) > bytes_max:
        raise too_large(bytes_max)
    if len(raw) > STEPPED_BYTES:
        return read_object(await decode_large(raw), bytes_max=bytes_max)
    return await large.step(len(raw), lambda: read_object(bytes(raw), bytes_max=bytes_max))


async def generation_in_steps(
    large: LargeWork, size: int, check: Callable[[], CheckedMembers]
) -> NewGeneration:
    """Return the generation of the members that `check` has checked.

    Args:
        size: bytes of the body or frame.

    Raises:
        RequestError: of `check`.
    """
    if size <= STEPPED_BYTES:
        return await large.step(size, lambda: check().encoded())
    checked = await large.step(size, check)
    return await checked.encoded_in_steps()

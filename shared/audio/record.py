"""The bytes of an audio input in the record of its owner, and the end of the input.

An input has an entry of its own beside that of its generation (shared/log/owner_bytes.py), because
it is gone when the generation has ended. It is recorded in steps of `AUDIO_STEP_BYTES`, rounded up.
"""

from __future__ import annotations

from shared.config.settings import Settings
from shared.log import owner_bytes
from shared.log.owner_bytes import SCRIPT, GenerationBytes
from shared.redis import keys
from shared.redis.client import Client, translated
from shared.redis.pipeline import Call
from shared.redis.scripts import Scripts
from shared.redis.shards import serves

FIELD = "audio"  # of meta: the media type of the input
AUDIO_STEP_BYTES = 262_144  # growth of an input between two records
_GONE_MS = 1  # until an entry expires whose input is deleted


def audio_charge(owner: str, generation_id: str, size: int, settings: Settings) -> Call:
    """Return the call that records an input of `size` bytes; it returns the owner's sum."""
    rounded = -(-size // AUDIO_STEP_BYTES) * AUDIO_STEP_BYTES
    kept = GenerationBytes(owner, audio_entry(generation_id), rounded, 0)
    return owner_bytes.unfinished(kept, settings)


def serves_record(redis: Client, owner: str) -> bool:
    """Whether the shard of the owner's record answers. Without it nothing is counted."""
    return serves(redis, keys.owner_bytes(owner))


async def end_audio(scripts: Scripts, owner: str, generation_id: str) -> None:
    """Delete the input of a generation that has ended, and its record. May be repeated.

    How far the input had got stays in meta, for clients that ask after the end.

    Raises:
        Unavailable: Redis did not answer in time.
    """
    audio = keys.audio(generation_id)
    await scripts.run("audio_end", [keys.meta(generation_id), audio], [])
    with translated():
        await scripts.redis.unlink(audio)
    await scripts.run(
        SCRIPT, *owner_bytes.ended_unsized(owner, audio_entry(generation_id), _GONE_MS)
    )


def audio_entry(generation_id: str) -> str:
    """Return the name of an input in the record of its owner."""
    return f"{generation_id} audio"

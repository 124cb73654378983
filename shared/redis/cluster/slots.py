"""The slot of a key, of a script call and of a command. Pure.

Source: redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec, "Key distribution model".
"""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Sequence

from shared.redis.client import Command

SLOTS = 16_384
# Commands without a key: any master may run them.
KEYLESS = frozenset(
    {"CLIENT", "CLUSTER", "CONFIG", "ECHO", "INFO", "PING", "PUBLISH", "SCRIPT", "TIME"}
)
COUNTED = frozenset({"EVAL", "EVALSHA"})  # NAME script numkeys key …
# NAME subcommand key …
SECOND = frozenset({"MEMORY", "OBJECT", "XGROUP", "XINFO"})
AFTER_STREAMS = frozenset({"XREAD", "XREADGROUP"})  # … STREAMS key …

ALL_KEYS = frozenset({"DEL", "EXISTS", "MGET", "TOUCH", "UNLINK"})  # every word but the name


class CrossSlot(ValueError):
    """The keys of one call have several slots: a defect of the caller."""


def key_slot(key: bytes) -> int:
    """Return the slot of a key: of the part in the first pair of braces, unless that is empty."""
    begin = key.find(b"{")
    if begin >= 0:
        end = key.find(b"}", begin + 1)
        if end > begin + 1:
            key = key[begin + 1 : end]
    return crc_hqx(key, 0) % SLOTS


def keys_slot(keys: Sequence[bytes | str]) -> int | None:
    """Return the one slot of all keys; None: there are no keys.

    Raises:
        CrossSlot: they have several.
    """
    slots = {key_slot(key if isinstance(key, bytes) else key.encode()) for key in keys}
    if len(slots) > 1:
        raise CrossSlot(f"keys of {len(slots)} slots in one call: {list(keys)[:3]}")
    return slots.pop() if slots else None


def command_slot(command: Command) -> int | None:
    """Return the slot of a command; None: any master may run it.

    Raises:
        CrossSlot: its keys have several slots.
    """
    name = _word(command[0]).decode().upper()
    if name in KEYLESS:
        return None
    if name in COUNTED:
        return keys_slot([_word(word) for word in command[3 : 3 + int(command[2])]])
    if name in AFTER_STREAMS:
        words = [_word(word) for word in command]
        at = next(i for i, word in enumerate(words) if word.upper() == b"STREAMS") + 1
        return keys_slot(words[at : at + (len(words) - at) // 2])
    if name in ALL_KEYS:
        return keys_slot([_word(word) for word in command[1:]])
    at = 2 if name in SECOND else 1
    return keys_slot([_word(word) for word in command[at : at + 1]])


def _word(word: bytes | str | int) -> bytes:
    return word if isinstance(word, bytes) else str(word).encode()

"""Gets the issuer's public keys from a URL or a file, and keeps the last good set.

    refresh      each 300 s; each 10 s while the last try failed
    unknown kid  at once, but at most once in 10 s: a token cannot make this node ask without end

All requests that wait for a refresh share it, and wait for 3 s at most; no other request waits.
Invariant: a set that cannot be fetched or read changes nothing, so tokens of the last good keys
stay good while the issuer is away. `problem` says so in /readyz.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from pathlib import Path

from api.identity.key_set import KeySet, KeySetInvalid, read_key_set
from shared.config.file_version import FileVersion, file_version
from shared.errors import ConfigurationError
from shared.text.redaction import redact, remember_url

logger = logging.getLogger(__name__)

FETCH_S = 3.0  # for the whole answer of the issuer
BYTES_MAX = 1_048_576  # of a key set
REFRESH_S = 300.0
RETRY_S = 10.0  # after a failure, and between two refreshes for an unknown kid


class KeySource:
    """Where the public keys come from.

    Args:
        place: an http or https URL, or the path of a file.
        on_keys: called with each new set.
        clock: returns monotonic seconds.

    Attributes:
        problem: why the last try failed, for a person; "": it did not.

    Raises:
        ConfigurationError: the file cannot be used.
    """

    def __init__(
        self, place: str, on_keys: Callable[[KeySet], None], clock: Callable[[], float]
    ) -> None:
        self.problem = ""
        self._place = place
        self._on_keys = on_keys
        self._clock = clock
        self._is_url = place.lower().startswith(("http://", "https://"))
        self._tried_at_s = -math.inf
        self._text: bytes | None = None
        self._version: FileVersion | None = None
        self._under_way: asyncio.Event | None = None
        if self._is_url:
            remember_url(place)
            self.problem = "the keys have not been fetched yet"
        else:
            self._version = file_version(place)
            try:
                self._accept(_read_file(place))
            except (OSError, KeySetInvalid) as exc:
                raise ConfigurationError(f"TAILRACE_JWT_JWKS: {_described(exc)}") from exc

    async def look(self) -> None:
        """Refresh the keys if it is time to; called once a second."""
        if self._is_url:
            pause_s = RETRY_S if self.problem else REFRESH_S
            if self._clock() - self._tried_at_s >= pause_s:
                await self._refresh()
        elif file_version(self._place) != self._version:
            await self._refresh()

    async def look_for_unknown(self) -> None:
        """Refresh the keys because a token names one that is not known."""
        if self._under_way is None and self._clock() - self._tried_at_s < RETRY_S:
            return
        await self._refresh()

    async def _refresh(self) -> None:
        if self._under_way is not None:
            await self._under_way.wait()
            return
        self._tried_at_s = self._clock()
        self._under_way = over = asyncio.Event()
        try:
            await self._fetch()
        finally:  # also if this caller is cancelled: the others then go on with the old keys
            self._under_way = None
            over.set()

    async def _fetch(self) -> None:
        before = self.problem
        version = None if self._is_url else file_version(self._place)
        try:
            async with asyncio.timeout(FETCH_S):
                if self._is_url:
                    text = await _download(self._place)
                else:
                    text = await asyncio.to_thread(_read_file, self._place)
            self._accept(text)
        except (OSError, TimeoutError, KeySetInvalid) as exc:
            self.problem = _described(exc)
            if self.problem != before:
                logger.warning("token keys not refreshed", extra={"reason": self.problem})
        except Exception:  # boundary: whatever an issuer sends, the node goes on with its keys
            self.problem = "a defect in the reading of the key set; the log of the node has it"
            logger.exception("token keys not read")
        else:
            self._version = version
            if before:
                logger.info("token keys refreshed")

    def _accept(self, text: bytes) -> None:
        if text != self._text:
            self._on_keys(read_key_set(text))
            self._text = text
        self.problem = ""


def _read_file(path: str) -> bytes:
    with Path(path).open("rb") as file:
        text = file.read(BYTES_MAX + 1)
    if len(text) > BYTES_MAX:
        raise KeySetInvalid(f"it is larger than {BYTES_MAX} bytes")
    return text


async def _download(url: str) -> bytes:
    """Return the body of a URL.

    Raises:
        OSError: the server cannot be reached, or answers another status than 200.
        KeySetInvalid: the body is too large.
    """
    import aiohttp  # only nodes with such a URL need it

    try:
        async with (
            aiohttp.ClientSession() as session,
            session.get(url, allow_redirects=False, headers={"accept": "*/*"}) as answer,
        ):
            if answer.status != 200:
                raise OSError(f"the server of the keys answered {answer.status}, not 200")
            text = bytearray()
            async for piece in answer.content.iter_chunked(65_536):
                text += piece
                if len(text) > BYTES_MAX:
                    raise KeySetInvalid(f"it is larger than {BYTES_MAX} bytes")
            return bytes(text)
    except (aiohttp.ClientError, ValueError) as exc:
        raise OSError(f"the server of the keys cannot be used ({type(exc).__name__})") from exc


def _described(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return f"the server of the keys did not answer within {FETCH_S:.0f} s"
    if isinstance(error, KeySetInvalid):
        return f"the key set cannot be used: {error}"
    if isinstance(error, OSError) and error.strerror:
        return f"the key set cannot be read: {error.strerror}"
    return redact(str(error))

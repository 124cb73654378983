"""The media type of an audio input: what clients send, and what backends read. Pure.

Raw samples are `audio/pcm;rate=16000;channels=1`: signed 16 bits, little-endian, channels
interleaved. Every other `audio/…` passes unchanged; the backend decides whether it can decode it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

CHARACTERS_MAX = 127
PCM = "audio/pcm"
RATES_HZ = range(4_000, 192_001)
AUDIO_CHANNELS = range(1, 9)
SAMPLE_BYTES = 2

_TOKEN = r"[A-Za-z0-9!#$&^_.+-]+"
_MEDIA_TYPE = re.compile(rf'audio/{_TOKEN}(?:; ?{_TOKEN}=(?:{_TOKEN}|"[ -!#-\[\]-~]*"))*', re.ASCII)


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """A media type that was checked.

    Attributes:
        media_type: as the client gave it.
        rate_hz, channels: of raw samples; 0: another encoding.
    """

    media_type: str
    rate_hz: int = 0
    channels: int = 0

    @property
    def is_pcm(self) -> bool:
        return self.rate_hz > 0

    @property
    def bytes_per_s(self) -> int:
        """Bytes of one second of raw samples; 0: another encoding."""
        return self.rate_hz * self.channels * SAMPLE_BYTES


def parse_media_type(text: str) -> AudioFormat:
    """Return the format that a media type names.

    Raises:
        ValueError: with what is wrong, for the client.
    """
    if len(text) > CHARACTERS_MAX or _MEDIA_TYPE.fullmatch(text) is None:
        raise ValueError(
            f"must be a media type audio/… of at most {CHARACTERS_MAX} characters, such as "
            f"{PCM};rate=16000;channels=1"
        )
    essence, *parameters = (part.strip() for part in text.split(";"))
    if essence.lower() != PCM:
        return AudioFormat(text)
    values: dict[str, str] = {}
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.lower() in values:
            raise ValueError(f"{PCM} needs each parameter once: {name.lower()} is repeated")
        values[name.lower()] = value.strip('"')
    if unknown := values.keys() - {"rate", "channels"}:
        raise ValueError(f"{PCM} has no parameter {min(unknown)}: give rate and channels")
    rate = _number(values.get("rate"), RATES_HZ, "rate")
    return AudioFormat(text, rate, _number(values.get("channels", "1"), AUDIO_CHANNELS, "channels"))


def _number(text: str | None, allowed: range, name: str) -> int:
    is_number = text is not None and text.isascii() and text.isdigit() and len(text) <= 6
    if not is_number or str(text).startswith("0") or int(text or 0) not in allowed:
        raise ValueError(f"{PCM} needs {name} from {allowed[0]} to {allowed[-1]}")
    return int(text or 0)

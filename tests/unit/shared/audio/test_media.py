"""Which media types an audio input may have."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.audio.media import AudioFormat, parse_media_type


@pytest.mark.parametrize(
    ("text", "rate_hz", "channels", "bytes_per_s"),
    [
        ("audio/pcm;rate=16000;channels=1", 16_000, 1, 32_000),
        ("audio/pcm; rate=8000", 8_000, 1, 16_000),
        ("Audio/PCM".lower() + ";channels=2;rate=48000", 48_000, 2, 192_000),
        ("audio/webm;codecs=opus", 0, 0, 0),
        ("audio/ogg", 0, 0, 0),
        ("audio/" + "x" * 121, 0, 0, 0),
        ("audio/ogg;a=" + "x" * 115, 0, 0, 0),
        ('audio/ogg;codecs="opus, vorbis"', 0, 0, 0),
    ],
)
def test_a_media_type_is_read(text: str, rate_hz: int, channels: int, bytes_per_s: int) -> None:
    form = parse_media_type(text)

    assert form == AudioFormat(text, rate_hz, channels)
    assert form.bytes_per_s == bytes_per_s


@pytest.mark.parametrize(
    "text",
    [
        "", "audio/", "video/mp4", "audio/ogg\n", "audio/ogg;", "audio/pcm", "audio/pcm;rate=1",
        "audio/pcm;rate=16000;channels=9", "audio/pcm;rate=+8000", "audio/pcm;rate=8000;bits=8",
        "audio/pcm;rate=8000;rate=9000", "audio/pcm;rate=8000;Rate=8000", "audio/pcm;rate=08000",
        "audio/" + "x" * 122, "audio/ogg;a=" + "x" * 116, "audio/pcm;rate=٨٠٠٠",
        "audio/" + "x" * 128, "audio/pcm;rate=99999999999",
    ],
)  # fmt: skip
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be|needs|no parameter"):
        parse_media_type(text)


@given(st.text(max_size=60).map(lambda text: f"audio/pcm;{text}"))
def test_no_text_raises_anything_else(text: str) -> None:
    try:
        form = parse_media_type(text)
    except ValueError:
        return
    assert form.is_pcm

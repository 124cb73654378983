"""A large prompt becomes the same generation as a small one of the same kind."""

from __future__ import annotations

import json

import pytest

from api.intake import large_body, large_json
from api.intake.body import check_native, parse_new_generation
from api.intake.large_body import generation_in_steps, read_members
from shared.config.models import Model
from shared.config.settings import Settings
from shared.errors import RequestError
from shared.text.large import LargeWork

MODELS = {"demo": Model(name="demo", backend="demo")}
SETTINGS = Settings()
BODY = {
    "messages": [
        {"role": "user", "content": [
            {"type": "text", "text": "caf\u00e9 \n" * 2_000},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "iVBO" * 90_000}},
        ]},
    ],
    "params": {"stop": ["x" * 5_000], "temperature": 0.5},
    "metadata": {"b": 1, "a": 2},
    "session": None,
}  # fmt: skip


async def test_a_large_body_gives_the_same_generation_in_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raw = json.dumps(BODY).encode()
    for module in (large_body, large_json):
        monkeypatch.setattr(module, "STEPPED_BYTES", 1_000)
    monkeypatch.setattr(large_json, "SLICE_BYTES", 1_000)
    large = LargeWork()

    members = await read_members(large, bytearray(raw), bytes_max=SETTINGS.body_bytes_max)
    new = await generation_in_steps(
        large,
        len(raw),
        lambda: check_native(members, owner="o", models=MODELS, settings=SETTINGS),
    )

    assert new == parse_new_generation(raw, owner="o", models=MODELS, settings=SETTINGS)


async def test_a_large_body_beyond_the_limit_is_413() -> None:
    with pytest.raises(RequestError) as caught:
        await read_members(LargeWork(), bytearray(2_000_000), bytes_max=1_999_999)

    assert caught.value.status == 413

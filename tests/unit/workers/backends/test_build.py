"""Building backends from the models file and the environment."""

from __future__ import annotations

import pytest

from shared.config.kinds import KINDS
from shared.config.models import DEMO, Model
from shared.config.settings import Settings
from shared.errors import ConfigurationError
from workers.backends import build_backends
from workers.backends.kinds import builder_of

UP = Model(name="up", base_url="http://x/v1", api_key_env="UP_KEY", on_takeover="continue")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_function_that_builds_its_backends(kind: str) -> None:
    assert callable(builder_of(kind))


def test_one_backend_for_each_model() -> None:
    built = build_backends({"demo": DEMO, "up": UP}, Settings(), {"UP_KEY": "k"})

    assert list(built) == ["demo", "up"]
    assert all(backend.can_continue for backend in built.values())


@pytest.mark.parametrize("environ", [{}, {"UP_KEY": ""}, {"UP_KEY": " "}, {"UP_KEY": "a\nb"}])
def test_a_missing_or_invalid_key_is_refused(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="UP_KEY"):
        build_backends({"up": UP}, Settings(), environ)


def test_an_unknown_demo_option_is_refused() -> None:
    model = Model(name="d", backend="demo", options={"tokens_per_sec": 5})
    with pytest.raises(ConfigurationError, match=r"models\.d.*tokens_per_sec"):
        build_backends({"d": model}, Settings(), {})


async def test_aclose_works_unused_and_twice() -> None:
    for backend in build_backends({"demo": DEMO, "up": UP}, Settings(), {"UP_KEY": "k"}).values():
        await backend.aclose()
        await backend.aclose()

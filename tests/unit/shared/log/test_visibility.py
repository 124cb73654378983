"""Which generations an owner may see."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shared.log.visibility import is_visible
from tests.support.hub_harness import make_meta

META = make_meta(owner="ann")


@pytest.mark.parametrize("status", ["queued", "running", "completed", "cancelled", "failed"])
def test_an_owner_sees_its_own_generation_in_every_status(status: str) -> None:
    assert is_visible(replace(META, status=status), "ann")


def test_another_owner_does_not_see_it() -> None:
    assert not is_visible(META, "bob")


def test_a_sealed_generation_is_not_visible_to_its_owner() -> None:
    assert not is_visible(replace(META, status="sealed"), "ann")


def test_an_absent_generation_is_not_visible() -> None:
    assert not is_visible(None, "ann")

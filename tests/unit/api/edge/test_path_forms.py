"""Paths with spare slashes and without /v1."""

from __future__ import annotations

import pytest

from api.edge.path_forms import mend_name, mend_path


@pytest.mark.parametrize(
    ("path", "mended"),
    [
        ("/v1/chat/completions/", "/v1/chat/completions"),
        ("/v1//chat/completions", "/v1/chat/completions"),
        ("//v1/responses", "/v1/responses"),
        ("/responses/resp_1/", "/v1/responses/resp_1"),
        ("/files", "/v1/files"),
        ("/batches//b_1///cancel/", "/v1/batches/b_1/cancel"),
        ("/v1/generations/", None),
        ("/v1files", None),
        ("//metrics", None),  # an operator may have closed /metrics in a proxy
        ("/livez/", None),
        ("//", None),
        ("/v2/files", None),
    ],
)
def test_an_openai_path_is_mended(path: str, mended: str | None) -> None:
    assert mend_path(path) == mended


def test_a_name_loses_its_spare_slashes_only() -> None:
    assert mend_name("/vendor//model/") == "vendor/model"
    assert mend_name("vendor/model") == "vendor/model"
    assert mend_name("//") == ""

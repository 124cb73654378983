"""The line for each request."""

from __future__ import annotations

import logging

import pytest

from tests.support.shell import Shell


async def lines_of(caplog: pytest.LogCaptureFixture, path: str, **settings: str) -> list[str]:
    with caplog.at_level(logging.INFO, "api.edge.request_log"):
        await Shell(**settings).get(path)
    return [f"{vars(r)['path']} {vars(r)['status']}" for r in caplog.records]


async def test_a_request_has_a_line_without_its_query(caplog: pytest.LogCaptureFixture) -> None:
    found = await lines_of(caplog, "/v1/models?access_token=alpha", request_log="on")

    assert found == ["/v1/models 200"]
    assert "alpha" not in caplog.text


@pytest.mark.parametrize("path", ["/livez", "/page/docs.js", "/metrics"])
async def test_what_pages_and_probes_repeat_has_no_line(
    caplog: pytest.LogCaptureFixture, path: str
) -> None:
    shell_answers = await lines_of(caplog, path, request_log="on")

    assert shell_answers == [line for line in shell_answers if not line.endswith(" 200")]


async def test_without_the_setting_there_is_no_line(caplog: pytest.LogCaptureFixture) -> None:
    assert await lines_of(caplog, "/v1/models") == []

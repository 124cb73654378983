"""The AI SDK with OpenAI's provider over Responses: its requests go to two nodes by turns.

From the second step on it only names its earlier items, so each node has to find what another node
answered.
"""

from __future__ import annotations

import pytest

from tests.support.node_program import NodeProgram
from tests.support.processes import Deployment


@pytest.mark.parametrize("is_stream", [True, False])
async def test_a_second_turn_names_the_items_of_the_first(
    deployment: Deployment, is_stream: bool
) -> None:
    async with NodeProgram("ai-sdk-responses.mjs") as program:
        said = await program.ask("chat", urls=list(deployment.urls), isStream=is_stream)

    assert "value" in said, said
    value = said["value"]
    assert value["reasoning"] and all(value["texts"])
    assert len(value["referenced"]) == 4 and any(value["referenced"])  # two turns of two steps
    assert value["ignored"] == ["tools[1]"] * 4

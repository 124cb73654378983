"""Streams that were asked for with a key which is removed before they begin, or later."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

import pytest
from starlette.types import Send

from api.dialects.chat.fold import CHAT
from api.dialects.held_stream import held_stream
from api.dialects.openai_errors import failure_of
from api.edge.admission import admit
from api.edge.auth import Authenticator
from api.transport.extensions import KEY_WATCH
from shared.config.settings import Settings
from tests.support.hub_harness import GENERATION, Client, HubHarness, make_scope, settle

KEY = "k" * 20


@pytest.mark.parametrize("is_early", [True, False], ids=["before the content", "after it"])
async def test_a_stream_ends_whenever_its_key_was_removed(tmp_path: Path, is_early: bool) -> None:
    path = tmp_path / "keys"
    path.write_text(f"{KEY}:alice\n")
    authenticator = Authenticator.from_settings(Settings(api_keys=str(path)))

    async def remove_key() -> None:
        (tmp_path / "new").write_text(f"{'z' * 20}:bob\n")
        (tmp_path / "new").replace(path)
        await authenticator.look_at_key_file()

    async with HubHarness() as harness:
        node = harness.node(authenticator=authenticator)
        meta = harness.log.create(owner="alice", request=b'{"messages":[]}', dialect=b"{}")
        client = Client()
        client.incoming.get_nowait()  # the body was read
        scope = make_scope(client, headers={"authorization": f"Bearer {KEY}"})
        await admit(authenticator, scope, "read")
        scope[KEY_WATCH] = node.key_watch  # as `guard` does
        send = cast(Send, client.send)
        answer = held_stream(harness.hub, meta, CHAT, {}, failure_of=failure_of)
        answering = asyncio.ensure_future(answer(scope, client.receive, send))
        await settle()
        if is_early:
            await remove_key()
        harness.log.tokens("Hello", generation_id=GENERATION)
        await settle()
        if not is_early:
            await remove_key()
        harness.log.tokens("secret", generation_id=GENERATION)
        await settle()

        assert client.was_aborted and answering.done()
        assert b"secret" not in client.body
        assert not node.key_watch

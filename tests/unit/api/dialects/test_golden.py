"""Each dialect gives for each recorded log the bytes in tests/golden.

`pytest tests/unit/api/dialects/test_golden.py --golden-update` rewrites them. Then read the diff.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from api.dialects.ag_ui.fold import AG_UI, AG_UI_PROTO
from api.dialects.ag_ui.run import RUN, STATE, THREAD, VERSION
from api.dialects.ai_sdk.fold import AI_SDK, RESET_STEP, AiSdkFrameFold
from api.dialects.chat.fold import CHAT, INCLUDE_USAGE
from api.dialects.deep_chat.fold import DEEP_CHAT, DeepChatFrameFold
from api.dialects.durable_streams.fold import EVENT_STREAM
from api.dialects.grpc.fold import CONNECT, CONNECT_JSON, GRPC, GRPC_WEB, GRPC_WEB_TEXT
from api.dialects.lobe.fold import LobeFrameFold
from api.dialects.lobe_gateway.fold import LOBE_GATEWAY, GatewayFrameFold
from api.dialects.lobe_gateway.mux_fold import MuxFrameFold
from api.dialects.native.fold import NDJSON, SSE, NativeFrameFold
from api.dialects.responses.fold import RESPONSES
from api.dialects.responses.frames import ResponsesFrameFold
from shared.log.request import Request
from tests.support.recorded import (
    AG_UI_LOGS,
    FED_LOGS,
    LOGS,
    Log,
    bytes_of,
    frames_of,
    recorded_meta,
)

DIRECTORY = Path(__file__).parents[3] / "golden"
META = recorded_meta()
HELLO = [{"role": "user", "content": "Hi"}]
WITH_USAGE = recorded_meta(Request(messages=HELLO, dialect={INCLUDE_USAGE: True}))
AG_UI_RUN = {THREAD: "t1", RUN: "r1", STATE: {"n": 0}}
AG_UI_META = recorded_meta(Request(messages=HELLO, dialect={**AG_UI_RUN, VERSION: "1.0"}))
OLD_AG_UI_META = recorded_meta(Request(messages=HELLO, dialect=AG_UI_RUN))
FED_META = replace(META, dialect=b'{"lobehub":{"operation":"op1"}}')
KNOWS_RESET_STEP = recorded_meta(Request(messages=HELLO, dialect={RESET_STEP: True}))


def responses_frames(log: Log) -> bytes:
    fold = ResponsesFrameFold(META, "main")
    opening = b"".join(line + b"\n" for line in fold.opening())
    return opening + frames_of(lambda _: fold, log, META)


# By the name of the file. A dialect whose bytes depend on the request has one entry for each case.
DIALECTS: dict[str, Callable[[Log], bytes]] = {
    "native-sse": lambda log: bytes_of(SSE, log, META),
    "native-ndjson": lambda log: bytes_of(NDJSON, log, META),
    "native-websocket": lambda log: frames_of(NativeFrameFold, log, META),
    "chat": lambda log: bytes_of(CHAT, log, META),
    "chat-usage": lambda log: bytes_of(CHAT, log, WITH_USAGE),
    "responses": lambda log: bytes_of(RESPONSES, log, META),
    "responses-websocket": lambda log: responses_frames(log),
    "deep-chat": lambda log: bytes_of(DEEP_CHAT, log, META),
    "deep-chat-websocket": lambda log: frames_of(
        lambda meta: DeepChatFrameFold(meta, "stop-key"), log, META
    ),
    "ai-sdk": lambda log: bytes_of(AI_SDK, log, META),
    "ai-sdk-reset-step": lambda log: bytes_of(AI_SDK, log, KNOWS_RESET_STEP),
    "ai-sdk-websocket": lambda log: frames_of(lambda meta: AiSdkFrameFold(meta, "r1"), log, META),
    "grpc": lambda log: bytes_of(GRPC, log, META),
    "grpc-web": lambda log: bytes_of(GRPC_WEB, log, META),
    "grpc-web-text": lambda log: bytes_of(GRPC_WEB_TEXT, log, META),
    "connect": lambda log: bytes_of(CONNECT, log, META),
    "connect-json": lambda log: bytes_of(CONNECT_JSON, log, META),
    "durable-streams": lambda log: bytes_of(EVENT_STREAM, log, META),
    "ag-ui": lambda log: bytes_of(AG_UI, log, AG_UI_META),
    "ag-ui-0": lambda log: bytes_of(AG_UI, log, OLD_AG_UI_META),
    "ag-ui-proto": lambda log: bytes_of(AG_UI_PROTO, log, AG_UI_META),
    "lobe-gateway": lambda log: bytes_of(LOBE_GATEWAY, log, META),
    "lobe-gateway-websocket": lambda log: frames_of(
        lambda meta: GatewayFrameFold(meta, "op1", 0, wants_status=True), log, META
    ),
    "lobe-gateway-mux": lambda log: frames_of(
        lambda meta: MuxFrameFold(meta, "op1", 0, is_executor=False), log, META
    ),
    "lobe": lambda log: frames_of(lambda meta: LobeFrameFold(meta, "m1"), log, META),
}
# Those of operations that LobeHub's server feeds.
FED_DIALECTS: dict[str, Callable[[Log], bytes]] = {
    "fed-lobe-gateway": lambda log: bytes_of(LOBE_GATEWAY, log, FED_META),
    "fed-lobe-gateway-websocket": lambda log: frames_of(
        lambda meta: GatewayFrameFold(meta, "op1", 0, wants_status=True), log, FED_META
    ),
    "fed-lobe-gateway-mux": lambda log: frames_of(
        lambda meta: MuxFrameFold(meta, "op1", 0, is_executor=False), log, FED_META
    ),
    "fed-native-ndjson": lambda log: bytes_of(NDJSON, log, FED_META),
    "fed-chat": lambda log: bytes_of(CHAT, log, FED_META),
}


CASES = {
    f"{dialect}.{name}": (read, log)
    for dialect, read in DIALECTS.items()
    for name, log in (LOGS | AG_UI_LOGS if dialect.startswith("ag-ui") else LOGS).items()
} | {
    f"{dialect}.{name}": (read, log)
    for dialect, read in FED_DIALECTS.items()
    for name, log in FED_LOGS.items()
}


@pytest.mark.parametrize("case", CASES)
def test_each_dialect_gives_the_recorded_bytes(case: str, request: pytest.FixtureRequest) -> None:
    read, log = CASES[case]
    path = DIRECTORY / f"{case}.txt"
    found = read(log)
    if request.config.getoption("--golden-update"):
        path.write_bytes(found)

    assert found == path.read_bytes()


def test_every_file_belongs_to_a_dialect_and_a_log() -> None:
    names = {path.name for path in DIRECTORY.iterdir()}

    assert names == {f"{case}.txt" for case in CASES}

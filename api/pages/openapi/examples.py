"""Examples and groups for the OpenAPI document: what /docs shows first, and what "Try it" sends.

Each example is a request that a node accepts as it stands (tests/unit/api/test_examples.py sends
them). Data only.
"""

from __future__ import annotations

from typing import Any

from api.pages.openapi.schemas import Json

# The first row whose path begins an operation's path names its group.
GROUPS = (
    ("/v1/generations", "Generations"),
    ("/v1/sessions", "Sessions"),
    ("/v1/ws", "Generations"),
    ("/v1/chat/completions", "OpenAI: chat completions"),
    ("/chat/completions", "OpenAI: chat completions"),
    ("/v1/responses", "OpenAI: Responses"),
    ("/v1/batches", "OpenAI: batches"),
    ("/v1/files", "OpenAI: files"),
    ("/v1/models", "Models"),
    ("/models", "Models"),
    ("/ai-sdk", "Vercel AI SDK"),
    ("/ag-ui", "AG-UI"),
    ("/deep-chat", "deep-chat"),
    ("/tailrace.v1.Tailrace", "gRPC-Web and Connect"),
    ("/ds", "Durable Streams"),
    ("/lobe", "LobeChat's protocol"),
    ("/api/agent", "LobeChat's protocol"),
    ("/v1/schedules", "Schedules"),
    ("/v1/share", "Shares"),
    ("/v1/usage", "Usage"),
    ("/v1/console", "Console"),
    ("/v1/owners", "Operators"),
    ("/v1/workers", "Operators"),
    ("/metrics", "Operators"),
    ("/livez", "Operators"),
    ("/readyz", "Operators"),
    ("/", "Pages"),
)
GROUP_ORDER = tuple(dict.fromkeys(group for _, group in GROUPS))

PROMPT = "How does a stream survive its server?"
MESSAGES = [{"role": "user", "content": PROMPT}]
LOBE_EVENT = {
    "type": "stream_chunk",
    "operationId": "op_1",
    "stepIndex": 0,
    "data": {"chunkType": "text", "content": "Hello"},
}
WAKE = {"wake_id": "w_000000000000000000000000", "generation": 1}
ACKNOWLEDGED = {
    **WAKE,
    "acks": [{"stream": "orders/1", "offset": "0000000000000010_0519823405172345"}],
    "done": True,
}

# operationId -> the JSON body of an example.
BODIES: dict[str, Any] = {
    "createGeneration": {"prompt": PROMPT, "session": "demo"},
    "createChatCompletion": {"model": "demo", "messages": MESSAGES, "stream": True},
    "createChatCompletionAlias": {"model": "demo", "messages": MESSAGES, "stream": True},
    "createResponse": {"model": "demo", "input": PROMPT, "stream": True},
    "createBatch": {
        "input_file_id": "file-00000000000000000000000000",
        "endpoint": "/v1/generations",
        "completion_window": "24h",
    },
    "createShare": {"session": "demo", "ttl_s": 3_600},
    "createAiSdkChat": {
        "id": "chat-1",
        "messages": [{"role": "user", "parts": [{"type": "text", "text": PROMPT}]}],
    },
    "runAgUiAgent": {
        "threadId": "thread-1",
        "runId": "run-1",
        "messages": [{"id": "m1", "role": "user", "content": PROMPT}],
    },
    "createDeepChat": {"messages": [{"role": "user", "text": PROMPT}]},
    "appendEvents": {
        "seq": 2,
        "events": [
            {"type": "token", "text": "Hello"},
            {"type": "end", "status": "completed", "finish_reason": "stop"},
        ],
    },
    "takeOverProducer": {"reset": False},
    "grpcStart": {"prompt": PROMPT, "session": "demo"},
    "grpcGet": {"id": "gen_00000000000000000000000000"},
    "grpcCancel": {"id": "gen_00000000000000000000000000"},
    "grpcSession": {"session": "demo"},
    "createStreamSubscription": {
        "type": "pull-wake",
        "pattern": "orders/*",
        "wake_stream": "jobs/wakes",
    },
    "linkStreams": {"streams": ["invoices/1"]},
    "claimWake": {"worker": "worker-1"},
    "acknowledgeWake": ACKNOWLEDGED,
    "acknowledgeWebhook": ACKNOWLEDGED,
    "releaseWake": WAKE,
    "beginLobeOperation": {"operationId": "op_1", "userId": "user_1"},
    "pushLobeEvent": {"operationId": "op_1", "event": LOBE_EVENT},
    "pushLobeEvents": {"operationId": "op_1", "events": [LOBE_EVENT]},
    "updateLobeOperation": {"operationId": "op_1", "status": "running"},
    "executeLobeTool": {
        "operationId": "op_1",
        "data": {"toolCallId": "call_1", "apiName": "read", "arguments": "{}"},
    },
    "requestLobeConfirmation": {"operationId": "op_1", "toolCallId": "call_1", "tool": {}},
    "requestLobeInput": {"operationId": "op_1", "prompt": "Which file?"},
}


def add_examples(paths: Json) -> Json:
    """Give each operation its group, and its body an example; return the same paths."""
    for path, operations in paths.items():
        group = next(name for begin, name in GROUPS if path.startswith(begin))
        for operation in operations.values():
            operation["tags"] = [group]
            body = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if body is not None and operation["operationId"] in BODIES:
                body["example"] = BODIES[operation["operationId"]]
    return dict(sorted(paths.items(), key=lambda item: GROUP_ORDER.index(_group(item[1]))))


def _group(operations: Json) -> str:
    group: str = next(iter(operations.values()))["tags"][0]
    return group

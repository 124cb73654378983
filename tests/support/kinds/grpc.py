"""The kind `grpc` in the common suite: servers of grpcio, one for each protocol.

A relay stands before the server, because grpcio cannot break a connection in the middle of a call.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import grpc
import grpc.aio

from tests.support.kinds.kind import TriedKind
from tests.support.kinds.openai import pictures
from tests.support.kinds.plan import Broken, Done, Part, Text, Thought, ToolUse, parts
from tests.support.proxy import Proxy
from tests.support.upstream import Call
from tests.support.upstream_script import Cut, Pause, position, script_of
from workers.backends.grpc.generated import backend_pb2 as own
from workers.backends.grpc.generated import inference_pb2 as kserve

CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
}
GARBAGE = b"\x0a\x02\xff\xfe"  # a field of two bytes that are no UTF-8
CHAT, TEXT = "/tailrace.backend.v1.Backend/Generate", "text_input"


class Asked(NamedTuple):
    """A request: its body as the suite reads it, the script's prompt, the partial answer."""

    body: dict[str, Any]
    prompt: str
    prefix: str


class Wire(NamedTuple):
    """How a protocol is spoken.

    Attributes:
        service, method: of the call.
        read: decodes a request.
        say: encodes a part of the answer to a request.
    """

    service: str
    method: str
    is_two_way: bool
    read: Callable[[bytes], Asked]
    say: Callable[[Part, Asked], list[bytes]]


class GrpcServer:
    """A model server: see `KindServer`. `relay` stands before it, and can break connections."""

    def __init__(self, wire: Wire, credentials: grpc.ServerCredentials | None = None) -> None:
        self.calls: list[Call] = []
        self._wire = wire
        self._credentials = credentials
        self._faults: Counter[str] = Counter()

    @property
    def base_url(self) -> str:
        return f"grpc{'s' if self._credentials else ''}://127.0.0.1:{self.relay.port}"

    async def __aenter__(self) -> GrpcServer:
        self._server = grpc.aio.server()
        handle = grpc.unary_stream_rpc_method_handler(self._answer)
        if self._wire.is_two_way:
            handle = grpc.stream_stream_rpc_method_handler(self._answer_stream)
        handlers = {self._wire.method: handle}
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(self._wire.service, handlers),)
        )
        if self._credentials:
            port = self._server.add_secure_port("127.0.0.1:0", self._credentials)
        else:
            port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        self.relay = Proxy("127.0.0.1", port)
        await self.relay.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.relay.__aexit__()
        await self._server.stop(None)

    async def _answer_stream(
        self, messages: AsyncIterator[bytes], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[bytes]:
        async for message in messages:
            async for said in self._answer(message, context):
                yield said

    async def _answer(
        self, message: bytes, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[bytes]:
        asked = self._wire.read(message)
        metadata = {str(key): str(value) for key, value in context.invocation_metadata() or ()}
        call = Call(metadata, asked.body, len(self.calls) + 1)
        self.calls.append(call)
        try:
            async for said in self._tell(asked, context):
                yield said
        except (asyncio.CancelledError, GeneratorExit):
            call.left.set()  # GeneratorExit: the method around this one was cancelled
            raise
        finally:
            call.ended.set()

    async def _tell(self, asked: Asked, context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        prompt = asked.prompt
        script = script_of({"messages": [{"role": "user", "content": prompt}]})
        self._faults[prompt] += 1
        is_faulty = bool(script.fault) and self._faults[prompt] <= script.fault_requests
        if is_faulty and script.fault == "status":
            told = (("retry-after", script.retry_after),) if script.retry_after else ()
            await context.abort(CODES[script.status], "as told", told)
        start = position(prompt, asked.prefix, script)
        limit = asked.body.get("max_tokens")
        await context.send_initial_metadata(())
        for part in parts(script, prompt, start=start, max_tokens=limit, is_faulty=is_faulty):
            match part:
                case Pause(seconds):
                    await asyncio.sleep(3_600 if seconds is None else seconds)
                case Cut(is_clean):
                    if not is_clean:
                        await self.relay.cut()
                    return
                case Broken("error") if self._wire is OWN_WIRE:
                    await context.abort(grpc.StatusCode.INTERNAL, "the upstream broke as told")
                case _:
                    for said in self._wire.say(part, asked):
                        yield said


def _read_own(message: bytes) -> Asked:
    read = own.GenerateRequest.FromString(message)
    messages = [json.loads(one.json) for one in read.messages]
    prefix = read.messages[-1].text if read.continue_last_message else ""
    body = {"messages": messages, **json.loads(read.params_json)}
    for name in ("max_tokens", "temperature", "top_p", "seed"):
        if read.HasField(name):
            body[name] = getattr(read, name)
    if read.stop:
        body["stop"] = list(read.stop)
    prompt = next(one.text for one in reversed(read.messages) if one.role == "user")
    return Asked(body, prompt, prefix)


def _say_own(part: Part, asked: Asked) -> list[bytes]:
    match part:
        case Text(text):
            said = [own.GenerateResponse(text=text)]
        case Thought(text):
            said = [own.GenerateResponse(reasoning=text)]
        case ToolUse(name, arguments):
            first = own.ToolCall(index=0, id="call_1", name=name)
            calls = [first, *(own.ToolCall(index=0, arguments=piece) for piece in arguments)]
            said = [own.GenerateResponse(tool_call=call) for call in calls]
        case Done(reason, text_tokens, thoughts):
            usage = own.Usage(
                prompt_tokens=3,
                completion_tokens=text_tokens + thoughts,
                cached_tokens=2,
                reasoning_tokens=thoughts,
            )
            said = [own.GenerateResponse(finish=own.Finish(reason=reason, usage=usage))]
        case Broken("huge_line"):
            said = [own.GenerateResponse(text="x" * 2**21)]
        case _:
            assert part == Broken("garbage")
            return [GARBAGE]
    return [one.SerializeToString() for one in said]


def _read_kserve(message: bytes) -> Asked:
    read = kserve.ModelInferRequest.FromString(message)
    assert read.parameters["triton_enable_empty_final_response"].bool_param
    raw = {
        tensor.name: raw for tensor, raw in zip(read.inputs, read.raw_input_contents, strict=True)
    }
    text = raw[TEXT][4:].decode()
    end = json.JSONDecoder().raw_decode(text)[1]
    body = json.loads(raw["sampling_parameters"][4:])
    body |= {"messages": [], "id": read.id, "stream": raw["stream"] == b"\x01"}
    return Asked(body, text[:end], text[end:])


def _say_kserve(part: Part, asked: Asked) -> list[bytes]:
    response = kserve.ModelInferResponse(id=asked.body["id"], model_name="m")
    match part:
        case Text(text):
            # A tensor holds bytes: a server may cut a character in two.
            raw = text.encode()
            pieces = [raw[: len(raw) // 2], raw[len(raw) // 2 :]]
        case Broken("huge_line"):
            pieces = [b"x" * 2**21]
        case Broken("garbage"):
            pieces = [b"\xff\xfe"]
        case Broken("error"):
            failed = kserve.ModelStreamInferResponse(
                error_message="the upstream broke as told", infer_response=response
            )
            return [failed.SerializeToString()]
        case Done(reason, count, _):
            response.parameters["triton_final_response"].bool_param = True
            for name, datatype, raw in (
                ("finish_reason", "BYTES", _element(reason.encode())),
                ("num_input_tokens", "UINT32", struct.pack("<I", 3)),
                ("num_output_tokens", "UINT32", struct.pack("<I", count)),
            ):
                response.outputs.add(name=name, datatype=datatype, shape=[1])
                response.raw_output_contents.append(raw)
            return [_streamed(response)]
        case _:
            raise AssertionError("a text has no such part")
    said = []
    for piece in pieces:
        one = kserve.ModelInferResponse(id=response.id)
        one.outputs.add(name="text_output", datatype="BYTES", shape=[1])
        one.raw_output_contents.append(_element(piece))
        said.append(_streamed(one))
    return said


def _element(raw: bytes) -> bytes:
    return struct.pack("<I", len(raw)) + raw


def _streamed(response: kserve.ModelInferResponse) -> bytes:
    return kserve.ModelStreamInferResponse(infer_response=response).SerializeToString()


OWN_WIRE = Wire("tailrace.backend.v1.Backend", "Generate", False, _read_own, _say_own)
KSERVE_WIRE = Wire(
    "inference.GRPCInferenceService", "ModelStreamInfer", True, _read_kserve, _say_kserve
)
GRPC = TriedKind(
    name="grpc",
    serve=lambda: GrpcServer(OWN_WIRE),
    can=frozenset(
        (
            *("reasoning", "tools", "pictures", "max_tokens", "stop", "params", "usage"),
            *("continuation", "status", "errors", "lines"),
        )
    ),
    pictures=pictures,
)
KSERVE = TriedKind(
    name="grpc",
    variant="kserve",
    serve=lambda: GrpcServer(KSERVE_WIRE),
    members={
        "options": {
            "protocol": "kserve",
            "tensors": {"stream": True, "sampling_parameters": "$params"},
        }
    },
    can=frozenset(
        (
            *("max_tokens", "stop", "params", "usage"),
            *("continuation", "status", "errors", "lines"),
        )
    ),
)

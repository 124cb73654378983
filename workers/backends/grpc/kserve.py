"""The protocol `kserve`: the Open Inference Protocol with Triton's streaming call. Pure.

The prompt is one text in the tensor `text_input`, and pieces of the answer come in `text_output`.
The answer is complete at the response with the parameter `triton_final_response`. These outputs
are read if a model has them, as Triton's vLLM backend names them: `finish_reason`,
`num_input_tokens`, `num_output_tokens`.

A tensor of the type BYTES in its raw form:

    length of the first element (4 bytes, little-endian) | the element | the next …
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Mapping
from typing import Any

import msgspec
from google.protobuf.message import DecodeError

from shared.config.kinds.completions import TEMPLATES
from shared.config.kinds.grpc import ALL_PARAMS, INT32
from shared.config.models import Model
from shared.errors import BackendError
from shared.log.events import Token
from shared.log.request import Request
from workers.backends.completions.prompt import render
from workers.backends.contract import BackendItem
from workers.backends.grpc.ending import end_answer
from workers.backends.grpc.generated import inference_pb2 as wire
from workers.backends.grpc.own import RESERVED, unreadable
from workers.backends.reading.failure import Address, failure_of
from workers.backends.reading.parts import refused
from workers.backends.reading.tools import ToolCalls
from workers.backends.reading.usage import UsageCounter

ADDRESS = Address("streaming inference", "it is grpc://host:port, without a path")
INPUT, OUTPUT = "text_input", "text_output"
FINAL = "triton_final_response"
ASK_FINAL = "triton_enable_empty_final_response"
COUNTS = {"num_input_tokens": "prompt_tokens", "num_output_tokens": "completion_tokens"}


class KServeProtocol:
    """See `GrpcProtocol`."""

    method = "/inference.GRPCInferenceService/ModelStreamInfer"
    is_two_way = True

    def __init__(self, model: Model) -> None:
        self._model = model
        self._template = model.options.get("template", TEMPLATES["text"])
        self._tensors: Mapping[str, Any] = model.options.get("tensors", {})
        self._shape = [1, 1] if model.options.get("batched") else [1]

    def encode(self, request: Request, prefix: str, seed: str) -> bytes:
        """Return the request. A partial answer stands behind the prompt."""
        params = request.params
        if params.get("tools") and params.get("tool_choice") != "none":
            raise refused("tools: this model continues a text and calls no tools", "tools")
        given = {name: value for name, value in params.items() if name not in RESERVED}
        stops = given.get("stop") or []
        if all_stops := [*self._template.stop, *([stops] if isinstance(stops, str) else stops)]:
            given["stop"] = all_stops
        given = self._model.rules.apply(given)
        prompt = render(request.messages, self._template, prefix)
        asked = wire.ModelInferRequest(model_name=self._model.upstream_name, id=seed)
        asked.parameters[ASK_FINAL].bool_param = True
        self._add(asked, INPUT, prompt)
        for name, value in self._tensors.items():
            if value == ALL_PARAMS:
                self._add(asked, name, msgspec.json.encode(given).decode())
            elif isinstance(value, str) and value.startswith("$"):
                if (found := given.get(value[1:])) is not None:
                    self._add(asked, name, found)
            else:
                self._add(asked, name, value)
        message: bytes = asked.SerializeToString()
        return message

    def reader(self, seed: str) -> KServeReader:
        return KServeReader(seed)

    def _add(self, asked: wire.ModelInferRequest, name: str, value: Any) -> None:
        values = value if isinstance(value, list) else [value]
        datatype, raw = _encode(values, name)
        shape = [*self._shape[:-1], len(values)]
        asked.inputs.add(name=name, datatype=datatype, shape=shape)
        asked.raw_input_contents.append(raw)


def _encode(values: list[Any], name: str) -> tuple[str, bytes]:
    """Return the type and the raw contents of a tensor with these values."""
    kinds = {type(value) for value in values}
    if kinds == {bool}:
        return "BOOL", bytes(values)
    if kinds == {int} and all(value in INT32 for value in values):
        return "INT32", struct.pack(f"<{len(values)}i", *values)
    if kinds <= {int, float}:
        return "FP32", struct.pack(f"<{len(values)}f", *values)
    if kinds == {str}:
        texts = [value.encode() for value in values]
        return "BYTES", b"".join(struct.pack("<I", len(text)) + text for text in texts)
    raise refused(f"{name} must be a text, a number, true or false, or a list of one of them", name)


class KServeReader:
    """See `ProtocolReader`. Responses to another request are left out.

    Args:
        seed: the id of the request.
    """

    def __init__(self, seed: str) -> None:
        self.is_done = False
        self._id = seed
        self._word = ""
        self._usage = UsageCounter()
        self._decode = codecs.getincrementaldecoder("utf-8")().decode

    def feed(self, message: bytes) -> list[BackendItem]:
        try:
            read = wire.ModelStreamInferResponse.FromString(message)
        except DecodeError as exc:
            raise unreadable("ModelStreamInferResponse") from exc
        response = read.infer_response
        if response.id not in ("", self._id):
            return []
        if read.error_message:
            body = msgspec.json.encode({"error": {"message": read.error_message}})
            raise failure_of(body, ADDRESS)
        self.is_done = response.parameters[FINAL].bool_param
        items: list[BackendItem] = []
        for number, output in enumerate(response.outputs):
            raw = response.raw_output_contents
            self._take(output, raw[number] if number < len(raw) else None, items)
        if self.is_done:
            self._text(b"", items, is_last=True)
            items += end_answer(self._word, ToolCalls(self._id), self._usage)
        return items

    def _take(
        self,
        output: wire.ModelInferResponse.InferOutputTensor,
        raw: bytes | None,
        items: list[BackendItem],
    ) -> None:
        if output.name == OUTPUT:
            self._text(_first_text(output, raw), items)
        elif output.name == "finish_reason":
            word = _first_text(output, raw).decode(errors="replace")
            self._word = word if word not in ("", "None", "null") else self._word
        elif output.name in COUNTS:
            self._usage.add({COUNTS[output.name]: _first_count(output, raw)})

    def _text(self, raw: bytes, items: list[BackendItem], *, is_last: bool = False) -> None:
        try:
            text = self._decode(raw, is_last)
        except UnicodeDecodeError as exc:
            raise BackendError("upstream_error", "the backend sent text that is no UTF-8") from exc
        if text:
            items.append(Token(text))


def _first_text(output: wire.ModelInferResponse.InferOutputTensor, raw: bytes | None) -> bytes:
    """Return the first element of a tensor of the type BYTES; nothing: it is empty."""
    if raw is None:
        elements = output.contents.bytes_contents
        return elements[0] if elements else b""
    if not raw:
        return b""
    length = int.from_bytes(raw[:4], "little")
    if len(raw) < 4 or len(raw) < 4 + length:
        raise unreadable(f"tensor {output.name}")
    return raw[4 : 4 + length]


def _first_count(output: wire.ModelInferResponse.InferOutputTensor, raw: bytes | None) -> int:
    """Return the first element of a tensor of whole numbers; 0: it is empty."""
    if raw is not None:
        return int.from_bytes(raw[: 8 if output.datatype.endswith("64") else 4], "little")
    contents = output.contents
    for values in (contents.uint_contents, contents.int_contents, contents.int64_contents):
        if values:
            return int(values[0])
    return 0

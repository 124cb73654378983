"""The tensors of a request to a Triton server, and its odd answers."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from shared.config.models import Model, parse_models
from shared.errors import BackendError, ConfigurationError
from shared.log.events import Token, Usage
from shared.log.request import Request
from workers.backends.contract import Finish
from workers.backends.grpc.generated import inference_pb2 as wire
from workers.backends.grpc.kserve import KServeProtocol, KServeReader

ASKED = [{"role": "user", "content": "Hello"}]


def model(**options: Any) -> Model:
    table = {"backend": "grpc", "base_url": "grpc://localhost:8001", "protocol": "kserve"}
    return parse_models({"models": {"m": table | options}}, "models.toml")["m"]


def tensors(sent: bytes) -> dict[str, tuple[str, list[int], bytes]]:
    read = wire.ModelInferRequest.FromString(sent)
    return {
        tensor.name: (tensor.datatype, list(tensor.shape), raw)
        for tensor, raw in zip(read.inputs, read.raw_input_contents, strict=True)
    }


def encode(params: dict[str, Any] | None = None, **options: Any) -> bytes:
    return KServeProtocol(model(**options)).encode(Request(ASKED, params or {}), "", "gen_a")


def response(**members: Any) -> bytes:
    inner = wire.ModelInferResponse(**members)
    return wire.ModelStreamInferResponse(infer_response=inner).SerializeToString()


def text(raw: bytes) -> dict[str, Any]:
    output = wire.ModelInferResponse.InferOutputTensor(
        name="text_output", datatype="BYTES", shape=[1]
    )
    return {"outputs": [output], "raw_output_contents": [struct.pack("<I", len(raw)) + raw]}


def test_the_prompt_is_one_text_and_the_last_response_is_asked_for() -> None:
    sent = encode()

    assert tensors(sent) == {"text_input": ("BYTES", [1], b"\x05\0\0\0Hello")}
    read = wire.ModelInferRequest.FromString(sent)
    assert (read.model_name, read.id) == ("m", "gen_a")
    assert read.parameters["triton_enable_empty_final_response"].bool_param


def test_a_partial_answer_stands_behind_the_prompt() -> None:
    sent = KServeProtocol(model(template="roles")).encode(Request(ASKED), " I am", "gen_a")

    assert tensors(sent)["text_input"][2][4:] == b"User: Hello\n\nAssistant: I am"


def test_the_table_of_tensors_says_what_else_is_sent() -> None:
    given = {"stream": True, "top_k": 5, "beam": 0.5, "mode": "fast", "limit": "$max_tokens"}
    sent = tensors(
        encode({"max_tokens": 9, "stop": ["a", "bc"]}, tensors={**given, "stop_words": "$stop"})
    )

    del sent["text_input"]
    assert sent == {
        "stream": ("BOOL", [1], b"\x01"),
        "top_k": ("INT32", [1], b"\x05\0\0\0"),
        "beam": ("FP32", [1], struct.pack("<f", 0.5)),
        "mode": ("BYTES", [1], b"\x04\0\0\0fast"),
        "limit": ("INT32", [1], b"\x09\0\0\0"),
        "stop_words": ("BYTES", [2], b"\x01\0\0\0a\x02\0\0\0bc"),
    }


def test_a_tensor_of_a_member_that_the_client_did_not_send_is_left_out() -> None:
    assert set(tensors(encode(tensors={"limit": "$max_tokens"}))) == {"text_input"}


def test_a_batched_model_gets_a_dimension_more() -> None:
    assert tensors(encode(batched=True))["text_input"][1] == [1, 1]


@pytest.mark.parametrize(
    "table",
    [{"a": [1]}, {"a": 2**31}, {"a": "$Max Tokens"}, "stream"],
    ids=["a list", "too large", "no name", "no table"],
)
def test_a_table_that_no_server_can_get_is_refused(table: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"models\.m\.tensors"):
        model(tensors=table)


def test_a_value_that_no_tensor_can_have_is_refused() -> None:
    with pytest.raises(BackendError, match="bias must be a text, a number"):
        encode({"logit_bias": {"1": 5}}, tensors={"bias": "$logit_bias"})


def test_an_answer_is_read_from_raw_and_from_typed_contents() -> None:
    reader = KServeReader("gen_a")
    typed = wire.ModelInferResponse.InferOutputTensor(name="text_output", datatype="BYTES")
    typed.contents.bytes_contents.append(b" two")
    final = {"triton_final_response": wire.InferParameter(bool_param=True)}

    assert reader.feed(response(id="gen_a", **text(b"one"))) == [Token("one")]
    assert reader.feed(response(outputs=[typed])) == [Token(" two")]
    assert reader.feed(response(parameters=final)) == [Finish("stop")]
    assert reader.is_done


def test_counts_and_the_finish_reason_are_read_if_the_model_has_them() -> None:
    tensor = wire.ModelInferResponse.InferOutputTensor
    outputs = [
        tensor(name="num_input_tokens", datatype="UINT32"),
        tensor(name="num_output_tokens", datatype="UINT64"),
        tensor(name="finish_reason", datatype="BYTES"),
    ]
    raw = [struct.pack("<I", 7), struct.pack("<Q", 9), b"\x06\0\0\0length"]
    final = {"triton_final_response": wire.InferParameter(bool_param=True)}
    read = KServeReader("a").feed(
        response(outputs=outputs, raw_output_contents=raw, parameters=final)
    )

    assert read == [Usage(7, 9, 16), Finish("length")]


def test_a_response_to_another_request_is_left_out() -> None:
    assert KServeReader("gen_a").feed(response(id="gen_b", **text(b"one"))) == []


@pytest.mark.parametrize("raw", [b"\x01", b"\x09\0\0\0short"], ids=["no length", "too short"])
def test_a_tensor_that_is_cut_fails_the_attempt(raw: bytes) -> None:
    output = wire.ModelInferResponse.InferOutputTensor(name="text_output", datatype="BYTES")

    with pytest.raises(BackendError, match="no tensor text_output"):
        KServeReader("a").feed(response(outputs=[output], raw_output_contents=[raw]))


def test_bytes_that_are_no_message_fail_the_attempt() -> None:
    with pytest.raises(BackendError, match="no ModelStreamInferResponse"):
        KServeReader("a").feed(b"\xff\xff\xff")


def test_an_error_of_the_server_says_that_the_prompt_is_too_long() -> None:
    failed = wire.ModelStreamInferResponse(error_message="prompt exceeds maximum context length")

    with pytest.raises(BackendError) as info:
        KServeReader("a").feed(failed.SerializeToString())
    assert info.value.upstream is not None
    assert info.value.upstream.code == "context_length_exceeded"

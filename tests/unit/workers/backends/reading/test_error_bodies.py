"""Error bodies as servers really send them, and what a client and a worker make of each."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest

from shared.errors import BackendError, Refusal
from shared.text.redaction import remember
from workers.backends.contract import SetUpFault
from workers.backends.reading.error_body import is_error, read_error
from workers.backends.reading.failure import NAME_CHARACTERS_MAX, failure_of, refusal

TOO_LONG = "context_length_exceeded"
VLLM_TOO_LONG = (
    "This model's maximum context length is 4096 tokens. However, you requested 6379 tokens "
    "(6029 in the messages, 350 in the completion)."
)
LLAMA_TOO_LONG = "the request exceeds the available context size, try increasing it"
RAW = {
    "error": {
        "message": "Unsupported value: 'temperature'", "type": "invalid_request_error",
        "param": "temperature", "code": "unsupported_value",
    }
}  # fmt: skip


class Row(NamedTuple):
    status: int
    body: Any
    expected: Refusal


REFUSALS = {
    "OpenAI: too long": Row(
        400,
        {"error": {"message": "maximum context length", "type": "invalid_request_error",
                   "param": "messages", "code": TOO_LONG}},
        Refusal("maximum context length", 400, TOO_LONG, "invalid_request_error", "messages"),
    ),
    "OpenAI: unknown parameter": Row(
        400,
        {"error": {"message": "Unknown parameter: 'foo'.", "type": "invalid_request_error",
                   "param": "foo", "code": "unknown_parameter"}},
        Refusal("Unknown parameter: 'foo'.", 400, "unknown_parameter", "invalid_request_error",
                "foo"),
    ),
    "OpenAI: no such model": Row(
        404,
        {"error": {"message": "The model `x` does not exist", "type": "invalid_request_error",
                   "param": None, "code": "model_not_found"}},
        Refusal("The model `x` does not exist", 404, "model_not_found", "invalid_request_error"),
    ),
    "OpenAI: no quota": Row(
        429,
        {"error": {"message": "You exceeded your current quota", "type": "insufficient_quota",
                   "param": None, "code": "insufficient_quota"}},
        Refusal("You exceeded your current quota", 429, "insufficient_quota", "insufficient_quota"),
    ),
    "OpenAI: a country": Row(
        403,
        {"error": {"code": "unsupported_country_region_territory", "message": "not supported",
                   "param": None, "type": "request_forbidden"}},
        Refusal("not supported", 403, "unsupported_country_region_territory", "request_forbidden"),
    ),
    "Azure: content filter": Row(
        400,
        {"error": {"message": "The response was filtered", "type": None, "param": "prompt",
                   "code": "content_filter", "status": 400,
                   "innererror": {"code": "ResponsibleAIPolicyViolation"}}},
        Refusal("The response was filtered", 400, "content_filter", None, "prompt"),
    ),
    "vLLM: too long": Row(
        400,
        {"object": "error", "message": VLLM_TOO_LONG, "type": "BadRequestError", "param": None,
         "code": 400},
        Refusal(VLLM_TOO_LONG, 400, TOO_LONG, "BadRequestError"),
    ),
    "vLLM: too long, nested": Row(
        400,
        {"error": {"message": VLLM_TOO_LONG, "type": "BadRequestError", "param": "input_tokens",
                   "code": 400}},
        Refusal(VLLM_TOO_LONG, 400, TOO_LONG, "BadRequestError", "input_tokens"),
    ),
    "vLLM: no room for an answer": Row(
        400,
        {"object": "error", "message": "max_tokens must be at least 1, got -186.",
         "type": "BadRequestError", "param": None, "code": 400},
        Refusal("max_tokens must be at least 1, got -186.", 400, TOO_LONG, "BadRequestError"),
    ),
    "vLLM: no such model": Row(
        404,
        {"error": {"message": "The model `x` does not exist.", "type": "NotFoundError",
                   "param": "model", "code": 404}},
        Refusal("The model `x` does not exist.", 404, None, "NotFoundError", "model"),
    ),
    "llama.cpp: too long": Row(
        400,
        {"error": {"code": 400, "message": LLAMA_TOO_LONG, "type": "exceed_context_size_error",
                   "n_prompt_tokens": 14429, "n_ctx": 8192}},
        Refusal(f"{LLAMA_TOO_LONG} (14429 tokens in the prompt, 8192 in the context)", 400,
                TOO_LONG, "exceed_context_size_error"),
    ),
    "llama.cpp of 2025: too long": Row(
        500,
        {"error": {"code": 500, "message": LLAMA_TOO_LONG, "type": "server_error"}},
        Refusal(LLAMA_TOO_LONG, 400, TOO_LONG, "server_error"),
    ),
    "Ollama: native": Row(
        400, {"error": "invalid options: foo"}, Refusal("invalid options: foo", 400)
    ),
    "Ollama: no such model": Row(
        404,
        {"error": {"message": 'model "x" not found', "type": "not_found_error", "param": None,
                   "code": None}},
        Refusal('model "x" not found', 404, None, "not_found_error"),
    ),
    "Ollama: too long": Row(
        400,
        {"error": "prompt too long; exceeded max context length by 12 tokens"},
        Refusal("prompt too long; exceeded max context length by 12 tokens", 400, TOO_LONG),
    ),
    "Gemini: too long": Row(
        400,
        [{"error": {"code": 400, "status": "INVALID_ARGUMENT", "message":
                    "The input token count (1196265) exceeds the maximum number (1048575)."}}],
        Refusal("The input token count (1196265) exceeds the maximum number (1048575).", 400,
                TOO_LONG, "INVALID_ARGUMENT"),
    ),
    "Gemini: unknown member": Row(
        400,
        [{"error": {"code": 400, "message": 'Unknown name "store"', "status": "INVALID_ARGUMENT"}}],
        Refusal('Unknown name "store"', 400, None, "INVALID_ARGUMENT"),
    ),
    "Anthropic: too long": Row(
        400,
        {"type": "error", "request_id": "req_1", "error": {
            "type": "invalid_request_error",
            "message": "prompt is too long: 213462 tokens > 200000 maximum"}},
        Refusal("prompt is too long: 213462 tokens > 200000 maximum", 400, TOO_LONG,
                "invalid_request_error"),
    ),
    "Anthropic: too large": Row(
        413,
        {"type": "error", "error": {"type": "request_too_large", "message": "Request too large"}},
        Refusal("Request too large", 413, None, "request_too_large"),
    ),
    "FastAPI: invalid fields": Row(
        422,
        {"detail": [
            {"type": "less_than_equal", "loc": ["body", "temperature"], "msg": "at most 2",
             "input": 7},
            {"type": "missing", "loc": ["body", "messages", 0], "msg": "Field required",
             "input": {"prompt": "a secret prompt"}}]},
        Refusal("temperature: at most 2; messages.0: Field required", 422, param="temperature"),
    ),
    "FastAPI: a sentence": Row(400, {"detail": "no such voice"}, Refusal("no such voice", 400)),
    "MiniMax": Row(
        400,
        {"base_resp": {"status_code": 2013, "status_msg": "context window exceeds limit"}},
        Refusal("context window exceeds limit", 400, TOO_LONG),
    ),
    "Zhipu: too long": Row(
        400, {"error": {"code": "1261", "message": "Prompt 超长"}},
        Refusal("Prompt 超长", 400, TOO_LONG),
    ),
    "Zhipu: no money": Row(
        429, {"error": {"code": "1113", "message": "余额不足"}}, Refusal("余额不足", 429, "1113")
    ),
    "DashScope: content": Row(
        400,
        {"code": "DataInspectionFailed", "message": "inappropriate content", "request_id": "1"},
        Refusal("inappropriate content", 400, "DataInspectionFailed"),
    ),
    "DeepSeek: no money": Row(
        402,
        {"error": {"message": "Insufficient Balance", "type": "unknown_error", "param": None,
                   "code": None}},
        Refusal("Insufficient Balance", 402, "insufficient_quota", "unknown_error"),
    ),
    "Moonshot: too long": Row(
        400,
        {"error": {"message": "Your request exceeded model token limit: 8192",
                   "type": "invalid_request_error"}},
        Refusal("Your request exceeded model token limit: 8192", 400, TOO_LONG,
                "invalid_request_error"),
    ),
    "Mistral": Row(
        400,
        {"object": "error", "message": "Prompt contains 66385 tokens, too large for model with "
         "32768 maximum context length", "type": "invalid_request_error", "code": "3051"},
        Refusal("Prompt contains 66385 tokens, too large for model with 32768 maximum context "
                "length", 400, TOO_LONG, "invalid_request_error"),
    ),
    "LiteLLM: too long": Row(
        400,
        {"error": {"message": "litellm.ContextWindowExceededError: it is full", "type": "None",
                   "param": "None", "code": "400"}},
        Refusal("litellm.ContextWindowExceededError: it is full", 400, TOO_LONG),
    ),
    "OpenRouter: another server's error as text": Row(
        400,
        {"error": {"message": "Provider returned error", "code": 400, "metadata": {
            "raw": json.dumps(RAW), "provider_name": "OpenAI"}}, "user_id": "user_1"},
        Refusal("Unsupported value: 'temperature'", 400, "unsupported_value",
                "invalid_request_error", "temperature"),
    ),
    "OpenRouter: another server's error as an object": Row(
        400,
        {"error": {"message": "Provider returned error", "code": 400, "metadata": {"raw": RAW}}},
        Refusal("Unsupported value: 'temperature'", 400, "unsupported_value",
                "invalid_request_error", "temperature"),
    ),
    "OpenRouter: moderation": Row(
        403,
        {"error": {"message": "requires moderation", "code": 403, "metadata": {
            "reasons": ["violence"], "flagged_input": "…"}}},
        Refusal("requires moderation", 403),
    ),
    "xAI: usage guidelines": Row(
        403,
        {"code": "forbidden", "error": "Content violates usage guidelines."},
        Refusal("Content violates usage guidelines.", 403, "forbidden"),
    ),
    "TGI": Row(
        422,
        {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096",
         "error_type": "validation"},
        Refusal("Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096", 422,
                TOO_LONG, "validation"),
    ),
    "Cloudflare": Row(
        400,
        {"success": False, "errors": [{"code": 5006, "message": "required properties"}]},
        Refusal("required properties", 400, "5006"),
    ),
    "plain text": Row(413, b"body  too\nlarge", Refusal("body too large", 413)),
    "nothing": Row(400, b"", Refusal("no message", 400)),
    "a legal reason": Row(451, {"error": {"message": "no"}}, Refusal("no", 451)),
}  # fmt: skip


def encoded(body: Any) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()


def refused(status: int, body: Any) -> BackendError:
    return refusal(status, encoded(body), retry_after=None, now_s=0.0)


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_of_the_request_is_kept_for_the_client(name: str) -> None:
    row = REFUSALS[name]
    error = refused(row.status, row.body)

    assert error.upstream == row.expected
    assert (error.code, error.retryable) == ("upstream_refused", False)
    assert error.message == f"the backend answered {row.status}: {row.expected.message}"


@pytest.mark.parametrize("name", [name for name in REFUSALS if REFUSALS[name].body])
def test_the_same_refusal_with_the_status_200_is_kept_where_the_body_tells_that_it_is_one(
    name: str,
) -> None:
    row = REFUSALS[name]
    error = failure_of(encoded(row.body))

    if error.upstream is not None:
        assert error.upstream.message == row.expected.message
        assert error.upstream.code == row.expected.code
        assert error.upstream.status is not None and 400 <= error.upstream.status < 500
        assert not error.retryable
    else:
        assert (error.code, error.retryable) == ("upstream_error", True)
        assert name.split(":")[0] in (
            "Ollama", "FastAPI", "plain text", "xAI", "a legal reason", "DeepSeek", "Cloudflare",
        )  # fmt: skip


SET_UP = {
    "a wrong key": (401, {"error": {"message": "Incorrect API key provided: k-1",
                                    "code": "invalid_api_key"}}),
    "a key without permission": (403, {"error": {"message": "Project p-1 has no access",
                                                 "code": "model_not_found"}}),
    "Gemini's 400 for a wrong key": (
        400, [{"error": {"code": 400, "message": "API key not valid. Please pass a valid API key.",
                         "status": "INVALID_ARGUMENT",
                         "details": [{"reason": "API_KEY_INVALID", "domain": "googleapis.com"}]}}],
    ),
    "DashScope's 400 for a wrong key": (
        400, {"code": "InvalidApiKey", "message": "Invalid API-key provided."},
    ),
    "a proxy": (407, b"<html><title>Proxy</title></html>"),
    "a firewall": (403, b"<html><title>Attention Required! | Cloudflare</title></html>"),
    "a method": (405, {"detail": "Method Not Allowed"}),
    "an unknown path of FastAPI": (404, {"detail": "Not Found"}),
    "an unknown path of Go": (404, b"404 page not found"),
    "an unknown path of nginx": (404, b"<html><head><title>404 Not Found</title></head></html>"),
    "a redirect": (307, b""),
    "http to a TLS port of nginx": (
        400, b"<html><title>400 The plain HTTP request was sent to HTTPS port</title></html>",
    ),
    "http to a TLS port of Go": (400, b"Client sent an HTTP request to an HTTPS server.\n"),
}  # fmt: skip


@pytest.mark.parametrize("name", SET_UP)
def test_a_fault_of_our_set_up_is_for_the_operator_and_not_for_the_client(name: str) -> None:
    status, body = SET_UP[name]
    error = refused(status, body)

    assert isinstance(error, SetUpFault)
    assert error.upstream is None
    assert (error.code, error.retryable) == ("upstream_refused", False)
    said = read_error(encoded(body)).message
    assert said not in error.message and said in error.advice
    assert error.message.startswith(f"the backend answered {status}: ")


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (429, {"error": {"message": "Rate limit reached", "type": "tokens",
                         "code": "rate_limit_exceeded"}}),
        (429, {"error": {"message": "maximum context length is fine", "type": "requests"}}),
        (429, [{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "quota"}}]),
        (429, {"error": {"code": "1302", "message": "并发数过高"}}),
        (408, {"error": {"message": "slow", "type": "invalid_request_error"}}),
        (500, {"error": {"message": "broken", "type": "invalid_request_error"}}),
        (500, {"error": {"message": "no key", "type": "authentication_error"}}),
        (502, b"<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"),
        (503, {"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}}),
        (529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
    ],
)  # fmt: skip
def test_an_error_that_can_pass_is_tried_again(status: int, body: Any) -> None:
    error = refused(status, body)

    assert (error.code, error.retryable, error.upstream) == ("upstream_error", True, None)


def test_credentials_in_every_part_of_a_refusal_are_removed_and_the_parts_are_bounded() -> None:
    secret = "Zq7Rr-known-secret-8812"
    remember(secret)
    said = {"message": "x" * 590 + f" {secret}", "code": secret, "type": f"t {secret}" + "y" * 900,
            "param": "p\x1b[31m\n" + "z" * 3_000}  # fmt: skip
    upstream = refused(400, {"error": said}).upstream

    assert upstream is not None
    assert "Zq7Rr" not in str(upstream)
    assert len(upstream.message) <= 600
    for name in (upstream.code, upstream.type, upstream.param):
        assert name is not None and name.isprintable() and len(name) <= NAME_CHARACTERS_MAX


def test_no_part_of_a_refusal_names_an_address_of_the_operators_network() -> None:
    said = {"message": "no gpu3.local", "code": "vllm.prod.svc.cluster.local",
            "type": "http://10.1.2.3/t", "param": "10.1.2.3:80"}  # fmt: skip
    upstream = refused(400, {"error": said}).upstream

    assert upstream is not None
    parts = (upstream.message, upstream.code, upstream.type, upstream.param)
    assert parts == ("no ***", "***", "http://***/t", "***")


@pytest.mark.parametrize(
    "faulty",
    [
        [],
        {},
        [[]],
        5,
        True,
        1.5,
        None,
        {"error": [[]]},
        {"error": {"error": {"error": {"error": 1}}}},
    ],
)
def test_odd_values_in_any_member_are_an_error_of_some_kind(faulty: Any) -> None:
    members = ("message", "code", "type", "param", "metadata", "details", "innererror", "error")
    for name in members:
        for body in ({"error": {name: faulty, "message2": 1}}, {name: faulty}, [{name: faulty}]):
            assert isinstance(refused(400, body), BackendError)
            assert isinstance(failure_of(encoded(body)), BackendError)
            assert is_error(body) in (True, False) if isinstance(body, dict) else True
    assert isinstance(refused(400, faulty), BackendError)


def test_an_error_in_an_error_is_read_to_a_bounded_depth() -> None:
    raw: Any = {"error": {"message": "Provider returned error", "metadata": {"raw": "{}"}}}
    for _ in range(200):
        raw = {"error": {"message": "m", "metadata": {"raw": json.dumps(raw)[:50_000]}}}
    deep = b'{"error":' * 5_000 + b"1" + b"}" * 5_000

    assert isinstance(refused(400, raw), BackendError)
    assert isinstance(refused(400, deep), BackendError)


@pytest.mark.parametrize(
    ("chunk", "expected"),
    [
        ({"error": {"message": "no"}}, True),
        ({"type": "error", "message": "no"}, True),
        ({"base_resp": {"status_code": 1002, "status_msg": "rate limit"}}, True),
        ({"code": 1002, "msg": "no"}, True),
        ({"code": "Throttling", "message": "no"}, True),
        ({"success": False, "message": "no"}, True),
        ({"detail": "no"}, True),
        ({"base_resp": {"status_code": 0, "status_msg": ""}, "choices": None}, False),
        ({"code": 0, "msg": "ok"}, False),
        ({"code": 200, "message": "success"}, False),
        ({"type": "ping"}, False),
        ({"message": "loading the model"}, False),
        ({"choices": [], "usage": {"prompt_tokens": 1}}, False),
        ({"choices": [{"delta": {}}], "code": 5, "msg": "x", "detail": "x"}, False),
    ],
)
def test_which_objects_of_a_stream_are_errors(chunk: dict[str, Any], expected: bool) -> None:
    assert is_error(chunk) is expected

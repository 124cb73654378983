"""Computes the answer of the fixture upstream to a request: a pure function that any test can call.

A script is told in `params` as `{"upstream": {…}}` (it reaches the upstream because params are
passed on), or as the prompt itself, a JSON object; otherwise by the model's name in `PRESETS`.
Token i of an answer has i in its text, so a gap, a repeat or a wrong order shows in the text alone.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import msgspec

WORDS = (
    " alpha",
    " brücke",
    " 流",
    " delta",
    " 👩‍🚀",
    " foxtrot",
    " Zoë",
    " hôtel",
    "\nline ",
    " 水",
)
Continuation = Literal["goes on", "echoes", "begins anew", "refuses"]
Kind = Literal["", "status", "error", "error_field", "eof", "cut", "stall", "garbage", "huge_line"]


class Script(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How one answer goes.

    Attributes:
        per_chunk: tokens in one chunk.
        write_bytes: at most so many bytes in one write; 0: a whole chunk.
        fault: status (answer with `status`), error (an error object, then [DONE], as vLLM does),
            error_field (llama.cpp's), eof (a clean end without finish), cut (the connection is
            reset), stall (silence), garbage (bytes that are no UTF-8), huge_line (2 MiB).
        fault_at: it comes before this token, counted from the answer's start.
        cut_at_byte: with `cut`: after so many bytes of the body instead.
        fault_requests: so many requests for this prompt meet it, the later ones do not; 0: all do.
        fault_without_prefix: only requests that bring no partial answer meet it.
        continuation: what a partial answer does: the server goes on behind it, repeats it in its
            first chunk and goes on, begins the answer anew, or refuses with 422.
    """

    continuation: Continuation = "goes on"

    tokens: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 20
    reasoning: int = 0
    tool_call: bool = False
    delay_s: float = 0.0
    head_delay_s: float = 0.0
    first_delay_s: float = 0.0
    end_delay_s: float = 0.0
    per_chunk: Annotated[int, msgspec.Meta(ge=1)] = 1
    write_bytes: int = 0
    comments: bool = False
    is_json: bool = False
    usage: Literal["last", "with_finish", "running", "none"] = "last"
    finish_reason: str = "stop"
    done: bool = True
    fault: Kind = ""
    fault_at: int = 0
    cut_at_byte: int = 0
    fault_requests: int = 1
    fault_without_prefix: bool = False
    status: int = 500
    retry_after: str = ""


class Pause(msgspec.Struct, frozen=True):
    """Wait so long before the next frame; None: until the client has gone."""

    seconds: float | None


class Cut(msgspec.Struct, frozen=True):
    """End the body here: properly, or by a reset."""

    is_clean: bool


Step = bytes | Pause | Cut

PRESETS: dict[str, Script] = {
    "slow": Script(tokens=100, delay_s=0.02),
    "goes-on": Script(tokens=60),
    "echoes": Script(tokens=60, continuation="echoes"),
    "begins-anew": Script(tokens=60, continuation="begins anew"),
    "refuses": Script(tokens=60, continuation="refuses"),
    "only-thinks": Script(tokens=0, reasoning=9),
    "broken": Script(fault="status", fault_requests=0),
}


def script_of(body: dict[str, Any]) -> Script:
    """Find the script that a request names."""
    told = body.get("upstream")
    if told is None:
        prompt = prompt_of(body["messages"])
        if prompt.startswith("{"):
            told = msgspec.json.decode(prompt)
    if told is not None:
        return msgspec.convert(told, Script)
    return PRESETS.get(body.get("model", ""), Script())


def prompt_of(messages: Sequence[dict[str, Any]]) -> str:
    """Return the last thing the user said."""
    return next((str(m["content"]) for m in reversed(messages) if m["role"] == "user"), "")


def token(prompt: str, number: int) -> str:
    return f"{WORDS[(zlib.crc32(prompt.encode()) + number) % len(WORDS)]}{number}"


def expected_text(prompt: str, script: Script | None = None) -> str:
    """Return the whole text of the answer to `prompt`, whoever continued it.

    Args:
        script: as given in params; None: the prompt's own, or the default.
    """
    script = script or script_of({"messages": [{"role": "user", "content": prompt}]})
    return "".join(token(prompt, number) for number in range(script.tokens))


def prefix_of(body: dict[str, Any]) -> str:
    """Return the partial answer that the client wants continued, in any of the three styles.

    A last assistant message is continued: that is what `trailing` means, and the other two add
    members to the same shape.
    """
    last = body["messages"][-1] if body["messages"] else {}
    return last["content"] if last.get("role") == "assistant" else ""


def position(prompt: str, prefix: str, script: Script) -> int:
    """Return how many tokens `prefix` has; -1 if the answer does not begin so."""
    text = ""
    for number in range(script.tokens + 1):
        if text == prefix:
            return number
        text += token(prompt, number)
    return -1


def steps(body: dict[str, Any], script: Script, start: int, *, is_faulty: bool) -> Iterator[Step]:
    """Give what is written to the client, from token `start` on.

    Args:
        is_faulty: whether this request meets the script's fault.
    """
    prompt = prompt_of(body["messages"])
    limit = body.get("max_completion_tokens") or body.get("max_tokens") or script.tokens
    stop = min(script.tokens, start + limit)
    finish = script.finish_reason if stop == script.tokens else "length"
    yield Pause(script.first_delay_s)
    yield _chunk({"role": "assistant", "content": ""})
    if script.continuation == "echoes" and (prefix := prefix_of(body)):
        yield _chunk({"content": prefix + token(prompt, start)})
        start += 1
    for number in range(script.reasoning if start == 0 else 0):
        yield _chunk({"reasoning": f" thought{number}"})
    thought = script.reasoning if start == 0 else 0
    fault_at = max(script.fault_at, start) if is_faulty and script.fault else -1
    number = start
    while number < stop:
        if number == fault_at:
            yield from _fault(script)
            return
        end = min(number + script.per_chunk, stop)
        if number < fault_at < end:
            end = fault_at
        if script.comments:
            yield b": keep-alive\n\n"
        if script.delay_s:
            yield Pause(script.delay_s)
        usage = _usage(body, end - start) if script.usage == "running" else None
        text = "".join(token(prompt, each) for each in range(number, end))
        yield _chunk({"content": text}, usage=usage)
        number = end
    if fault_at >= stop:
        yield from _fault(script)
        return
    if script.tool_call:
        yield from _tool_call()
        finish = "tool_calls"
    with_finish = _usage(body, stop - start + thought) if script.usage == "with_finish" else None
    yield _chunk({}, finish=finish, usage=with_finish)
    if script.usage == "last":
        yield _frame({"choices": [], "usage": _usage(body, stop - start + thought)})
    if script.done:
        yield b"data: [DONE]\n\n"


def document(body: dict[str, Any], script: Script, start: int) -> bytes:
    """Return the answer as one JSON document, as a server does that ignores `stream`."""
    prompt = prompt_of(body["messages"])
    text = "".join(token(prompt, number) for number in range(start, script.tokens))
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": script.finish_reason}
    usage = _usage(body, script.tokens - start)
    return msgspec.json.encode({"object": "chat.completion", "choices": [choice], "usage": usage})


def error_body(message: str, *, kind: str = "server_error", code: Any = None) -> bytes:
    return msgspec.json.encode({"error": {"message": message, "type": kind, "code": code}})


def _fault(script: Script) -> Iterator[Step]:
    error = error_body("the upstream broke as told", code=500)
    match script.fault:
        case "error":
            yield b"data: " + error + b"\n\n"
            yield b"data: [DONE]\n\n"
        case "error_field":
            inner = msgspec.json.decode(error)["error"]
            yield b"error: " + msgspec.json.encode(inner) + b"\n\n"
            yield b"data: [DONE]\n\n"
        case "eof":
            yield Cut(is_clean=True)
        case "cut":
            yield Cut(is_clean=False)
        case "stall":
            yield Pause(None)
        case "garbage":
            yield b'data: {"choices":[{"index":0,"delta":{"content":"\xff\xfe"}}]}\n\n'
        case "huge_line":
            yield b"data: " + b"x" * 2**21


def _tool_call() -> Iterator[bytes]:
    function = {"name": "look_up", "arguments": ""}
    yield _chunk({"tool_calls": [{"index": 0, "id": "call_1", "function": function}]})
    for piece in ('{"query', '":"', "流", '"}'):
        yield _chunk({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})


def _usage(body: dict[str, Any], completion: int) -> dict[str, int]:
    prompt = sum(len(str(message.get("content")).split()) for message in body["messages"])
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def _chunk(
    delta: dict[str, Any], *, finish: str | None = None, usage: dict[str, int] | None = None
) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    chunk: dict[str, Any] = {"object": "chat.completion.chunk", "choices": [choice]}
    return _frame(chunk | ({"usage": usage} if usage else {}))


def _frame(chunk: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(chunk) + b"\n\n"

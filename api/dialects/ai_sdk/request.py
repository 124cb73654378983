"""The requests of the AI SDK's clients, read as a prompt: UI messages become chat messages.

Pure. A UI message has parts: text, files, reasoning, tool calls with their results, sources, and
data of the application. A backend gets the parts that it can take: text, files, tool calls and
results, and the metadata that its server needs. The other parts are only for display. Chat
messages pass unchanged.
Source: docs/protocol.md, "AI SDK".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from api.dialects.ai_sdk.fold import MESSAGE_ID, RESET_STEP
from api.dialects.ai_sdk.provider_metadata import details_in, with_extra
from api.intake.body import check_messages, check_params, invalid_request
from api.intake.dialect_request import DialectRequest
from shared.config.credentials import SESSION_CHARACTERS_MAX
from shared.log.extra import REASONING_DETAILS
from shared.log.request import Request

CHAT_CHARACTERS_MAX = 4_096
MESSAGE_ID_CHARACTERS_MAX = 256
# Chat completions name these two forms only.
_AUDIO_FORMS = {
    "audio/wav": "wav", "audio/x-wav": "wav", "audio/wave": "wav",
    "audio/mpeg": "mp3", "audio/mp3": "mp3",
}  # fmt: skip
_OUTPUTS = ("output-available", "output-error", "output-denied")


@dataclass(frozen=True)
class AiSdkRequest(DialectRequest):
    """The body of a request.

    Attributes:
        chat: the chat to which the answer belongs; empty: none.
        stops: how often that chat had been stopped when the request came.
    """

    chat: str = ""
    stops: int = 0


def parse_ai_sdk(body: dict[str, Any]) -> AiSdkRequest:
    """Read the members of a request. Sets `session` to the chat where the body has no session.

    Raises:
        RequestError: 422, a member is missing or wrong.
    """
    chat = body.get("id", "")
    if not isinstance(chat, str) or len(chat) > CHAT_CHARACTERS_MAX:
        raise invalid_request(f"id: the chat, a string of at most {CHAT_CHARACTERS_MAX} characters")
    sent = body.get("messages", [body["message"]] if "message" in body else None)
    if not isinstance(sent, list) or not sent:
        raise invalid_request("messages must be an array that is not empty")
    knows_reset_step = body.get("resetStep", False)
    if not isinstance(knows_reset_step, bool):
        raise invalid_request("resetStep must be true or false")
    dialect: dict[str, Any] = {RESET_STEP: True} if knows_reset_step else {}
    if message_id := _continued_message_id(sent[-1]):
        dialect[MESSAGE_ID] = message_id
    if chat and "session" not in body and len(chat) <= SESSION_CHARACTERS_MAX:
        if chat.isprintable():
            body["session"] = chat
    messages = [
        chat_message
        for index, message in enumerate(sent)
        for chat_message in _read_message(index, message)
    ]
    if not messages:
        raise invalid_request("messages: there is nothing in them that a model can read")
    request = Request(check_messages(messages), check_params(body), dialect)
    return AiSdkRequest(request, chat=chat)


def _continued_message_id(last: Any) -> str:
    """Return the id of the client's message that the answer continues; empty: a new message.

    After tool results the client sends its last assistant message again, and shows the answer in
    it.
    """
    if not isinstance(last, dict) or last.get("role") != "assistant":
        return ""
    message_id = last.get("id")
    fits = isinstance(message_id, str) and len(message_id) <= MESSAGE_ID_CHARACTERS_MAX
    return str(message_id) if fits else ""


def _read_message(index: int, message: Any) -> list[dict[str, Any]]:
    """Return a message as chat messages; none where no part of it is for a model."""
    if not isinstance(message, dict):
        raise invalid_request(f"messages[{index}] must be an object")
    if "parts" not in message:
        return [message]
    role, parts = message.get("role"), message["parts"]
    if role not in ("system", "user", "assistant"):
        raise invalid_request(f"messages[{index}].role must be one of system, user, assistant")
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise invalid_request(f"messages[{index}].parts must be an array of objects")
    for part in parts:
        if not isinstance(part.get("type"), str):
            raise invalid_request(f"messages[{index}].parts: every part must have a type")
        if part["type"] == "text" and not isinstance(part.get("text"), str):
            raise invalid_request(f"messages[{index}].parts: a text must have text")
    if role == "assistant":
        return _assistant_messages(parts)
    if role == "system":
        text = "".join(part["text"] for part in parts if part["type"] == "text")
        return [{"role": role, "content": text}] if text else []
    content = _user_content(index, parts)
    return [{"role": role, "content": content}] if content else []


def _user_content(index: int, parts: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """Return the texts and files in their order; a single text as a string, empty for nothing."""
    content = [
        {"type": "text", "text": part["text"]}
        if part["type"] == "text"
        else _file_part(index, part)
        for part in parts
        if part["type"] == "file" or (part["type"] == "text" and part["text"])
    ]
    # The chat templates of some models take no parts.
    is_text = len(content) == 1 and content[0]["type"] == "text"
    text: str = content[0]["text"] if is_text else ""
    return text or content


def _assistant_messages(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the steps of an assistant's message, each with the results of its tool calls."""
    messages: list[dict[str, Any]] = []
    steps: list[list[dict[str, Any]]] = [[]]
    for part in parts:
        if part["type"] == "step-start":
            steps.append([])
        else:
            steps[-1].append(part)
    for step in steps:
        text = "".join(part["text"] for part in step if part["type"] == "text")
        # A call without a result is left out: models refuse a history that has one.
        tools = [part for part in step if _is_tool(part) and part.get("state") in _OUTPUTS]
        calls = [with_extra(_tool_call(part), part) for part in tools]
        details = details_in(step)
        kept = {REASONING_DETAILS: details} if details else {}
        if calls:
            turn = {"role": "assistant", "content": text or None, "tool_calls": calls}
            messages.append({**turn, **kept})
        elif text:
            messages.append({"role": "assistant", "content": text, **kept})
        messages += [
            {"role": "tool", "tool_call_id": part["toolCallId"], "content": _tool_output(part)}
            for part in tools
        ]
    return messages


def _is_tool(part: Mapping[str, Any]) -> bool:
    kind = part["type"]
    is_tool = kind == "dynamic-tool" or kind.startswith("tool-")
    return is_tool and isinstance(part.get("toolCallId"), str)


def _tool_call(part: Mapping[str, Any]) -> dict[str, Any]:
    name = part.get("toolName") if part["type"] == "dynamic-tool" else part["type"][5:]
    value = part.get("input", part.get("rawInput"))
    arguments = msgspec.json.encode({} if value is None else value).decode()
    function = {"name": str(name), "arguments": arguments}
    return {"id": part["toolCallId"], "type": "function", "function": function}


def _tool_output(part: Mapping[str, Any]) -> str:
    if part["state"] == "output-denied":
        return "The user refused this."
    output = part.get("errorText") if part["state"] == "output-error" else part.get("output")
    return output if isinstance(output, str) else msgspec.json.encode(output).decode()


def _file_part(index: int, part: Mapping[str, Any]) -> dict[str, Any]:
    url, media_type = part.get("url"), part.get("mediaType", "")
    if not isinstance(url, str) or not isinstance(media_type, str):
        raise invalid_request(f"messages[{index}].parts: a file must have a url and a mediaType")
    if media_type.startswith("image/"):
        return {"type": "image_url", "image_url": {"url": url}}
    if (audio := _audio(url, media_type)) is not None:
        return {"type": "input_audio", "input_audio": audio}
    name = part.get("filename")
    name_member = {"filename": name} if isinstance(name, str) else {}
    return {"type": "file", "file": {**name_member, "file_data": url}}


def _audio(url: str, media_type: str) -> dict[str, str] | None:
    """Return the audio of a data URL as chat completions take it; None: not such audio."""
    form = _AUDIO_FORMS.get(media_type)
    head, comma, data = url.partition(",")
    if form is None or not head.startswith("data:") or not head.endswith(";base64") or not comma:
        return None
    return {"data": data, "format": form}

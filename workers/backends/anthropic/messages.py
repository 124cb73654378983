"""Chat messages as Anthropic's `system` and `messages`. Pure.

    system, developer        blocks of `system`, wherever they stand
    user                     text, image and document blocks
    assistant                thinking blocks as the model gave them, text, tool_use
    tool, function           tool_result blocks in a user message

Neighbours of one role are one message, because the results of all calls of a turn must stand
together. Texts without letters are left out: the server refuses them. Parts of other types are the
vendor's own and pass unchanged, and so does `cache_control`. Source: platform.claude.com, "Using
the Messages API", "Thinking", "Handle tool calls".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from workers.backends.vendor.chat import (
    Call,
    calls_of,
    decoded,
    inline_of,
    parts_of,
    result_id,
    text_of,
    unsendable,
)
from workers.backends.vendor.kept_thoughts import (
    ANTHROPIC,
    ENCRYPTED,
    SIGNED,
    Kept,
    Place,
    interleave,
    kept_of,
)

CACHE = "cache_control"
PDF = "application/pdf"
_SYSTEM = ("system", "developer")
_RESULTS = ("tool", "function")
_NOT_OF_ID = re.compile(r"[^a-zA-Z0-9_-]")
_THINKING = ("thinking", "redacted_thinking")

Block = dict[str, Any]


def translate(messages: Sequence[Mapping[str, Any]]) -> tuple[list[Block], list[Block]]:
    """Return the blocks of `system`, and `messages`.

    Raises:
        BackendError: a part has a form that the server cannot be given.
    """
    system: list[Block] = []
    turns: list[Block] = []
    for number, message in enumerate(messages):
        where = f"messages[{number}]"
        role = message.get("role")
        if role in _SYSTEM:
            system += _cached(message, _blocks(parts_of(message, where)))
            continue
        if role == "assistant":
            blocks = _assistant_blocks(message, where)
        elif role in _RESULTS:
            role, blocks = "user", [_result_block(message, where)]
        else:
            role, blocks = "user", _blocks(parts_of(message, where))
        _add(turns, str(role), _cached(message, blocks))
    return system, turns


def continue_turn(turns: list[Block], prefix: str) -> None:
    """Add the answer so far as the beginning of the assistant's turn."""
    _add(turns, "assistant", [{"type": "text", "text": prefix}])
    content = turns[-1]["content"]
    if len(content) > 1 and content[-2].get("type") == "text":
        # The client's messages end with the beginning of the answer: it is one text.
        content[-2:] = [{**content[-2], "text": content[-2]["text"] + prefix}]


def lacks_thoughts(turns: Sequence[Block]) -> bool:
    """Whether the turn that the server has to continue after tool results lacks its first thoughts.

    The server refuses such a turn while `thinking` is `enabled`. Clients that keep only the text
    and the calls of an answer send such turns.
    """
    begun: Block | None = None
    for turn in turns:
        if turn["role"] == "assistant":
            begun = begun or turn
        elif any(block.get("type") != "tool_result" for block in turn["content"]):
            begun = None  # the user has spoken: a new turn
    if begun is None:
        return False
    types = [block.get("type") for block in begun["content"]]
    return "tool_use" in types and types[0] not in _THINKING


def _add(turns: list[Block], role: str, blocks: list[Block]) -> None:
    if not blocks:
        return
    if turns and turns[-1]["role"] == role:
        turns[-1]["content"] += blocks
    else:
        turns.append({"role": role, "content": list(blocks)})


def _cached(message: Mapping[str, Any], blocks: list[Block]) -> list[Block]:
    """Put `cache_control` of a message on its last block."""
    if blocks and isinstance(message.get(CACHE), dict) and CACHE not in blocks[-1]:
        blocks[-1] = {**blocks[-1], CACHE: message[CACHE]}
    return blocks


def _assistant_blocks(message: Mapping[str, Any], where: str) -> list[Block]:
    parts = parts_of(message, where)
    calls = calls_of(message, where)
    kept = kept_of(message, ANTHROPIC) or _native(message)
    text = text_of(parts)
    if text is None:
        return [*map(_thought_block, kept), *_blocks(parts), *map(_call_block, calls)]
    blocks: list[Block] = []
    wanted: list[dict[str, Any]] = [{"call": call} for call in calls]
    for piece in interleave(text, wanted, kept):
        if isinstance(piece, str):
            blocks += _blocks([(where, {"type": "text", "text": piece})])
        elif isinstance(piece, Kept):
            blocks.append(_thought_block(piece))
        else:
            blocks.append(_call_block(piece["call"]))
    return blocks


def _native(message: Mapping[str, Any]) -> list[Kept]:
    """Return blocks in Anthropic's own form, as gateways give them to clients."""
    blocks = message.get("thinking_blocks")
    return [
        Kept(Place(), block)
        for block in (blocks if isinstance(blocks, list) else ())
        if isinstance(block, dict) and block.get("type") in _THINKING
    ]


def _thought_block(kept: Kept) -> Block:
    detail = kept.detail
    match detail.get("type"):
        case type_ if type_ == SIGNED:
            text, signature = detail.get("text") or "", detail.get("signature")
            return {"type": "thinking", "thinking": text, "signature": signature}
        case type_ if type_ == ENCRYPTED:
            return {"type": "redacted_thinking", "data": detail.get("data")}
    return dict(detail)


def _call_block(call: Call) -> Block:
    block = {
        "type": "tool_use", "id": _id(call.id), "name": call.name, "input": call.arguments,
    }  # fmt: skip
    return block | _cache_of(call.call)


def _result_block(message: Mapping[str, Any], where: str) -> Block:
    parts = parts_of(message, where)
    text = text_of(parts)
    block: Block = {"type": "tool_result", "tool_use_id": _id(result_id(message))}
    content: Any = text if text is not None else _blocks(parts)
    if content:
        block["content"] = content
    if isinstance(message.get("is_error"), bool):
        block["is_error"] = message["is_error"]
    return block | _cache_of(message)


def _id(call_id: str) -> str:
    return _NOT_OF_ID.sub("_", call_id)


def _cache_of(members: Mapping[str, Any]) -> Block:
    found = members.get(CACHE)
    return {CACHE: found} if isinstance(found, dict) else {}


def _blocks(parts: list[tuple[str, dict[str, Any]]]) -> list[Block]:
    found = []
    for where, part in parts:
        block = _block(where, part)
        if block is not None:
            found.append(block | _cache_of(part))
    return found


def _block(where: str, part: dict[str, Any]) -> Block | None:
    match part.get("type"):
        case "text" | "input_text" | "output_text" | "refusal":
            text = part.get("text", part.get("refusal"))
            if not isinstance(text, str):
                raise unsendable(f"{where}.text", "must be a string")
            return {"type": "text", "text": text} if text.strip() else None
        case "image_url":
            image = part.get("image_url")
            return _image(
                f"{where}.image_url", image.get("url") if isinstance(image, dict) else image
            )
        case "file":
            file = part.get("file")
            return _document(f"{where}.file", file if isinstance(file, dict) else {})
        case "input_audio" | "video_url":
            raise unsendable(where, "this model reads texts, pictures and documents only")
        case None:
            raise unsendable(where, "must be an object with a type")
    return part


def _image(where: str, url: Any) -> Block:
    if not isinstance(url, str):
        raise unsendable(where, "must have a url")
    inline = inline_of(url, where)
    if inline is None:
        return {"type": "image", "source": {"type": "url", "url": url}}
    if inline.media_type == PDF:
        return _base64("document", PDF, inline.data)
    return _base64("image", inline.media_type, inline.data)


def _base64(kind: str, media_type: str, data: str) -> Block:
    return {"type": kind, "source": {"type": "base64", "media_type": media_type, "data": data}}


def _document(where: str, file: Mapping[str, Any]) -> Block:
    data, file_id = file.get("file_data"), file.get("file_id")
    title = {"title": file["filename"]} if isinstance(file.get("filename"), str) else {}
    if isinstance(file_id, str) and not data:
        return {"type": "document", "source": {"type": "file", "file_id": file_id}, **title}
    if not isinstance(data, str) or not data:
        raise unsendable(where, "must have file_data")
    if data[:8].lower().startswith(("http://", "https://")):
        return {"type": "document", "source": {"type": "url", "url": data}, **title}
    inline = inline_of(data, where)
    if inline is None:
        return _base64("document", PDF, data) | title
    if inline.media_type.startswith("image/"):
        return _base64("image", inline.media_type, inline.data)
    if inline.media_type.startswith("text/"):
        text = decoded(inline, where)
        source = {"type": "text", "media_type": "text/plain", "data": text}
        return {"type": "document", "source": source, **title}
    return _base64("document", inline.media_type, inline.data) | title

"""Chat messages as Gemini's `systemInstruction` and `contents`. Pure.

    system, developer        parts of `systemInstruction`, wherever they stand
    user                     text, inlineData and fileData parts
    assistant                a content `model`: text, pictures and calls with their signatures
    tool, function           functionResponse parts; a response is an object

Neighbours of one role are one content, because the results of all calls of a turn must stand
together. Parts of other types are the vendor's own and pass unchanged.
Source: ai.google.dev, "Function calling", "Thought signatures", "Image understanding".
"""

from __future__ import annotations

import mimetypes
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from workers.backends.vendor.chat import (
    Call,
    calls_of,
    inline_of,
    object_in,
    parts_of,
    result_id,
    text_of,
    unsendable,
)
from workers.backends.vendor.kept_thoughts import GEMINI, Kept, interleave, kept_of

_SYSTEM = ("system", "developer")
_RESULTS = ("tool", "function")
# Google's word for a call whose signature is not at hand, for example a call of another model.
NO_SIGNATURE = "skip_thought_signature_validator"
_OUR_IDS = "call_"  # ids that Gemini did not give
_AUDIO = {"mp3": "audio/mp3", "wav": "audio/wav"}

Part = dict[str, Any]


def translate(
    messages: Sequence[Mapping[str, Any]], *, wants_signatures: bool
) -> tuple[list[Part], list[dict[str, Any]]]:
    """Return the parts of `systemInstruction`, and `contents`.

    Args:
        wants_signatures: the model refuses calls without a signature.

    Raises:
        BackendError: a part has a form that the server cannot be given.
    """
    system: list[Part] = []
    contents: list[dict[str, Any]] = []
    names: dict[str, str] = {}  # of the functions, by the id of the call
    for number, message in enumerate(messages):
        where = f"messages[{number}]"
        role = message.get("role")
        if role in _SYSTEM:
            system += _parts(parts_of(message, where))
        elif role == "assistant":
            calls = calls_of(message, where)
            names |= {call.id: call.name for call in calls}
            parts = _model_parts(message, where, calls)
            if wants_signatures:
                _sign(parts)
            _add(contents, "model", parts)
        elif role in _RESULTS:
            _add(contents, "user", [_result_part(message, where, names)])
        else:
            _add(contents, "user", _parts(parts_of(message, where)))
    return system, contents


def continue_turn(contents: list[dict[str, Any]], prefix: str) -> None:
    """Add the answer so far as the beginning of the model's turn."""
    _add(contents, "model", [{"text": prefix}])


def _add(contents: list[dict[str, Any]], role: str, parts: list[Part]) -> None:
    if not parts:
        return
    if contents and contents[-1]["role"] == role:
        contents[-1]["parts"] += parts
    else:
        contents.append({"role": role, "parts": list(parts)})


def _model_parts(message: Mapping[str, Any], where: str, calls: list[Call]) -> list[Part]:
    parts = parts_of(message, where)
    images = message.get("images")
    shown = [_image_part(f"{where}.images", i) for i in images] if isinstance(images, list) else []
    text = text_of(parts)
    if text is None:
        return [*_parts(parts), *shown, *map(_call_part, calls)]
    found: list[Part] = []
    signature: Any = None  # waits for its part, which follows
    wanted: list[dict[str, Any]] = [{"call": call} for call in calls]
    for piece in interleave(text, wanted, kept_of(message, GEMINI)):
        if isinstance(piece, Kept):
            if signature is not None:
                found.append({"text": "", "thoughtSignature": signature})
            signature = piece.detail.get("data")
        elif isinstance(piece, str):
            found.append({"text": piece} | _signed(signature))
            signature = None
        else:
            if signature is not None:
                found.append({"text": "", "thoughtSignature": signature})
                signature = None
            found.append(_call_part(piece["call"]))
    if signature is not None:
        found.append({"text": "", "thoughtSignature": signature})
    calls_at = next((at for at, part in enumerate(found) if "functionCall" in part), len(found))
    return [*found[:calls_at], *shown, *found[calls_at:]]


def _signed(signature: Any) -> Part:
    return {} if signature is None else {"thoughtSignature": signature}


def _signature_in(members: Mapping[str, Any]) -> Part:
    """Return the signature of a call or a picture, where Google's chat completions have it."""
    extra = members.get("extra_content")
    google = extra.get("google") if isinstance(extra, dict) else None
    found = google.get("thought_signature") if isinstance(google, dict) else None
    return _signed(found if isinstance(found, str) else None)


def _sign(parts: list[Part]) -> None:
    """Mark the first call as one without a signature, if no call of the turn has one."""
    calls = [part for part in parts if "functionCall" in part]
    if calls and not any("thoughtSignature" in part for part in calls):
        calls[0]["thoughtSignature"] = NO_SIGNATURE


def _call_part(call: Call) -> Part:
    function = {"name": call.name, "args": call.arguments} | _id_of(call.id)
    return {"functionCall": function} | _signature_in(call.call)


def _id_of(call_id: str) -> Part:
    return {} if call_id.startswith(_OUR_IDS) else {"id": call_id}


def _result_part(message: Mapping[str, Any], where: str, names: Mapping[str, str]) -> Part:
    call_id = result_id(message)
    name = names.get(call_id) or message.get("name")
    if not isinstance(name, str):
        raise unsendable(f"{where}.tool_call_id", "no call before it has this id")
    parts = parts_of(message, where)
    texts = [(place, part) for place, part in parts if part.get("type") == "text"]
    text = text_of([(place, {"type": "text", "text": part.get("text")}) for place, part in texts])
    response: Part = {"name": name, "response": object_in(text or "", "result")} | _id_of(call_id)
    if others := [pair for pair in parts if pair[1].get("type") != "text"]:
        response["parts"] = _parts(others)
    return {"functionResponse": response}


def _parts(parts: list[tuple[str, dict[str, Any]]]) -> list[Part]:
    return [found for where, part in parts if (found := _part(where, part)) is not None]


def _part(where: str, part: dict[str, Any]) -> Part | None:
    match part.get("type"):
        case "text" | "input_text" | "output_text" | "refusal":
            text = part.get("text", part.get("refusal"))
            if not isinstance(text, str):
                raise unsendable(f"{where}.text", "must be a string")
            return {"text": text} if text else None
        case "image_url" | "video_url":
            return _image_part(where, part)
        case "input_audio":
            return _audio_part(where, part.get("input_audio"))
        case "file":
            file = part.get("file")
            return _file_part(f"{where}.file", file if isinstance(file, dict) else {})
        case None:
            if part:
                return part  # Gemini's own parts have no type
            raise unsendable(where, "must be an object with a type")
    return part


def _image_part(where: str, part: Any) -> Part:
    members = part if isinstance(part, dict) else {}
    image = members.get("image_url", members.get("video_url"))
    url = image.get("url") if isinstance(image, dict) else image
    if not isinstance(url, str):
        raise unsendable(where, "must have a url")
    return _url_part(where, url) | _signature_in(members)


def _url_part(where: str, url: str) -> Part:
    inline = inline_of(url, where)
    if inline is not None:
        return {"inlineData": {"mimeType": inline.media_type, "data": inline.data}}
    guessed, _ = mimetypes.guess_type(urlsplit(url).path)
    return {"fileData": {"fileUri": url} | ({"mimeType": guessed} if guessed else {})}


def _audio_part(where: str, audio: Any) -> Part:
    data = audio.get("data") if isinstance(audio, dict) else None
    if not isinstance(data, str):
        raise unsendable(f"{where}.input_audio.data", "must be base64")
    form = str(audio.get("format") or "wav")
    return {"inlineData": {"mimeType": _AUDIO.get(form, f"audio/{form}"), "data": data}}


def _file_part(where: str, file: Mapping[str, Any]) -> Part:
    data, file_id = file.get("file_data"), file.get("file_id")
    if isinstance(file_id, str) and not data:
        return {"fileData": {"fileUri": file_id}}
    if not isinstance(data, str) or not data:
        raise unsendable(where, "must have file_data")
    if data[:8].lower().startswith(("http://", "https://")) or data[:5].lower() == "data:":
        return _url_part(where, data)
    guessed, _ = mimetypes.guess_type(str(file.get("filename") or ""))
    return {"inlineData": {"mimeType": guessed or "application/pdf", "data": data}}

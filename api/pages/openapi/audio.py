"""The part of the OpenAPI document about audio inputs. Data only. Source: docs/audio.md."""

from __future__ import annotations

from api.pages.openapi.schemas import (
    ID,
    INTEGER,
    SHARED,
    STATUS,
    STRING,
    Json,
    answer,
    content,
    errors,
    parameter,
    record,
)
from shared.audio.input import CHUNK_BYTES_MAX, SEQ_MAX
from shared.audio.media import CHARACTERS_MAX

# The member `audio` of a new generation. Of raw samples the parameters are checked further.
AUDIO: Json = {
    "description": "The client sends audio while the generation runs.",
    **record(
        {
            "media_type": {
                "type": "string",
                "maxLength": CHARACTERS_MAX,
                "examples": ["audio/pcm;rate=16000;channels=1"],
                "pattern": "^audio/(ogg|webm|wav|mpeg|flac|pcm;rate=16000(;channels=1)?)$",
            }
        }
    ),
    "additionalProperties": False,
}
BOOLEAN: Json = {"type": "boolean"}
STATE: Json = {
    "id": STRING,
    "next_seq": INTEGER,
    "window_bytes": INTEGER,
    "is_complete": BOOLEAN,
}
SEQ: Json = {
    **parameter(
        "seq",
        "query",
        "The number of the chunk: 1, 2, 3 …",
        {"type": "integer", "minimum": 1, "maximum": SEQ_MAX},
    ),
    "required": True,
}
LAST: Json = parameter(
    "last", "query", "The input is complete with this chunk.", {"enum": ["true", "false"]}
)
BYTES: Json = {"type": "string", "format": "binary", "maxLength": CHUNK_BYTES_MAX}
PATHS: Json = {
    "/v1/generations/{id}/audio": {
        "get": {
            "operationId": "audioState",
            "summary": "Tell which chunk of the audio input is missing next.",
            "parameters": [ID],
            "responses": {
                "200": answer(
                    "The state of the input.",
                    record({**STATE, "media_type": STRING, "status": STATUS}),
                ),
                **errors("not_found", "no_audio_input", "expired", *SHARED),
            },
        },
        "post": {
            "operationId": "appendAudio",
            "summary": "Append a chunk to the audio input of a running generation. A repeat is "
            "stored once.",
            "parameters": [ID, SEQ, LAST],
            "requestBody": {
                "required": True,
                "content": content(BYTES, "application/octet-stream"),
            },
            "responses": {
                "200": answer("The chunk is stored.", record({**STATE, "received_seq": INTEGER})),
                **errors(
                    "invalid_http", "not_found", "request_timeout", "generation_ended",
                    "no_audio_input", "sequence_gap", "sequence_conflict", "audio_complete",
                    "audio_too_long", "audio_full", "owner_full", "body_too_large",
                    "unsupported_media_type", "invalid_request", "bodies_full", *SHARED,
                ),
            },
        },
    }
}  # fmt: skip

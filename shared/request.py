"""What a client asked for, as it is kept with the generation and handed to a backend."""

from __future__ import annotations

from typing import Any

import msgspec


class Request(msgspec.Struct, frozen=True):
    """One prompt, in the chat form that every backend takes.

    Attributes:
        messages: `role` and `content` each, oldest first; a bare prompt is one user message.
        params: passed on to the backend as they came: max_tokens, temperature, stop, tools, …
    """

    messages: list[dict[str, Any]]
    params: dict[str, Any] = {}


encode_request = msgspec.json.Encoder().encode
decode_request = msgspec.json.Decoder(Request).decode

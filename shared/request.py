"""What a client asked for, as it is kept with the generation and handed to a backend."""

from __future__ import annotations

from typing import Any

import msgspec


class Request(msgspec.Struct, frozen=True, omit_defaults=True):
    """One prompt, in the chat form that every backend takes.

    Attributes:
        messages: `role` and `content` each, oldest first; a bare prompt is one user message.
        params: passed on to the backend as they came: max_tokens, temperature, stop, tools, …
        dialect: what the client's own dialect must know again to answer; no backend sees it.
    """

    messages: list[dict[str, Any]]
    params: dict[str, Any] = {}
    dialect: dict[str, Any] = {}


encode_request = msgspec.json.Encoder().encode
decode_request = msgspec.json.Decoder(Request).decode

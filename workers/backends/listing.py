"""Asks a model server for its list of models.

OpenAI, vLLM, llama.cpp, Ollama, Anthropic    {"data": [{"id": "…"}]}
Gemini                                        {"models": [{"name": "models/…"}]}
"""

from __future__ import annotations

import asyncio

from shared.config.models import Model
from shared.errors import BackendError
from workers.backends.http.exchange import Exchange
from workers.backends.http.upstream_http import AddressInvalid, UpstreamAddress, UpstreamHttp
from workers.backends.reading.json_object import read_object
from workers.backends.route import Route

ANSWER_S = 15.0
ANSWER_BYTES_MAX = 4_194_304


async def ask_names(
    model: Model, http: UpstreamHttp, route: Route, *, answer_s: float = ANSWER_S
) -> list[str]:
    """Return the names of the models at the server of `model`, in the server's order.

    Raises:
        BackendError: the server gives no list. `is_outage` if the server does not answer; else
            `status` is the status of the answer.
    """
    headers = {"Accept": "application/json", "Accept-Encoding": "identity", **route.headers}
    loop = asyncio.get_running_loop()
    deadline = loop.time() + answer_s
    try:
        target = UpstreamAddress(
            model.base_url,
            model.kind.models_path,
            headers,
            method="GET",
            query=model.kind.models_query,
            tls=route.tls,
            proxy=route.proxy,
        )
        exchange = await http.connect(target.origin, deadline)
        try:
            return names_in(await _body(exchange, target.request(b""), deadline))
        finally:
            http.release(target.origin, exchange)
    except (OSError, AddressInvalid) as exc:  # also TimeoutError
        message = f"the list of models cannot be read: {str(exc) or type(exc).__name__}"
        raise BackendError("upstream_error", message, is_outage=True) from exc


async def _body(exchange: Exchange, request: bytes, deadline: float) -> bytes:
    exchange.send(request)
    await exchange.head(deadline)
    if exchange.status != 200:
        message = f"the backend answered {exchange.status} to a request for its list of models"
        error = BackendError("upstream_error", message)
        error.status = exchange.status
        raise error
    body = bytearray()
    while data := await exchange.read(deadline):
        body += data
        if len(body) > ANSWER_BYTES_MAX:
            message = f"the list of models is longer than {ANSWER_BYTES_MAX} bytes"
            raise BackendError("upstream_error", message)
    return bytes(body)


def names_in(body: bytes) -> list[str]:
    """Return the names in a list.

    Raises:
        BackendError: it is no list.
    """
    answer = read_object(body)
    for member, name in (("data", "id"), ("models", "name")):
        entries = answer.get(member)
        if isinstance(entries, list):
            found = [entry.get(name) for entry in entries if isinstance(entry, dict)]
            return [text.removeprefix("models/") for text in found if isinstance(text, str)]
    raise BackendError("upstream_error", "the list of models has another form")

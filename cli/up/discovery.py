"""Finds model servers at the usual ports of this machine, and writes a models file for them.

    11434   Ollama             /api/tags
    8080    llama.cpp          /v1/models
    8000    vLLM               /v1/models
    1234    LM Studio          /v1/models
    30000   SGLang             /v1/models

Asks only 127.0.0.1, each port once, all at the same time, for at most `ANSWER_S`. A port without a
server refuses at once. Nodes of Tailrace, which also list models, are left out. `read_ollama`,
`read_openai` and `write_models` are pure.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from shared.config.models import MODEL_NAME

HOST = "127.0.0.1"
ANSWER_S = 1.0
ANSWER_BYTES_MAX = 2_097_152
CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d{1,12})")
MODELS_MAX = 200  # of one server
# The errors of a reply without JSON, also of a reply that ends early or whose head has no end.
NO_LIST = (
    *(OSError, TimeoutError, ValueError, RecursionError),
    *(asyncio.IncompleteReadError, asyncio.LimitOverrunError),
)
OURS = "tailrace"  # the owner of models in our own list
SERVERS = {"vllm": "vLLM", "llamacpp": "llama.cpp", "sglang": "SGLang", "library": "Ollama"}


@dataclass(frozen=True, slots=True)
class FoundServer:
    """A model server of this machine.

    Attributes:
        title: of the program, for a person.
        backend: the kind.
        base_url: in the form of the kind.
        models: names at the server.
    """

    title: str
    backend: str
    base_url: str
    models: tuple[str, ...]


class Place(NamedTuple):
    """Where a server usually is, and how to read its list of models.

    Attributes:
        read: receives the decoded list and the port; None: this is no such server.
    """

    port: int
    path: str
    read: Callable[[Any, int], FoundServer | None]


def read_ollama(answer: Any, port: int) -> FoundServer | None:
    """Read Ollama's list, `{"models": [{"name", "details": {"family"}}]}`.

    Models that only make embeddings have a family with `bert`, and are left out.
    """
    models = answer.get("models") if isinstance(answer, dict) else None
    if not isinstance(models, list):
        return None
    names = [
        model["name"]
        for model in models
        if isinstance(model, dict)
        and isinstance(model.get("name"), str)
        and "bert" not in str((model.get("details") or {}).get("family", ""))
    ]
    return FoundServer("Ollama", "ollama", f"http://localhost:{port}", _bounded(names))


def read_openai(answer: Any, port: int) -> FoundServer | None:
    """Read the list of OpenAI's interface, `{"data": [{"id", "owned_by"}]}`."""
    data = answer.get("data") if isinstance(answer, dict) else None
    models = [model for model in data if isinstance(model, dict)] if isinstance(data, list) else []
    owners = {str(model.get("owned_by", "")) for model in models}
    if not models or OURS in owners:
        return None
    title = next((SERVERS[owner] for owner in sorted(owners) if owner in SERVERS), "a model server")
    names = [model["id"] for model in models if isinstance(model.get("id"), str)]
    return FoundServer(title, "openai", f"http://localhost:{port}/v1", _bounded(names))


def _bounded(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in names if name.isprintable()))[:MODELS_MAX]


PLACES = (
    Place(11434, "/api/tags", read_ollama),
    *(Place(port, "/v1/models", read_openai) for port in (8080, 8000, 1234, 30000)),
)


async def find_servers(places: Sequence[Place] = PLACES) -> list[FoundServer]:
    """Return the model servers of this machine, in the order of `places`."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_ask(place)) for place in places]
    return [found for task in tasks if (found := task.result()) is not None and found.models]


async def _ask(place: Place) -> FoundServer | None:
    answer = None
    with suppress(*NO_LIST):
        async with asyncio.timeout(ANSWER_S):
            answer = json.loads(await _get(place))
    return place.read(answer, place.port) if answer is not None else None


async def _get(place: Place) -> bytes:
    """Return the body of a 200. HTTP/1.0 with `close`: most servers end the body by closing."""
    reader, writer = await asyncio.open_connection(HOST, place.port, limit=ANSWER_BYTES_MAX)
    with closing(writer):
        lines = [f"GET {place.path} HTTP/1.0", f"Host: localhost:{place.port}"]
        lines += ["Accept: */*", "Connection: close", "", ""]
        writer.write("\r\n".join(lines).encode())
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if head.split(b" ")[1:2] != [b"200"]:
            raise ValueError("no list of models")
        length = CONTENT_LENGTH.search(head)
        if length is not None:
            return await reader.readexactly(min(int(length[1]), ANSWER_BYTES_MAX))
        body = bytearray()
        while len(body) < ANSWER_BYTES_MAX and (piece := await reader.read(65_536)):
            body += piece
    return _without_chunks(bytes(body)) if b"chunked" in head else bytes(body)


def _without_chunks(body: bytes) -> bytes:
    """Join the chunks of a server that sends them to HTTP/1.0, too."""
    pieces = []
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size.partition(b";")[0], 16)
        pieces.append(body[:length])
        body = body[length + 2 :]
    return b"".join(pieces)


def write_models(servers: Sequence[FoundServer], *, taken: Iterable[str] = ()) -> str:
    """Return a models file with every model of these servers.

    Args:
        taken: names of models that the file has already.
    """
    names = set(taken)
    tables = []
    for server in servers:
        tables.append(f"# {server.title} at {server.base_url}")
        for model in server.models:
            name = _name_for(model, names)
            names.add(name)
            table = [
                f"[models.{_quoted(name)}]",
                f'backend = "{server.backend}"',
                f'base_url = "{server.base_url}"',
            ]
            if name != model:
                table.append(f"model = {_quoted(model)}")
            tables.append("\n".join(table))
    return "\n\n".join(tables) + "\n"


def _name_for(model: str, taken: set[str]) -> str:
    """Return a name that clients can use: llama.cpp names a model by the path of its file."""
    name = model.replace("\\", "/")
    if MODEL_NAME.fullmatch(name) is None:
        name = name.rpartition("/")[2].removesuffix(".gguf")
        name = "".join(c if c.isascii() and (c.isalnum() or c in "._:@+-") else "-" for c in name)
        name = name.lstrip("._:@+-")[:100] or "model"
    number, base = 2, name
    while name in taken:
        name, number = f"{base}-{number}", number + 1
    return name


def _quoted(text: str) -> str:
    return json.dumps(text)  # a string of JSON is one of TOML

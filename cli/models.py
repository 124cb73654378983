"""Model servers of this machine: `tailrace models discover`, and the doctor's findings."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress
from urllib.parse import urlsplit

from cli.busy import busy
from cli.finding import Finding
from cli.up.discovery import PLACES, find_servers, write_models
from shared.config.models import load_models
from shared.config.settings import Settings
from shared.errors import ConfigurationError

EXIT_NOTHING_FOUND = 1


def discover(output: str, *, is_json: bool = False) -> int:
    """Run `tailrace models discover`; return the exit code.

    Args:
        output: the file to write; empty: standard output.
        is_json: print the servers as JSON; a models file is written only to `output`.

    Raises:
        ConfigurationError: the file exists, or cannot be written.
    """
    with busy("asking the usual ports"):
        servers = asyncio.run(find_servers())
    if is_json:
        rows = [{"title": each.title, "base_url": each.base_url, "models": list(each.models)}
                for each in servers]  # fmt: skip
        print(json.dumps({"servers": rows}))
    if not servers:
        ports = ", ".join(str(place.port) for place in PLACES)
        text = f"tailrace models: no model server answers at the ports {ports} of this machine"
        print(f"{text}: start one, or write its base_url yourself", file=sys.stderr)
        return EXIT_NOTHING_FOUND
    text = write_models(servers)
    if output:
        try:
            with open(output, "x", encoding="utf-8") as file:  # never overwrites a models file
                file.write(text)
        except OSError as exc:
            raise ConfigurationError(f"{output}: {exc.strerror}: name another file") from exc
    elif not is_json:
        print(text, end="")
    if is_json:
        return 0
    for server in servers:
        found = f"{server.title} at {server.base_url}: {', '.join(server.models)}"
        print(f"tailrace models: found {found}", file=sys.stderr)
    return 0


async def examine_found(settings: Settings) -> list[Finding]:
    """Return a finding for each server that no model of the models file names."""
    if settings.models_discover == "off":
        return []
    named: set[int | None] = set()
    with suppress(ConfigurationError, ValueError):  # the doctor reports them elsewhere
        models = load_models(settings.models)
        named = {urlsplit(model.base_url).port for model in models.values()}
    servers = await find_servers([place for place in PLACES if place.port not in named])
    advice = "`tailrace models discover` prints its tables for the models file"
    return [
        Finding("ok", "found", f"{server.title} at {server.base_url}: {advice}")
        for server in servers
    ]

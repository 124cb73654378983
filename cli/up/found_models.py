"""The models that `tailrace up` serves without a models file: the demo, and found models."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from pathlib import Path

from cli.up.discovery import find_servers, write_models
from shared.config.models import DEMO, DEMO_TRANSCRIBER
from shared.config.settings import Settings
from shared.text.plain_text import plain_line

FOUND_MODELS = "found-models.toml"  # in the data directory; written anew at each start
HEAD = "# `tailrace up` writes this file at each start without TAILRACE_MODELS.\n\n"
MODELS_SHOWN = 8  # of each server


def find_models(settings: Settings, say: Callable[[str], None]) -> Settings:
    """Without a models file, look for model servers of this machine and write a file for them.

    The demo stays the first model, so the default does not depend on other programs here.

    Args:
        say: prints a line for the operator.

    Returns:
        The settings, with the file if a server was found.
    """
    if settings.models or settings.models_discover == "off":
        return settings
    servers = asyncio.run(find_servers())
    if not servers:
        return settings
    path = Path(settings.data_dir).resolve() / FOUND_MODELS
    path.parent.mkdir(parents=True, exist_ok=True)
    demos = (DEMO, DEMO_TRANSCRIBER)
    first, last = (f'[models.{demo.name}]\nbackend = "{demo.backend}"\n\n' for demo in demos)
    found = write_models(servers, taken=[demo.name for demo in demos])
    path.write_text(f"{HEAD}{first}{found}\n{last}")
    for server in servers:
        names = f"{server.title} at {server.base_url}: {', '.join(server.models[:MODELS_SHOWN])}"
        say(f"tailrace up: found {plain_line(names)}")
    return dataclasses.replace(settings, models=str(path))

"""Logging: one format for our lines and those of libraries, set up once per process.

A message is a constant event name, and its data goes in `extra`; `generation_id` and `request_id`
come from context variables. Invariants: no line shows a credential (shared/text/redaction.py) or
holds control characters (shared/text/plain_text.py); no library logs below WARNING, because some
would log texts, headers and URLs. No caller logs the text of a prompt or an answer, at any level.
"""

from __future__ import annotations

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from shared.config.settings import Settings
from shared.text.plain_text import plain_block, plain_json, plain_line
from shared.text.redaction import redact, remember, remember_url

generation_id: ContextVar[str] = ContextVar("generation_id", default="")
request_id: ContextVar[str] = ContextVar("request_id", default="")

OURS = ("api", "workers", "shared", "jobs", "cli")
# Libraries that otherwise set a handler or a level of their own.
LIBRARIES = ("uvicorn", "uvicorn.error", "uvicorn.access", "arq", "arq.worker", "websockets")
STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def configure(settings: Settings, role: str) -> None:
    """Send every log line of this process to standard error, in the format of the settings."""
    remember(settings.key)
    for url in (settings.redis_url, settings.jobs_redis_url, settings.files_url):
        remember_url(url)
    is_json = settings.log == "json" or (settings.log == "" and not sys.stderr.isatty())
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter(role) if is_json else TextFormatter(role))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in OURS:
        logging.getLogger(name).setLevel(settings.log_level.upper())
    for name in LIBRARIES:
        library = logging.getLogger(name)
        library.handlers[:] = []
        library.propagate = True
        library.setLevel(logging.WARNING)
    # It logs the query of each request, and so ?access_token=. Metrics count requests.
    logging.getLogger("uvicorn.access").disabled = True
    logging.captureWarnings(True)


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return the members of `extra`, and the ids of the context that `extra` lacks."""
    context = {"generation_id": generation_id.get(), "request_id": request_id.get()}
    extra = {name: value for name, value in vars(record).items() if name not in STANDARD}
    return {name: value for name, value in context.items() if value} | extra


class JsonFormatter(logging.Formatter):
    """Formats one JSON object per line: time, level, role, event, logger, then the data."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, Any] = {
            "time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "role": self._role,
            "event": record.getMessage(),
            "logger": record.name,
        }
        line.update((k, v) for k, v in fields_of(record).items() if k not in line)
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        text = json.dumps(line, ensure_ascii=False, default=str, skipkeys=True)
        return plain_json(redact(text))


class TextFormatter(logging.Formatter):
    """Formats one line for a person: clock, level, role, event, `name=value`; then a traceback."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        clock = datetime.fromtimestamp(record.created).strftime("%H:%M:%S.%f")[:-3]
        head = f"{clock} {record.levelname.lower():<7} {self._role:<6} {record.getMessage()}"
        data = [f"{name}={_shown(value)}" for name, value in fields_of(record).items()]
        line = plain_line("  ".join([head, *data]))
        if record.exc_info:
            line += "\n" + plain_block(self.formatException(record.exc_info))
        return redact(line)


def _shown(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return repr(text) if " " in text or text == "" else text

"""The stage `documents`: attached files become text before the model is asked."""

from __future__ import annotations

import re
from typing import Any

from shared.config.kinds.spec import count, switch
from shared.config.stages.spec import StageSpec, number
from shared.errors import ConfigurationError

_LANGUAGES = re.compile(r"[A-Za-z_]{2,20}(\+[A-Za-z_]{2,20}){0,9}")


def languages(value: Any, where: str) -> str:
    """Check the languages of tesseract, joined by +."""
    if not isinstance(value, str) or _LANGUAGES.fullmatch(value) is None:
        raise ConfigurationError(f'{where}: must be languages of tesseract, such as "eng+deu"')
    return value


DOCUMENTS = StageSpec(
    name="documents",
    members={
        "pages_max": count(1, 10_000),
        "file_bytes_max": count(1, 1_073_741_824),
        "text_max": count(1, 10_000_000),
        "files_max": count(1, 100),
        "read_s": number(0.1, 3_600),
        "memory_mb": count(128, 65_536),
        "cache_s": number(0, 2_592_000),
        "ocr": languages,
        "pictures": switch,
    },
)

"""The stage `filter`: words and patterns that must not reach readers."""

from __future__ import annotations

from typing import Any

from shared.config.kinds.spec import count, one_of, switch, text
from shared.config.stages.spec import StageSpec, texts
from shared.errors import ConfigurationError

WORDS_MAX = 20_000  # of one filter, those of the file included
WORD_CHARACTERS_MAX = 128
PATTERNS_MAX = 100
PATTERN_CHARACTERS_MAX = 1_000
MATCH_CHARACTERS_MAX = 1_000  # the largest value of `max_match`
FILTER_CHANNELS = ("answer", "reasoning", "tools")


def mask(value: Any, where: str) -> str:
    """Check the character that replaces each character of a match."""
    if not isinstance(value, str) or len(value) != 1 or not value.isprintable() or value.isspace():
        raise ConfigurationError(f"{where}: must be one visible character")
    if value.isalnum():
        raise ConfigurationError(f"{where}: must be neither a letter nor a digit")
    return value


def channels(value: Any, where: str) -> list[str]:
    """Check which parts of an answer are filtered."""
    if not isinstance(value, list) or not value or any(x not in FILTER_CHANNELS for x in value):
        raise ConfigurationError(f"{where}: must be a list of {', '.join(FILTER_CHANNELS)}")
    return value


FILTER = StageSpec(
    name="filter",
    members={
        "words": texts(WORDS_MAX, WORD_CHARACTERS_MAX),
        "words_file": text,
        "patterns": texts(PATTERNS_MAX, PATTERN_CHARACTERS_MAX),
        "max_match": count(1, MATCH_CHARACTERS_MAX),
        "whole_words": switch,
        "action": one_of("mask", "stop"),
        "mask": mask,
        "channels": channels,
    },
    one_of=("words", "words_file", "patterns"),
    is_repeatable=True,
)

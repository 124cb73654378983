"""The kind `completions`: servers that continue a raw text, `/v1/completions`.

A template says how the messages of a chat become one text. The models file names a built-in
template, or has one as a table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shared.config.kinds.spec import HTTP, KindSpec, count
from shared.errors import ConfigurationError

PLACE = "{content}"  # stands for the text of a message
# OpenAI and vLLM stop after 16 tokens when a request has no `max_tokens`.
MAX_TOKENS = 1_024
STOPS_MAX = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptTemplate:
    """How messages become a prompt: the parts in order, joined by `separator`, then `answer`.

    Attributes:
        system, user, assistant: a message of this role; `{content}` stands for its text.
        answer: the beginning of the answer's turn, which the server continues.
        separator: stands between two parts.
        stop: texts that end the answer; they are sent beside those of the client.
    """

    system: str = PLACE
    user: str = PLACE
    assistant: str = PLACE
    answer: str = ""
    separator: str = ""
    stop: tuple[str, ...] = ()


# A server adds the token at the beginning of a text itself, so no template has it.
TEMPLATES: Mapping[str, PromptTemplate] = {
    "text": PromptTemplate(separator="\n\n"),
    "roles": PromptTemplate(
        user="User: {content}",
        assistant="Assistant: {content}",
        answer="Assistant:",
        separator="\n\n",
        stop=("\nUser:",),
    ),
    "chatml": PromptTemplate(
        system="<|im_start|>system\n{content}<|im_end|>\n",
        user="<|im_start|>user\n{content}<|im_end|>\n",
        assistant="<|im_start|>assistant\n{content}<|im_end|>\n",
        answer="<|im_start|>assistant\n",
        stop=("<|im_end|>",),
    ),
    "llama3": PromptTemplate(
        system="<|start_header_id|>system<|end_header_id|>\n\n{content}<|eot_id|>",
        user="<|start_header_id|>user<|end_header_id|>\n\n{content}<|eot_id|>",
        assistant="<|start_header_id|>assistant<|end_header_id|>\n\n{content}<|eot_id|>",
        answer="<|start_header_id|>assistant<|end_header_id|>\n\n",
        stop=("<|eot_id|>",),
    ),
}
_ROLES = ("system", "user", "assistant")
_TEXTS = (*_ROLES, "answer", "separator")


def check_template(value: Any, where: str) -> PromptTemplate:
    """Check the member `template`: a name of `TEMPLATES`, or a table.

    Raises:
        ConfigurationError: an unknown name or member, or a value that is not allowed.
    """
    if isinstance(value, str) and value in TEMPLATES:
        return TEMPLATES[value]
    if not isinstance(value, dict):
        names = ", ".join(TEMPLATES)
        raise ConfigurationError(f"{where}: must be one of {names}, or a table")
    for name, text in value.items():
        if name not in (*_TEXTS, "stop"):
            raise ConfigurationError(f"{where}: unknown member {name!r}")
        if name in _TEXTS and not isinstance(text, str):
            raise ConfigurationError(f"{where}.{name}: must be a string")
        if name in _ROLES and text.count(PLACE) != 1:
            raise ConfigurationError(f"{where}.{name}: must have {PLACE} once")
    stop = value.get("stop", [])
    is_list = isinstance(stop, list) and len(stop) <= STOPS_MAX
    if not is_list or not all(isinstance(text, str) and text for text in stop):
        raise ConfigurationError(f"{where}.stop: must be a list of at most {STOPS_MAX} texts")
    return PromptTemplate(**{**value, "stop": tuple(stop)})


COMPLETIONS = KindSpec(
    name="completions",
    schemes=HTTP,
    has_rules=True,
    styles=("exact",),
    continues_always=True,
    members={"template": check_template, "max_tokens": count(1, 2**31 - 1)},
    models_path="/models",
)

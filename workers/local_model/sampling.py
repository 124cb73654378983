"""How the next token is chosen: the members of `params` that a local model obeys. Pure.

Members that would change what the answer means, and that a local model cannot obey, are refused.
Other members are ignored, as servers do.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from workers.local_model.prompt import PromptRefused

# The model card of SmolLM2. A model this small says nonsense at OpenAI's default of 1.
TEMPERATURE = 0.2
TOP_P = 0.9
STOPS_MAX = 16
STOP_CHARACTERS_MAX = 256


class Sampling(NamedTuple):
    """How one answer is computed.

    Attributes:
        max_tokens: None: as many as fit.
        temperature: 0: always the likeliest token.
    """

    max_tokens: int | None
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    presence_penalty: float
    frequency_penalty: float
    repeat_penalty: float
    seed: int
    stops: tuple[str, ...]


def read_sampling(params: Mapping[str, Any], seed: str) -> Sampling:
    """Return what `params` ask for.

    Args:
        seed: gives the same random numbers again; `params["seed"]` wins.

    Raises:
        PromptRefused: a value that is not allowed, or a member that cannot be obeyed.
    """
    _refuse_what_it_cannot(params)
    limits = [_whole(params, name, least=1) for name in ("max_tokens", "max_completion_tokens")]
    given = [limit for limit in limits if limit is not None]
    number = _whole(params, "seed", least=-(2**63))
    return Sampling(
        max_tokens=min(given, default=None),
        temperature=_number(params, "temperature", TEMPERATURE, 0, 2),
        top_p=_number(params, "top_p", TOP_P, 0, 1),
        top_k=_whole(params, "top_k", least=0) or 0,
        min_p=_number(params, "min_p", 0.0, 0, 1),
        presence_penalty=_number(params, "presence_penalty", 0.0, -2, 2),
        frequency_penalty=_number(params, "frequency_penalty", 0.0, -2, 2),
        repeat_penalty=_number(params, "repeat_penalty", 1.0, 0.1, 10),
        seed=(zlib.crc32(seed.encode()) if number is None else number) % 2**32,
        stops=_stops(params.get("stop")),
    )


def _refuse_what_it_cannot(params: Mapping[str, Any]) -> None:
    form = params.get("response_format")
    kind = form.get("type") if isinstance(form, dict) else form
    if kind not in (None, "text"):
        raise PromptRefused(f"a local model gives no structured output (response_format {kind!r})")
    if params.get("tool_choice") not in (None, "auto", "none"):
        raise PromptRefused("a local model calls no tools: leave tool_choice out")
    for name in ("logprobs", "top_logprobs", "logit_bias"):
        if params.get(name):
            raise PromptRefused(f"a local model does not support {name}: leave it out")


def _stops(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise PromptRefused("stop must be a string or a list of strings")
    if len(stops) > STOPS_MAX or any(len(stop) > STOP_CHARACTERS_MAX for stop in stops):
        raise PromptRefused(
            f"stop may have {STOPS_MAX} strings of {STOP_CHARACTERS_MAX} characters"
        )
    return tuple(stop for stop in stops if stop)


def _whole(params: Mapping[str, Any], name: str, *, least: int) -> int | None:
    value = params.get(name)
    if value is None:
        return None
    if type(value) is not int or value < least:
        raise PromptRefused(f"{name} must be a whole number from {least} on")
    return value


def _number(
    params: Mapping[str, Any], name: str, default: float, least: float, most: float
) -> float:
    value = params.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise PromptRefused(f"{name} must be a number from {least:g} to {most:g}")
    return float(value)

"""The kind `grpc`: servers that stream answers over gRPC.

Two protocols: `tailrace`, our own (proto/tailrace/backend/v1/backend.proto), and `kserve`, the Open
Inference Protocol with Triton's streaming call. The latter knows tensors and no chats, so a
template makes one text of the messages, and the table `tensors` says which tensors a model has
beside `text_input`.
"""

from __future__ import annotations

import re
from typing import Any

from shared.config.kinds.completions import check_template
from shared.config.kinds.spec import KindSpec, one_of, switch
from shared.errors import ConfigurationError

TENSORS_MAX = 64
INT32 = range(-(2**31), 2**31)
# Texts of the table `tensors` that stand for a value of the request; all members, as JSON.
PLACE = re.compile(r"\$[a-z_]{1,64}", re.ASCII)
ALL_PARAMS = "$params"
Value = bool | int | float | str


def check_tensors(value: Any, where: str) -> dict[str, Value]:
    """Check the member `tensors`: the further input tensors of a model.

    Raises:
        ConfigurationError: it is no table, or has a value that no tensor can have.
    """
    if not isinstance(value, dict) or len(value) > TENSORS_MAX:
        raise ConfigurationError(f"{where}: must be a table with at most {TENSORS_MAX} members")
    for name, content in value.items():
        if not isinstance(content, bool | int | float | str):
            raise ConfigurationError(f"{where}.{name}: must be a text, a number, true or false")
        if type(content) is int and content not in INT32:
            raise ConfigurationError(f"{where}.{name}: must be a whole number of 32 bits")
        if isinstance(content, str) and content.startswith("$") and not PLACE.fullmatch(content):
            raise ConfigurationError(f"{where}.{name}: {content!r} is no name of a member")
    return value


GRPC = KindSpec(
    name="grpc",
    schemes=("grpc", "grpcs"),
    has_rules=True,
    styles=("exact",),
    needs=("grpc", "google.protobuf"),
    install="pip install 'tailrace[grpc]'",
    continues_always=True,
    members={
        "protocol": one_of("tailrace", "kserve"),
        "template": check_template,
        "tensors": check_tensors,
        "batched": switch,
    },
)

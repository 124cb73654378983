"""The examples of the OpenAPI document are requests that a node accepts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest

from api.pages.openapi.document import DOCUMENT
from api.pages.openapi.examples import BODIES, GROUP_ORDER
from tests.support.shell import Shell

JSON = "application/json"


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def bodies() -> dict[str, tuple[str, Any, Any]]:
    """Return the path, the schema and the example of each JSON body, by operation."""
    found = {}
    for path, _, operation in operations():
        body = operation.get("requestBody", {}).get("content", {}).get(JSON)
        if body is not None:
            found[operation["operationId"]] = (path, body["schema"], body.get("example"))
    return found


@pytest.mark.parametrize("name", sorted(bodies()))
def test_every_body_has_an_example_that_fits_its_schema(name: str) -> None:
    _, schema, example = bodies()[name]

    whole = {**schema, "components": DOCUMENT["components"]}
    jsonschema_rs.validator_for(whole).validate(example)


async def test_a_node_accepts_the_first_example() -> None:
    """tests/clients/test_docs_page.py sends more of them, to a node with a worker."""
    answer = await Shell().post(BODIES["createGeneration"])

    assert answer.status_code == 202


def test_no_example_is_of_an_operation_that_is_gone() -> None:
    assert BODIES.keys() == bodies().keys()


def test_every_operation_stands_in_one_group_and_groups_follow_each_other() -> None:
    groups = [operation["tags"][0] for _, _, operation in operations()]
    order = list(dict.fromkeys(groups))

    assert order == [group for group in GROUP_ORDER if group in order]
    assert groups == sorted(groups, key=order.index)

"""`[models."*"]`: the names of a server's list, besides the tables of the models file."""

from __future__ import annotations

import tomllib

import pytest

from shared.config.models import LISTED_MAX, ModelTable, can_serve, parse_models
from shared.errors import ConfigurationError

FILE = """
[models.demo]
backend = "demo"

[models."*"]
base_url = "http://h/v1"
on_takeover = "restart"
"""


def table_of(text: str = FILE) -> ModelTable:
    return parse_models(tomllib.loads(text), "models.toml")


def test_the_names_of_the_list_come_behind_those_of_the_file() -> None:
    models = table_of()
    assert (list(models), list(models.tables)) == (["demo"], ["demo", "*"])
    models.learn(["b/x:1", "a", "demo"])

    assert list(models) == ["demo", "b/x:1", "a"]
    assert models["demo"].backend == "demo"
    assert (models["a"].upstream_name, models["a"].on_takeover) == ("a", "restart")
    assert list(models.tables) == ["demo", "*"]


def test_a_name_that_is_gone_is_refused_but_its_requests_can_still_run() -> None:
    models = table_of()
    models.learn(["a", "b"])
    models.learn(["b"])

    assert "a" not in models and models.get("a") is None
    assert models["a"].upstream_name == "a"


@pytest.mark.parametrize("name", ["*", "", "a b", "ä", "x" * 129, "-a"])
def test_a_name_that_clients_cannot_use_is_left_out(name: str) -> None:
    models = table_of()
    models.learn([name, "a"])

    assert list(models) == ["demo", "a"]
    with pytest.raises(KeyError):
        models[name]


def test_a_list_is_bounded() -> None:
    models = table_of()
    models.learn(f"m{number}" for number in range(LISTED_MAX + 5))

    assert len(models) == LISTED_MAX + 1


def test_without_the_table_nothing_is_learned() -> None:
    models = table_of('[models.demo]\nbackend = "demo"')
    models.learn(["a"])

    assert list(models) == ["demo"] and not can_serve(models, "a")
    with pytest.raises(KeyError):
        models["a"]


def test_a_worker_can_serve_any_name_with_the_table() -> None:
    assert can_serve(table_of(), "a")
    assert can_serve({}, "a") is False


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ('backend = "demo"', "stands for every model of a server: servers of demo list no models"),
        ('base_url = "http://h/v1"\nmodel = "x"', "`model` is not allowed"),
        ('backend = "websocket"\nbase_url = "ws://h"', "servers of websocket list no models"),
    ],
)
def test_a_table_that_cannot_stand_for_a_list_is_refused(members: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        table_of(f'[models."*"]\n{members}')

    assert words in str(caught.value)

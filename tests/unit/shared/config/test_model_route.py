"""Several backends behind one name: valid tables of the models file, one line for each error."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from shared.config.model_route import ALLOWED, POLICIES, RouteRules
from shared.config.models import ModelTable, load_models
from shared.errors import ConfigurationError

ROOT = Path(__file__).parents[4]
PAGE = ROOT / "docs" / "routing.md"
BACKENDS = """
[models.a]
base_url = "http://localhost:9001/v1"
[models.b]
base_url = "http://localhost:9002/v1"
forward = ["metadata"]
[models.c]
backend = "demo"
"""


def load(tmp_path: Path, text: str, skipped: str = "") -> ModelTable:
    path = tmp_path / "models.toml"
    path.write_text(text, encoding="utf-8")
    return load_models(str(path), skipped)


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, text)
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix(f"{tmp_path / 'models.toml'}: ")


def test_all_members_of_a_route(tmp_path: Path) -> None:
    model = load(
        tmp_path,
        """
        [models.chat]
        route = ["a", "b"]
        policy = "weighted"
        weights = [3, 1]
        hedge_after_s = 2
        on_takeover = "continue"
        """
        + BACKENDS,
    )["chat"]

    assert model.route == RouteRules(
        backends=("a", "b"), policy="weighted", weights=(3, 1), hedge_after_s=2.0
    )
    assert model.on_takeover == "continue" and model.kind.name == "route"
    assert not model.may_continue  # its backends do


def test_the_defaults_of_a_route(tmp_path: Path) -> None:
    model = load(tmp_path, '[models.chat]\nroute = ["a"]' + BACKENDS)["chat"]

    assert model.route == RouteRules(backends=("a",), policy="order", hedge_after_s=None)
    assert model.on_takeover == "auto"


def test_clients_may_send_what_any_backend_forwards(tmp_path: Path) -> None:
    model = load(tmp_path, '[models.chat]\nroute = ["a", "b"]' + BACKENDS)["chat"]

    assert model.rules.forward == ("metadata",)


@pytest.mark.parametrize("policy", [p for p in POLICIES if p != "weighted"])
def test_policies(tmp_path: Path, policy: str) -> None:
    text = f'[models.chat]\nroute = ["a", "b"]\npolicy = "{policy}"'

    route = load(tmp_path, text + BACKENDS)["chat"].route

    assert route is not None and route.policy == policy


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ("route = []", "models.chat.route: is empty: name at least one table of a backend"),
        ('route = "a"', "models.chat.route: must be a list of names of tables"),
        ("route = [1]", "models.chat.route: must be a list of names of tables"),
        ('route = ["a", "z"]', "models.chat.route: 'z': no table [models.z] in this file"),
        ('route = ["a", "a"]', "models.chat.route: 'a' stands there twice; see `weights`"),
        ('route = ["chat"]', "models.chat.route: 'chat' is this table itself"),
        (
            'route = ["other"]',
            "models.chat.route: 'other' is a route too: name its backends here instead",
        ),
        (
            'route = ["*"]',
            "models.chat.route: '*' stands for every model of a server: "
            "write a table for one model",
        ),
        (
            f"route = {[f'n{n}' for n in range(17)]}",
            "models.chat.route: must have at most 16 names",
        ),
        (
            'route = ["a"]\nbase_url = "http://x/v1"',
            "models.chat.base_url: belongs to the table of a backend: "
            "write it in the tables that `route` names",
        ),
        (
            'route = ["a"]\nbackend = "openai"',
            "models.chat.backend: belongs to the table of a backend: "
            "write it in the tables that `route` names",
        ),
        (
            'route = ["a"]\npolicy = "random"',
            "models.chat.policy: must be one of order, least_busy, weighted, fastest, prefix",
        ),
        (
            'route = ["a", "b"]\npolicy = "weighted"',
            'models.chat.weights: is missing: policy = "weighted" needs it',
        ),
        (
            'route = ["a", "b"]\nweights = [1, 1]',
            'models.chat.weights: needs policy = "weighted"',
        ),
        (
            'route = ["a", "b"]\npolicy = "weighted"\nweights = [1]',
            "models.chat.weights: must be a list of 2 whole numbers from 1 to 1000, "
            "one for each name of `route`",
        ),
        (
            'route = ["a", "b"]\npolicy = "weighted"\nweights = [0, true]',
            "models.chat.weights: must be a list of 2 whole numbers from 1 to 1000, "
            "one for each name of `route`",
        ),
        (
            'route = ["a", "b"]\nhedge_after_s = 0',
            "models.chat.hedge_after_s: must be a number of seconds from 0.05 to 600",
        ),
        (
            'route = ["a", "b"]\nhedge_after_s = nan',
            "models.chat.hedge_after_s: must be a number of seconds from 0.05 to 600",
        ),
        (
            'route = ["a"]\nhedge_after_s = 1',
            "models.chat.hedge_after_s: needs a second backend in `route`",
        ),
        (
            'route = ["a"]\non_takeover = "perhaps"',
            "models.chat.on_takeover: must be one of auto, continue, restart, fail",
        ),
    ],
)
def test_a_mistake_in_a_route_is_one_line(tmp_path: Path, members: str, said: str) -> None:
    text = f'[models.chat]\n{members}\n[models.other]\nroute = ["a"]\n'

    assert refusal(tmp_path, text + BACKENDS) == said


def test_a_table_of_a_backend_cannot_say_that_it_is_a_route(tmp_path: Path) -> None:
    assert "models.x.backend: must be one of" in refusal(tmp_path, '[models.x]\nbackend="route"')


def test_the_pattern_is_no_route(tmp_path: Path) -> None:
    text = '[models."*"]\nroute = ["a"]' + BACKENDS

    assert refusal(tmp_path, text) == (
        "models.*: stands for every model of a server: no route here"
    )


def test_members_of_a_route_are_unknown_in_the_table_of_a_backend(tmp_path: Path) -> None:
    text = '[models.a]\nbase_url = "http://x/v1"\npolicy = "order"'

    assert refusal(tmp_path, text) == "models.a: unknown member 'policy'"


# Hidden backends


def test_clients_do_not_see_a_hidden_backend(tmp_path: Path) -> None:
    text = '[models.x]\nbackend = "demo"\nhidden = true\n[models.chat]\nroute = ["x", "a"]'
    models = load(tmp_path, text + BACKENDS)

    assert list(models) == ["x", "chat", "a", "b", "c"]
    assert list(models.for_clients()) == ["chat", "a", "b", "c"]  # the default is `chat`


def test_a_servers_list_does_not_show_a_hidden_name(tmp_path: Path) -> None:
    text = """
        [models.chat]
        route = ["x"]
        [models.x]
        backend = "demo"
        hidden = true
        [models."*"]
        backend = "ollama"
        base_url = "http://localhost:11434"
        """
    models = load(tmp_path, text).for_clients()

    models.learn(["x", "y"])

    assert list(models) == ["chat", "y"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '[models.a]\nbackend = "demo"\nhidden = true',
            "models.a.hidden: no route names this table, so no client could reach it",
        ),
        ('[models.a]\nbackend = "demo"\nhidden = 1', "models.a.hidden: must be true or false"),
        (
            '[models."*"]\nbackend = "ollama"\nbase_url = "http://x"\nhidden = true',
            "models.*.hidden: the models of a server's list cannot be hidden",
        ),
        (
            '[models.a]\nroute = ["b"]\nhidden = true\n[models.b]\nbackend = "demo"',
            "models.a.hidden: belongs to the table of a backend: "
            "write it in the tables that `route` names",
        ),
    ],
)
def test_a_mistake_about_hidden_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    assert refusal(tmp_path, text) == said


# Models that are left out


def test_a_route_goes_on_without_the_backends_that_are_left_out(tmp_path: Path) -> None:
    text = '[models.chat]\nroute = ["a", "b", "c"]\npolicy = "weighted"\nweights = [3, 2, 1]'

    route = load(tmp_path, text + BACKENDS, "b")["chat"].route

    assert route is not None and (route.backends, route.weights) == (("a", "c"), (3, 1))


def test_a_route_whose_backends_are_all_left_out_is_left_out_too(tmp_path: Path) -> None:
    models = load(tmp_path, '[models.chat]\nroute = ["a", "b"]' + BACKENDS, "a,b")

    assert list(models) == ["c"]


# The page and the example


def test_the_first_block_of_the_page_is_a_whole_models_file(tmp_path: Path) -> None:
    (text, *_) = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.S)
    models = load(tmp_path, text)

    assert models["chat"].route is not None
    assert list(models.for_clients()) == ["chat", "gpt"]


def test_the_page_describes_every_member_and_every_policy() -> None:
    rows = set(re.findall(r"^\| `([a-z_]+)` \|", PAGE.read_text(), re.M))

    assert {*ALLOWED, "hidden", *POLICIES} <= rows


def test_the_example_has_a_route() -> None:
    assert load_models(str(ROOT / "models.example.toml"))["chat"].route is not None

"""Rules for requests: what the server gets, row by row, and one line for each mistake."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import msgspec
import pytest

from api.intake.body import check_members
from shared.config.models import Model, load_models
from shared.config.settings import Settings
from shared.errors import ConfigurationError
from shared.log.request import Request, decode_request
from workers.backends.openai.request import encode_body

MESSAGES = [{"role": "user", "content": "hi"}]
USUAL = {"stream_options": {"include_usage": True}}


def load(tmp_path: Path, lines: str, url: str = "https://x/v1") -> Model:
    path = tmp_path / "models.toml"
    path.write_text(f'[models.m]\nbase_url = "{url}"\n{lines}')
    return load_models(str(path))["m"]


@pytest.mark.parametrize(
    ("lines", "params", "sent"),
    [
        ("", {"top_p": 1}, {"top_p": 1, **USUAL}),
        ('omit = ["stream_options"]', {"top_p": 1}, {"top_p": 1}),
        ('omit = ["top_p", "absent"]', {"top_p": 1}, USUAL),
        (
            'rename = {max_tokens = "max_completion_tokens"}',
            {"max_tokens": 5},
            {"max_completion_tokens": 5, **USUAL},
        ),
        # The client's own member of the new name wins.
        (
            'rename = {max_tokens = "max_completion_tokens"}',
            {"max_tokens": 5, "max_completion_tokens": 6},
            {"max_completion_tokens": 6, **USUAL},
        ),
        ('rename = {a = "b", b = "c"}', {"a": 1, "b": 2}, {"b": 1, "c": 2, **USUAL}),
        ('rename = {a = "b", b = "a"}', {"a": 1, "b": 2}, {"b": 1, "a": 2, **USUAL}),
        ('omit = ["b"]\nrename = {a = "b"}', {"a": 1, "b": 2}, {"b": 1, **USUAL}),
        ("set = {top_k = 20, top_p = 0.5}", {"top_p": 1}, {"top_k": 20, "top_p": 0.5, **USUAL}),
        (
            "[models.m.set]\nchat_template_kwargs = {enable_thinking = false}",
            {"chat_template_kwargs": {"enable_thinking": True, "x": [1]}},
            {"chat_template_kwargs": {"enable_thinking": False, "x": [1]}, **USUAL},
        ),
        (
            "set = {stream_options = {continuous_usage_stats = true}}",
            {},
            {"stream_options": {"include_usage": True, "continuous_usage_stats": True}},
        ),
        ('omit = ["a"]\nset = {a = 1}', {"a": 2}, {"a": 1, **USUAL}),
        ('rename = {a = "b"}\nset = {b = 1}', {"a": 2}, {"b": 1, **USUAL}),
    ],
)
def test_the_body_that_the_server_gets(
    tmp_path: Path, lines: str, params: dict[str, Any], sent: dict[str, Any]
) -> None:
    model = load(tmp_path, lines)
    rules, given = copy.deepcopy(model.rules), copy.deepcopy(params)

    body = msgspec.json.decode(encode_body(model, Request(MESSAGES, params), ""))

    assert body == {"model": "m", "messages": MESSAGES, "stream": True, **sent}
    assert (rules, given) == (model.rules, params), "nothing is changed in place"


def test_rules_hold_for_what_continues_an_answer(tmp_path: Path) -> None:
    model = load(tmp_path, 'omit = ["add_generation_prompt", "model"]')

    body = msgspec.json.decode(encode_body(model, Request(MESSAGES), "so far"))

    assert body["continue_final_message"] is True
    assert not {"add_generation_prompt", "model"} & set(body)


@pytest.mark.parametrize(
    ("lines", "params"),
    [
        ("", {}),
        ('forward = ["metadata"]', {"metadata": {"k": "v"}}),
        ('forward = ["service_tier", "absent"]', {"service_tier": 1}),
        ('forward = ["top_p"]', {"top_p": 0.5}),
    ],
)  # fmt: skip
def test_members_of_ours_are_forwarded(tmp_path: Path, lines: str, params: dict[str, Any]) -> None:
    model = load(tmp_path, lines)
    members: dict[str, Any] = {
        "metadata": {"k": "v"},
        "service_tier": 1,
        "top_p": 0.5,
        "model": "m",
    }
    own = {"top_p": 0.5} if "top_p" in params else {}

    new = check_members(
        members,
        Request(MESSAGES, own),
        owner="o",
        models={"m": model},
        settings=Settings(),
    ).encoded()

    assert decode_request(new.request).params == params
    assert new.metadata == b'{"k":"v"}', "it stays ours as well"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('omit = "a"', "models.m.omit: must be a list of member names"),
        ("omit = [1]", "models.m.omit: must be a list of member names"),
        ('omit = [""]', "models.m.omit: must be a list of member names"),
        ('omit = ["stream"]', "models.m.omit: 'stream' is not allowed here"),
        ('forward = ["messages"]', "models.m.forward: 'messages' is not allowed here"),
        ('forward = ["tools"]', "models.m.forward: 'tools' is not allowed here"),
        ("rename = {a = 1}", "models.m.rename: must be a table of strings"),
        ('rename = ["a"]', "models.m.rename: must be a table"),
        ('rename = {messages = "a"}', "models.m.rename: 'messages' cannot be renamed"),
        ('rename = {a = "stream"}', "models.m.rename: 'stream' cannot be renamed"),
        ('rename = {a = ""}', "models.m.rename: '' cannot be renamed"),
        ('omit = ["a"]\nrename = {a = "b"}', "'a' is in `omit` and in `rename`: choose one"),
        ("set = 1", "models.m.set: must be a table"),
        ('set = {model = "x"}', "models.m.set.model: cannot be set: use the member `model`"),
        ("set = {n = 2}", "models.m.set.n: cannot be set: one generation is one answer"),
        ("set = {stream = false}", "models.m.set.stream: cannot be set"),
        ("set = {a = nan}", "models.m.set.a: JSON has no such value"),
        ("set = {a = {b = [-inf]}}", "models.m.set.a.b: JSON has no such value"),
        ("set = {a = 2026-01-01}", "models.m.set.a: JSON has no such value; write it as a string"),
        (f"set = {{a = {2**64}}}", "models.m.set.a: the number is too large"),
        ('headers = ["a"]', "models.m.headers: must be a table"),
        ("headers = {a = 1}", "models.m.headers: must be a table of strings"),
        ('headers = {"a b" = "x"}', "models.m.headers: 'a b' is not the name of a header"),
        ('headers = {"a\\r\\nb" = "x"}', "is not the name of a header"),
        ('headers = {a = "x\\r\\nb: c"}', "must be printable ASCII on one line"),
        ('headers = {a = "é"}', "must be printable ASCII on one line"),
        ('headers = {Content-Length = "1"}', "'Content-Length' cannot be set: Tailrace writes it"),
        ('headers = {A = "1", a = "2"}', "models.m.headers: 'a' is there twice"),
        ('api_key_env = "K"\nheaders = {authorization = "x"}', "and `api_key_env`: choose one"),
        ("proxy = 1", "models.m.proxy: must be a string, and not empty"),
        ('ca_file = ""', "models.m.ca_file: must be a string, and not empty"),
        ('ca_file = "a\\u0000"', "models.m.ca_file: must be a string, and not empty"),
        ('client_key = "k.pem"', "models.m.client_key: needs client_cert, its certificate"),
        ('headrs = {a = "b"}', "models.m: unknown member 'headrs'"),
    ],
)  # fmt: skip
def test_mistakes_are_refused_in_one_line(tmp_path: Path, lines: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, lines)

    assert said in str(caught.value)
    assert str(caught.value).isprintable()


def test_certificates_need_https_and_lie_beside_the_models_file(tmp_path: Path) -> None:
    lines = 'ca_file = "ca.pem"\nclient_cert = "/etc/c.pem"'
    connection = load(tmp_path, lines).connection
    assert connection.ca_file == str(tmp_path / "ca.pem")
    assert connection.client_cert == "/etc/c.pem"

    with pytest.raises(ConfigurationError, match="ca_file: needs a base_url with https://"):
        load(tmp_path, 'ca_file = "ca.pem"', url="http://x/v1")

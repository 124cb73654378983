"""The models file: valid members, and one line for each error."""

from __future__ import annotations

import datetime
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.config.kinds import KINDS
from shared.config.model_connection import CONNECTION_MEMBERS, Connection
from shared.config.model_request import REQUEST_MEMBERS
from shared.config.models import DEMO, STRINGS, Model, ModelTable, load_models
from shared.config.settings import Settings
from shared.errors import ConfigurationError
from tests.support.examples import examples
from workers.backends import build_backends
from workers.backends.route import find_route

PAGE = Path(__file__).parents[4] / "docs" / "models.md"
EXAMPLE = Path(__file__).parents[4] / "models.example.toml"


def load(tmp_path: Path, text: str) -> dict[str, Model]:
    path = tmp_path / "models.toml"
    path.write_text(text, encoding="utf-8")
    return load_models(str(path))


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, text)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_without_a_file_there_are_only_the_demo_and_its_transcriber() -> None:
    models = load_models("")
    assert models["demo"] == DEMO and list(models) == ["demo", "demo-transcriber"]
    assert DEMO.backend == "demo"
    assert DEMO.on_takeover == "continue"


def test_all_members(tmp_path: Path) -> None:
    models = load(
        tmp_path,
        """
        [models.local]
        backend = "openai"
        base_url = "http://localhost:8001/v1"
        model = "qwen3-8b"
        api_key_env = "UPSTREAM_KEY"
        on_takeover = "continue"
        continue_style = "trailing"
        """,
    )

    assert models == {
        "local": Model(
            name="local",
            backend="openai",
            base_url="http://localhost:8001/v1",
            model="qwen3-8b",
            api_key_env="UPSTREAM_KEY",
            on_takeover="continue",
            continue_style="trailing",
        )
    }
    assert models["local"].upstream_name == "qwen3-8b"


def test_the_defaults(tmp_path: Path) -> None:
    model = load(tmp_path, '[models.a]\nbase_url = "https://x/v1"')["a"]

    assert (model.backend, model.on_takeover) == ("openai", "auto")
    assert model.continue_style == "continue_final_message"
    assert model.api_key_env == ""
    assert model.upstream_name == "a"


def test_order_is_kept_because_the_first_is_the_default(tmp_path: Path) -> None:
    text = "\n".join(f'[models.{name}]\nbackend = "demo"' for name in ("z", "a", "m"))

    assert list(load(tmp_path, text)) == ["z", "a", "m"]


def test_further_members_of_a_demo_are_its_options(tmp_path: Path) -> None:
    model = load(tmp_path, '[models.d]\nbackend = "demo"\nseed = 7\nfail_at = 3')["d"]

    assert model.options == {"seed": 7, "fail_at": 3}


@pytest.mark.parametrize("name", ["qwen3:8b", "org/model-1.5", "m@2024", "a_b+c", "1", "x" * 128])
def test_names(tmp_path: Path, name: str) -> None:
    assert list(load(tmp_path, f'[models."{name}"]\nbackend = "demo"')) == [name]


def test_a_name_of_built_in_models_stands_in_the_place_of_a_file() -> None:
    models = load_models("smollm2")

    assert list(models) == ["smollm2", "demo", "demo-transcriber"]
    assert models["smollm2"].kind.name == "local" and models["smollm2"].may_continue


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ('file = "model.gguf"', "models.a.file: must be the absolute path of a .gguf file"),
        ("processes = 0", "models.a.processes: must be a whole number from 1 to 16"),
    ],
)
def test_members_of_a_local_model_are_checked(tmp_path: Path, members: str, said: str) -> None:
    assert said in refusal(tmp_path, f'[models.a]\nbackend = "local"\n{members}')


@pytest.mark.parametrize("name", ["", "-a", "a b", "é", "x" * 129, "a\\n", ".hidden"])
def test_malformed_names(tmp_path: Path, name: str) -> None:
    assert "a name has" in refusal(tmp_path, f'[models."{name}"]\nbackend = "demo"')


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"no [models.NAME] table"),
        ("[models]", r"no [models.NAME] table"),
        ("models = 5", r"no [models.NAME] table"),
        ("[model.a]", "unknown table 'model'"),
        ("[models.a\n", "is not TOML"),
        ("models.a = 5", "models.a: must be a table"),
        ('[models.a]\nbackend = "oh-llama"', "models.a.backend: must be one of "),
        ('[models.a]\nbackend = "openai"', "models.a.base_url: must start with http"),
        ('[models.a]\nbase_url = "localhost:8001/v1"', "models.a.base_url"),
        ("[models.a]\nbase_url = 8001", "models.a.base_url: must be a string"),
        (
            '[models.a]\nbackend = "demo"\non_takeover = "retry"',
            "models.a.on_takeover: must be one of auto, continue, restart, fail",
        ),
        (
            '[models.a]\nbackend = "responses"\nbase_url = "http://h"\ncontinue_style = "prefix"',
            "models.a.continue_style: servers of responses have no forms",
        ),
        (
            '[models.a]\nbase_url = "http://h/v1"\ncontinue_style = "magic"',
            "models.a.continue_style: must be one of continue_final_message, prefix, trailing",
        ),
        (
            '[models.a]\nbackend = "demo"\ncontinue_style = "magic"',
            "models.a.continue_style: must be one of exact",
        ),
        ('[models.a]\nbase_url = "http://x/v1"\napi_key = "sk"', "unknown member 'api_key'"),
        ('[models.a]\nbase_url = "http://x/v1"\nname = "b"', "unknown member 'name'"),
    ],
)
def test_malformed_tables_are_refused(tmp_path: Path, text: str, said: str) -> None:
    assert said in refusal(tmp_path, text)


def test_an_absent_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.toml"):
        load_models(str(tmp_path / "nowhere.toml"))


def test_a_file_that_is_not_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "models.toml"
    path.write_bytes(b'[models.a]\nbackend = "\xff"')
    with pytest.raises(ConfigurationError, match=r"models\.toml"):
        load_models(str(path))


def test_the_example_is_valid() -> None:
    models = load_models(str(EXAMPLE))
    environ = {model.api_key_env: "k" for model in models.values() if model.api_key_env}
    environ["AZURE_OPENAI_API_KEY"] = "k"

    # The kinds without a server need packages and files that not every machine has.
    usable = {name: model for name, model in models.tables.items() if model.kind.has_server}
    usable = {name: model for name, model in usable.items() if not model.kind.missing()}

    assert next(iter(models)) == "demo"
    assert list(build_backends(ModelTable(usable), Settings(), environ)) == list(usable)


def test_the_example_shows_every_kind() -> None:
    shown = {model.backend for model in load_models(str(EXAMPLE)).tables.values()}
    assert shown == {*KINDS, "route"}


EXAMPLES = [
    text
    for page in (PAGE, PAGE.with_name("backends.md"))
    for text in re.findall(r"```toml\n(.*?)```", page.read_text(), re.S)
    if text.startswith("[models")
]


@pytest.mark.parametrize("text", EXAMPLES)
def test_the_examples_of_the_pages_are_valid(tmp_path: Path, text: str) -> None:
    for model in load(tmp_path, text).tables.values():
        environ = dict.fromkeys(re.findall(r"[A-Z_]+_(?:KEY|PASSWORD)", text), "k")
        without_files = replace(model, connection=Connection(proxy=model.connection.proxy))
        assert find_route(without_files, environ)


def test_a_backend_may_have_slots(tmp_path: Path) -> None:
    text = '[models.m]\nbase_url = "http://x/v1"\n'
    assert load(tmp_path, text)["m"].slots == 0
    assert load(tmp_path, text + "slots = 2")["m"].slots == 2


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "true", '"2"', "100001"])
def test_a_number_of_slots_that_cannot_be_is_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigurationError, match="whole number from 1 to 100000"):
        load(tmp_path, f'[models.m]\nbase_url = "http://x/v1"\nslots = {value}')


def test_the_page_describes_every_member() -> None:
    members = {*STRINGS, *REQUEST_MEMBERS, *CONNECTION_MEMBERS, "stages", "slots", "audio"}
    rows = re.findall(r"^\| (`[a-z_]+`(?:, `[a-z_]+`)*) \|", PAGE.read_text(), re.M)

    assert members == {name.strip(" `") for row in rows for name in row.split(",")}


def test_the_example_as_it_is_shows_every_style() -> None:
    models = load_models(str(EXAMPLE)).values()
    styles = {model.continue_style for model in models if model.backend == "openai"}
    assert styles == {"continue_final_message", "trailing", "prefix"}


# Whatever is in the file


def toml(value: object) -> str:
    """Write a value as TOML, on one line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in value.items()) + "}"
    return str(value)


VALUES = st.recursive(
    st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([datetime.date(2026, 1, 1), datetime.time(1, 2), 10**400]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)
URLS = st.sampled_from(
    ["http://x/v1", "http://", "https://[::1", "http://a:99999/v1", "http://\x00"]
)
TABLE = st.fixed_dictionaries(
    {"backend": st.sampled_from(["demo", "openai"]) | VALUES},
    optional={
        "base_url": URLS | VALUES,
        "model": VALUES,
        "api_key_env": st.sampled_from(["KEY", "", "NONE"]) | VALUES,
        "on_takeover": st.sampled_from(["auto", "continue", "restart", "fail"]) | VALUES,
        "continue_style": st.sampled_from(["prefix", "trailing"]) | VALUES,
        "omit": VALUES,
        "rename": VALUES,
        "set": VALUES,
        "forward": VALUES,
        "headers": VALUES,
        "ca_file": VALUES,
        "client_cert": VALUES,
        "client_key": VALUES,
        "proxy": st.sampled_from(["http://p", "direct", "${KEY}", "ftp://p"]) | VALUES,
        "tokens": VALUES,
        "tokens_per_s": VALUES,
        "seed": VALUES,
        "fail_at": VALUES,
        "fail_code": VALUES,
        "tool_call": VALUES,
    },
)
FILES = st.one_of(
    st.dictionaries(
        st.sampled_from(["a", "b-c", ""]) | st.text(max_size=5), TABLE | VALUES, max_size=3
    ).map(lambda models: f"models = {toml(models)}\n"),
    st.text(max_size=60),
    st.sampled_from(
        [
            "a = " + "[" * 5_000,
            "a = " + "{a=" * 5_000,
            "a." * 5_000 + "b = 1",
            "[" + "a." * 5_000 + "b]",
            "a = " + "9" * 5_000,
            "a = 0x" + "f" * 100_000,
            "a = 2026-99-99",
            "a = 1e99999",
            '[models.a]\nbackend = "demo"\nseed = ' + "9" * 5_000,
            "\ufeff[models.a]",
            "[models.a]\r[models.b]",
            "\x00",
        ]
    ),
)


@settings(
    max_examples=examples(50, in_ci=150),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(text=FILES)
def test_any_file_is_models_or_one_line_why_not(tmp_path: Path, text: str) -> None:
    path = tmp_path / "models.toml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        models = load_models(str(path))
        build_backends(models, Settings(), {"KEY": "k"})
    except ConfigurationError as exc:
        assert str(exc).isprintable(), exc
    else:
        assert models

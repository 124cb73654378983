"""`doctor --continuation`: what it says of each kind of server, and what it stores."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cli import doctor
from cli.continuation import (
    PREFIX_PIECES_MIN,
    doctor_continuation,
    examine_continuation,
    find_cuts,
    judge_form,
    try_forms,
)
from cli.finding import Finding
from cli.up.private_server import running_url
from shared.config.kinds.openai import CONTINUE_STYLES
from shared.config.models import Model
from shared.config.settings import Settings
from shared.errors import ConfigurationError
from shared.log.events import Token
from shared.queue.continuations import read_verdicts
from shared.redis.connections import connect
from tests.support.kinds.ollama import OllamaServerWire
from tests.support.redis_server import RedisServer, free_port
from tests.support.upstream import Upstream

ANSWER = "Here are some fruits:\n1. Bananas\n2. Apples\n3. Grapes\n4. Lemons"
CUT = ANSWER.index(" Apples")
REST = ANSWER[CUT:]
PREFIX = ANSWER[:CUT]


@pytest.mark.parametrize(
    ("continuation", "outcome"),
    [
        (REST, "continues"),
        (REST[:9], "continues"),  # the limit of tokens, or the same words for a while
        (REST[:14] + " or something else", "continues"),
        (REST[:6] + " or something else", "other"),
        (REST.lstrip(), "changes white space"),  # readers would get "2.Apples"
        ("\n" + REST.lstrip(), "changes white space"),
        (PREFIX + REST, "echoes"),
        ("\n" + PREFIX + REST[:3], "echoes"),
        (PREFIX[:20], "begins anew"),
        (" " + PREFIX[:20] + " and others", "begins anew"),
        ("Sure! Here is more", "other"),
        ("", "other"),
    ],
)
def test_how_a_continuation_is_judged(continuation, outcome):
    assert judge_form(ANSWER, CUT, continuation) == outcome


def test_an_answer_is_cut_before_a_space_and_before_the_end_of_a_line():
    pieces = ["Fruits", ":", "\n"] + [
        p for n in range(6) for p in (f"{n}", ".", " App", "les", "\n")
    ]
    answer = "".join(pieces)

    cuts = find_cuts(pieces)

    assert [answer[cut] for cut in cuts] in (["\n", " "], [" ", "\n"])
    assert all(not answer[cut - 1].isspace() for cut in cuts)
    assert all(len(answer[:cut]) >= len("".join(pieces[:PREFIX_PIECES_MIN])) for cut in cuts)


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        ["one"],
        ["a", "b", "c", "d"],
        ["a ", "b ", "c ", "d "],
        ["a ", "b ", " c ", " d", "e", "f"],
    ],
)
def test_an_answer_without_a_border_before_white_space_is_not_cut(pieces):
    assert find_cuts(pieces) == []


class TwoFaced:
    """A backend that continues before a space, and does not before the end of a line."""

    can_continue, counts_whole = True, False

    async def stream(self, request, *, prefix, seed, form):
        rest = ANSWER[len(prefix) :]
        said = "Sure! Here are more." if rest.startswith("\n") else rest
        limit = request.params["max_tokens"]
        yield [Token(piece) for piece in re.findall(r"\s*\S+", said)[:limit]]

    async def aclose(self):
        """Nothing is held."""


async def test_a_form_holds_only_if_it_holds_at_every_cut():
    outcomes = await try_forms(TwoFaced(), CONTINUE_STYLES)

    assert set(outcomes.values()) == {"other"}


@pytest.fixture(scope="module")
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as server:
        yield server


async def tried(upstream: Upstream, name: str, redis_url: str = "", **table) -> list[Finding]:
    model = Model(name=name, base_url=upstream.base_url, **table)
    return await examine_continuation(Settings(redis_url=redis_url, data_dir="/nowhere"), model, {})


@pytest.mark.parametrize(
    ("name", "level", "outcome"),
    [
        ("goes-on", "ok", "continues"),
        ("echoes", "ok", "echoes"),
        ("begins-anew", "warn", "begins anew"),
        ("refuses", "warn", "refuses"),
    ],
)
async def test_each_form_gets_a_line_and_the_verdict_is_stored(
    redis_server: RedisServer, upstream: Upstream, name: str, level: str, outcome: str
):
    findings = await tried(upstream, name, redis_server.url)

    lines = [Finding(level, "form", f"{form}: {outcome}") for form in CONTINUE_STYLES]
    assert findings[:-1] == lines
    assert (findings[-1].level, findings[-1].subject) == (level, "continue")
    redis = connect(Settings(redis_url=redis_server.url))
    model = Model(name="alias", base_url=upstream.base_url, model=name)
    stored = (await read_verdicts(redis, [model]))["alias"]
    await redis.aclose()
    assert stored.forms == dict.fromkeys(CONTINUE_STYLES, outcome)
    assert stored.at_ms > 0


@pytest.mark.parametrize(
    ("name", "outcome"),
    [("goes-on", "continues"), ("begins-anew", "begins anew"), ("refuses", "refuses")],
)
async def test_an_ollama_is_tried_in_its_own_form(name: str, outcome: str):
    async with Upstream(wire=OllamaServerWire(), path="") as server:
        model = Model(name=name, backend="ollama", base_url=server.base_url)
        findings = await examine_continuation(Settings(data_dir="/nowhere"), model, {})

    level = "ok" if outcome == "continues" else "warn"
    assert findings[:-1] == [Finding(level, "form", f"trailing: {outcome}")]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ('backend = "completions"\nbase_url = "http://h/v1"', "always continue"),
        ('backend = "demo"', "always continue"),
        ('backend = "responses"\nbase_url = "http://h/v1"', "no form of continuation to try"),
    ],
)
def test_a_kind_that_needs_no_trial_is_not_asked(tmp_path: Path, table: str, words: str):
    path = tmp_path / "models.toml"
    path.write_text(f"[models.m]\n{table}\n")
    (finding,) = doctor_continuation(Settings(models=str(path)), "m")

    assert finding.level == "ok" and words in finding.text


async def test_a_model_that_continues_in_a_form_that_does_not_hold_is_warned_of(
    redis_server: RedisServer, upstream: Upstream
):
    finding = (await tried(upstream, "refuses", redis_server.url, on_takeover="continue"))[-1]

    assert finding.level == "warn"
    assert 'on_takeover = "auto"' in finding.text


async def test_without_redis_the_result_is_shown_and_not_stored(upstream: Upstream):
    finding = (await tried(upstream, "goes-on"))[-1]

    assert finding.level == "warn"
    assert "TAILRACE_REDIS_URL" in finding.text


@pytest.mark.parametrize(
    ("name", "said"), [("only-thinks", "turn thinking off"), ("broken", "answered 500")]
)
async def test_a_server_without_a_text_to_cut_is_a_failure(
    upstream: Upstream, name: str, said: str
):
    (finding,) = await tried(upstream, name)

    assert finding.level == "FAIL"
    assert said in finding.text and "nothing was stored" in finding.text


def test_a_server_that_is_away_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "models.toml"
    path.write_text(f'[models.away]\nbase_url = "http://127.0.0.1:{free_port()}/v1"\n')

    assert doctor.doctor(Settings(models=str(path)), continuation="away") == 1
    assert "cannot be reached" in capsys.readouterr().out


def test_an_unknown_model_is_named():
    with pytest.raises(ConfigurationError, match="no model 'gpt' in the models file: it has demo"):
        doctor_continuation(Settings(), "gpt")


def test_the_demo_model_needs_no_trial():
    (finding,) = doctor_continuation(Settings(), "demo")

    assert finding.level == "ok"


def test_no_private_server_is_found_where_none_runs(tmp_path: Path):
    (tmp_path / "lock").write_text(f"unix://{tmp_path}/gone.sock")

    assert running_url(str(tmp_path)) == ""
    assert running_url(str(tmp_path / "nothing")) == ""

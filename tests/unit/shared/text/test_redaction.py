"""Credentials that are masked, completely or in part, and text that stays."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from shared.errors import MESSAGE_CHARACTERS_MAX, BackendError
from shared.text import redaction
from shared.text.redaction import MASK, redact, remember, remember_url

KEY = 'Zq7-plain.looking/key+of=no"form'
SHORT = "hunter7"


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process that knows these two secrets and no others."""
    monkeypatch.setattr(redaction, "_known", set())
    monkeypatch.setattr(redaction, "_known_pattern", None)
    remember(KEY, SHORT, "", "abc")
    yield


@pytest.mark.parametrize(
    "text",
    [
        f"Incorrect API key provided: {KEY}. You can find yours at https://example.org.",
        f"key {KEY.upper()}",
        json.dumps({"error": KEY}),
        f"GET /?q={quote(KEY, safe='')}",
        f"you sent {KEY[:20]}… which is wrong",
        f"you sent {KEY[:9]}",
        f"wrong: '{SHORT}'",
    ],
)
def test_a_known_secret_is_found_in_any_spelling(text: str) -> None:
    shown = redact(text)

    assert MASK in shown
    assert KEY[:8].lower() not in shown.lower() and SHORT not in shown


def test_a_short_secret_is_not_found_in_other_words() -> None:
    assert redact(f"the {SHORT}s of the abc") == f"the {SHORT}s of the abc"


@pytest.mark.parametrize(
    "text",
    [
        "GET /v1/ws?access_token=SECRET HTTP/1.1",
        "access_token=SECRET",
        "https://blob.example/x?se=2027&sig=SECRET&sp=r",
        "https://s3.example/x?X-Amz-Credential=SECRET&X-Amz-Signature=SECRET",
        "https://api.example/v1?key=SECRET",
        "authorization: Bearer SECRET",
        "Authorization: Basic SECRET",
        "{'authorization': 'bearer SECRET'}",
        "sec-websocket-protocol: tailrace.v1, bearer.SECRET",
        "(b'authorization', b'Bearer SECRET')",
        "?access_token=Bearer%20SECRET",
        "x-api-key: SECRET",
        "api-key: SECRET",
        '{"api_key": "SECRET"}',
        '{"error":"Bearer SECRET is not valid"}',
        "OPENAI_API_KEY=SECRET",
        "TAILRACE_API_KEYS=SECRET:me,SECRET:you",
        "TAILRACE_KEY=SECRET",
        "aws_secret_access_key=SECRET",
        "redis://:SECRET@10.0.0.1:6379/0 cannot be reached",
        "rediss://me:SECRET@host: refused",
        "http://me:SECRET@models.example/v1",
        "sk-SECRET123",
        "sk-proj-SECRET_123-456",
        "hf_SECRETSECRET",
        "AKIASECRETSECRET",
        "whsec_SECRETSECRET",
        "eyJSECRET.eyJSECRET.SECRET",
    ],
)
def test_text_with_the_form_of_a_credential_is_masked(text: str) -> None:
    shown = redact(text)

    assert "SECRET" not in shown
    assert MASK in shown


@pytest.mark.parametrize(
    "text",
    [
        "the model 'gpt-5' does not exist",
        "max_tokens=5 is too large: this model's context has 8192 tokens",
        "set OPENAI_KEY to the backend's key",
        "nothing answers at http://127.0.0.1:8000/v1",
        "https://cdn.example/pkg@1.2/x?monkey=1",
        '{"event":"generation left","tokens":5,"key_count":3}',
        "a skate-park, a task-force",
    ],
)
def test_other_text_stays(text: str) -> None:
    assert redact(text) == text


def test_a_json_line_stays_json() -> None:
    line = json.dumps({"url": "redis://:pw@host/0?token=x", "header": "x-api-key: y", "n": 1})

    assert json.loads(redact(line)) == {
        "url": f"redis://{MASK}@host/0?token={MASK}", "header": f"x-api-key: {MASK}", "n": 1,
    }  # fmt: skip


def test_a_url_gives_its_password_in_both_spellings() -> None:
    remember_url("redis://:p%40ssw%2Frd-of-mine@host/0")

    assert redact("AUTH p@ssw/rd-of-mine, p%40ssw%2Frd-of-mine") == f"AUTH {MASK}, {MASK}"


def test_a_url_of_several_hosts_gives_the_passwords_of_the_server_and_of_the_sentinels() -> None:
    remember_url("redis+sentinel://me:pass-one@[::1]:1,b:2/service/0?sentinel_password=pass%2Dtwo")

    assert redact("AUTH pass-one, AUTH pass-two") == f"AUTH {MASK}, AUTH {MASK}"
    assert redact("[::1]:1,b:2/service") == "[::1]:1,b:2/service"


def test_an_error_of_a_backend_is_redacted_before_it_is_cut() -> None:
    for begin in range(MESSAGE_CHARACTERS_MAX - len(KEY), MESSAGE_CHARACTERS_MAX):
        error = BackendError("upstream_error", "x" * (begin - 1) + " " + KEY)

        assert len(error.message) <= MESSAGE_CHARACTERS_MAX
        assert error.message.strip("x") in (" ", " *", " **", f" {MASK}")
        assert str(error) == error.message


@pytest.mark.parametrize(
    "unit", ["a", "?key", "x-api-key", "://", "eyJ", "A_KEY", "bearer ", "sk-", "a-", "?&=", "-_"]
)
def test_hostile_texts_take_linear_time(unit: str) -> None:
    """Linear time takes 0.05 s here, quadratic time many seconds."""
    text = unit * 20_000 + "key token auth secret ="
    begun_s = time.thread_time()

    redact(text)

    assert time.thread_time() - begun_s < 1


def test_a_sentence_about_a_variable_stays_readable() -> None:
    said = "TAILRACE_API_KEYS: unknown scope in the third field of an entry; known: admin"

    assert redact(said) == said
    assert redact("TAILRACE_API_KEYS=abc:alice") == "TAILRACE_API_KEYS=***"

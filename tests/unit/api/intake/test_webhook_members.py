"""The member `webhook`: accepted values, and the values that are refused with 422."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.intake.body import parse_new_generation
from api.intake.webhook_members import read_webhook
from shared.config.models import Model
from shared.config.settings import Settings
from shared.errors import RequestError
from shared.later.webhooks import Webhook

SETTINGS = Settings()
ANYWHERE = Settings(webhook_private="allow")
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
URL = "https://example.com/hook"


def read(url: Any = URL, secret: Any = SECRET, settings: Settings = SETTINGS) -> Webhook | None:
    return read_webhook({"webhook": {"url": url, "secret": secret}}, settings)


@pytest.mark.parametrize(
    "url",
    [
        URL,
        "http://example.com",
        "https://example.com:8443/a/b?token=1&x=%20#f",
        "https://xn--bcher-kva.example/",
        "https://8.8.8.8/",
        "https://[2606:4700::1111]:443/",
    ],
)
def test_a_public_url_is_not_changed(url: str) -> None:
    found = read(url)

    assert found is not None and found.url == url


@pytest.mark.parametrize(
    "url",
    [
        None, "", 7, ["https://example.com"], "example.com/hook", "ftp://example.com", "https://",
        "https:///x", "https://user:password@example.com", "https://user@example.com",
        "https://example.com:0/", "https://example.com:99999/", "https://example.com:x/",
        "https://[::1", "https://exa mple.com", "https://example.com/\n", "https://bücher.example",
        "https://example.com\\@10.0.0.1/", "https://example.com/" + "a" * 2_048,
        "javascript:alert(1)", "https://\x00example.com", "file:///etc/passwd",
    ],
)  # fmt: skip
def test_a_malformed_or_unsupported_url_is_refused(url: Any) -> None:
    with pytest.raises(RequestError) as caught:
        read(url, settings=ANYWHERE)

    assert (caught.value.status, caught.value.code) == (422, "invalid_request")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/", "http://localhost:8000/", "http://2130706433/", "http://0x7f.1/",
        "http://0177.0.0.1/", "http://0.0.0.0/", "http://[::1]/", "http://[::ffff:10.0.0.1]/",
        "http://169.254.169.254/latest/meta-data/", "http://10.0.0.1:6379/", "http://[fe80::1]/",
        "http://metadata.google.internal/",
    ],
)  # fmt: skip
def test_a_private_address_is_refused_unless_allowed(url: str) -> None:
    with pytest.raises(RequestError) as caught:
        read(url)

    assert caught.value.status == 422
    assert read(url, settings=ANYWHERE) is not None


@pytest.mark.parametrize("length", [16, 24, 128])
def test_a_secret_may_be_base64_or_text(length: int) -> None:
    assert read(secret="whsec_" + base64.b64encode(b"x" * length).decode()) is not None
    assert read(secret="x" * length) is not None


@pytest.mark.parametrize(
    "secret",
    [
        None, "", 7, "short", "x" * 129, "whsec_", "whsec_!!!!", "whsec_abc",
        "whsec_" + base64.b64encode(b"x" * 15).decode(),
        "whsec_" + base64.b64encode(b"x" * 129).decode(),
        "with spaces in it, and long", "ü" * 20, "a line\nand another one",
    ],
)  # fmt: skip
def test_a_malformed_or_short_secret_is_refused(secret: Any) -> None:
    with pytest.raises(RequestError) as caught:
        read(secret=secret)

    assert caught.value.status == 422
    assert "whsec_M" not in caught.value.message


@pytest.mark.parametrize("value", [7, "https://example.com", [], True])
def test_a_webhook_is_an_object(value: Any) -> None:
    with pytest.raises(RequestError):
        read_webhook({"webhook": value}, SETTINGS)


def test_an_absent_webhook_is_none() -> None:
    assert read_webhook({}, SETTINGS) is None
    assert read_webhook({"webhook": None}, SETTINGS) is None


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text_gives_a_webhook_or_422(url: str, secret: str) -> None:
    for candidate in (url, "https://" + url, "http://[" + url):
        try:
            read(candidate, secret)
        except RequestError as exc:
            assert exc.status == 422


def parse(**members: Any) -> Any:
    return parse_new_generation(
        {"prompt": "Hi", **members}, owner="alice", models={"m": Model(name="m")}, settings=SETTINGS
    )


def test_another_webhook_changes_the_digest() -> None:
    """Otherwise a repeat with the same Idempotency-Key would silently keep the first webhook."""
    hook = {"url": URL, "secret": SECRET}
    digests = {
        parse().body_digest,
        parse(webhook=hook).body_digest,
        parse(webhook={**hook, "url": URL + "2"}).body_digest,
        parse(webhook={**hook, "secret": SECRET[:-4] + "AAAA"}).body_digest,
    }

    assert len(digests) == 4
    assert parse(webhook=hook).body_digest == parse(webhook=hook).body_digest

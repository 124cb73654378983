"""Which parts of a foreign text are addresses inside the operator's network."""

from __future__ import annotations

import pytest

from shared.errors import BackendError
from shared.text.private_addresses import hide_private


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Cannot connect to host vllm-7b:8000 ssl", "Cannot connect to host ***:*** ssl"),
        ("Pool(host='vllm', port=8000): no", "Pool(host='***', port=***): no"),
        ("Connect call failed ('10.0.0.3', 8000)", "Connect call failed ('***', 8000)"),
        ("dial tcp 172.16.4.1:11434: refused", "dial tcp ***: refused"),
        ("dial tcp [::1]:11434: refused", "dial tcp ***: refused"),
        ("no route to fd00::12 at 12:30:45", "no route to *** at 12:30:45"),
        ("http://vllm:8000/v1 is away", "http://***/v1 is away"),
        ("https://a.b.svc.cluster.local/v1, http://x.internal:1", "https://***/v1, http://***"),
        ("no gpu3.local, redis.prod.svc.cluster.local:6379.", "no ***, ***."),
        ("user@Db.Internal is away", "user@*** is away"),
        ("https://docs.example/a/b.local is threading.local(), locals", None),
        ("http://user:***@127.0.0.1:80/", "http://***/"),
        ("http://[fd00::1]:8000/v1", "http://***/v1"),
        ("see https://platform.openai.com/account/api-keys.", None),
        ("use https://8.8.8.8/ or 8.8.8.8", None),
        ("version 1.2.3 of 2026-01-02T10:20:30, 4096:4097", None),
        ("ratio 10.5, messages.0.content: too long", None),
        ("", None),
    ],
)  # fmt: skip
def test_private_places_are_hidden_and_public_ones_stay(text: str, expected: str | None) -> None:
    hidden = hide_private(text)

    assert hidden == (text if expected is None else expected)
    assert hide_private(hidden) == hidden


def test_the_message_of_a_backend_names_no_private_address() -> None:
    error = BackendError("upstream_error", "litellm: Cannot connect to host 10.0.0.3:8000")

    assert error.message == "litellm: Cannot connect to host ***:***"

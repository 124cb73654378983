"""Reads the member `webhook` of a body: the URL to call, and the secret that signs the call.

Pure: this module does not resolve host names. jobs/connector.py checks the address when it
connects. A URL with a literal address that is not public is refused here.
Source: docs/webhooks.md, "Asking for one".
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

from api.errors import request_error
from shared.config.settings import Settings
from shared.errors import RequestError
from shared.later.webhooks import SECRET_PREFIX, Webhook, key_of
from shared.text.addresses import is_plainly_private

URL_CHARACTERS_MAX = 2_048
SECRET_BYTES_MIN = 16
SECRET_BYTES_MAX = 128
SECRET_CHARACTERS_MAX = 256
_VISIBLE = re.compile(r"[!-~]+")


def read_webhook(body: Mapping[str, Any], settings: Settings) -> Webhook | None:
    """Return the member `webhook`; None: absent or null.

    Raises:
        RequestError: 422, a wrong URL or secret, or an address that is not public.
    """
    found = body.get("webhook")
    if found is None:
        return None
    if not isinstance(found, Mapping):
        raise _invalid_request("webhook must be an object with url and secret")
    return Webhook(_url(found.get("url"), settings), _secret(found.get("secret")))


def _url(url: Any, settings: Settings) -> str:
    if not isinstance(url, str) or not url:
        raise _invalid_request("webhook.url must be a string")
    if len(url) > URL_CHARACTERS_MAX:
        raise _invalid_request(f"webhook.url must be at most {URL_CHARACTERS_MAX} characters long")
    if _VISIBLE.fullmatch(url) is None or "\\" in url:
        raise _invalid_request("webhook.url must be ASCII without spaces: percent-encode the rest")
    parts = _split(url)
    host = parts.hostname
    if parts.scheme not in ("http", "https") or not host:
        raise _invalid_request("webhook.url must start with http:// or https:// and name a host")
    if "@" in parts.netloc:
        raise _invalid_request(
            "webhook.url must hold no credentials: the signature authenticates the call"
        )
    if settings.webhook_private != "allow" and is_plainly_private(host):
        raise _invalid_request("webhook.url must be a public address")
    return url


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        is_port_valid = parts.port != 0  # reading `port` raises ValueError for a malformed port
    except ValueError:
        raise _invalid_request("webhook.url is not a URL") from None
    if not is_port_valid:
        raise _invalid_request("webhook.url: port 0 is not allowed")
    return parts


def _secret(secret: Any) -> str:
    if not isinstance(secret, str) or not secret:
        raise _invalid_request("webhook.secret must be a string: whsec_ and base64, or any text")
    if len(secret) > SECRET_CHARACTERS_MAX:
        raise _invalid_request(
            f"webhook.secret must be at most {SECRET_CHARACTERS_MAX} characters long"
        )
    if _VISIBLE.fullmatch(secret) is None:
        raise _invalid_request("webhook.secret must be visible ASCII")
    try:
        length = len(key_of(secret))
    except (binascii.Error, ValueError):
        raise _invalid_request(
            f"webhook.secret: the text after {SECRET_PREFIX} must be base64"
        ) from None
    if not SECRET_BYTES_MIN <= length <= SECRET_BYTES_MAX:
        raise _invalid_request(
            f"webhook.secret must be {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes long"
        )
    return secret


def _invalid_request(message: str) -> RequestError:
    # Not imported from api.intake.body, which imports this module.
    return request_error("invalid_request", message)

"""The member `webhook` of a body: a URL that may be called, and a secret that signs.

Pure: names are not resolved here. What a name leads to is judged when it is connected to
(jobs/connector.py); an address that says by itself that it is not public is refused at once.
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
    """Return the member `webhook`; None: there is none.

    Raises:
        RequestError: 422.
    """
    found = body.get("webhook")
    if found is None:
        return None
    if not isinstance(found, Mapping):
        raise wrong("webhook must be an object with url and secret")
    return Webhook(_url(found.get("url"), settings), _secret(found.get("secret")))


def _url(url: Any, settings: Settings) -> str:
    if not isinstance(url, str) or not url:
        raise wrong("webhook.url must be a string")
    if len(url) > URL_CHARACTERS_MAX:
        raise wrong(f"webhook.url must be at most {URL_CHARACTERS_MAX} characters long")
    if _VISIBLE.fullmatch(url) is None or "\\" in url:
        raise wrong("webhook.url must be ASCII without spaces: encode the rest")
    parts = _split(url)
    host = parts.hostname
    if parts.scheme not in ("http", "https") or not host:
        raise wrong("webhook.url must start with http:// or https:// and name a host")
    if "@" in parts.netloc:
        raise wrong("webhook.url must hold no credentials: the signature says who calls")
    if settings.webhook_private != "allow" and is_plainly_private(host):
        raise wrong("webhook.url must be a public address")
    return url


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        has_port = parts.port != 0  # reading it checks it
    except ValueError:
        raise wrong("webhook.url is not a URL") from None
    if not has_port:
        raise wrong("webhook.url: there is no port 0")
    return parts


def _secret(secret: Any) -> str:
    if not isinstance(secret, str) or not secret:
        raise wrong("webhook.secret must be a string: whsec_ and base64, or any text")
    if len(secret) > SECRET_CHARACTERS_MAX:
        raise wrong(f"webhook.secret must be at most {SECRET_CHARACTERS_MAX} characters long")
    if _VISIBLE.fullmatch(secret) is None:
        raise wrong("webhook.secret must be visible ASCII")
    try:
        length = len(key_of(secret))
    except (binascii.Error, ValueError):
        raise wrong(f"webhook.secret: what follows {SECRET_PREFIX} must be base64") from None
    if not SECRET_BYTES_MIN <= length <= SECRET_BYTES_MAX:
        raise wrong(f"webhook.secret must be {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes long")
    return secret


def wrong(message: str) -> RequestError:
    return request_error("invalid_request", message)

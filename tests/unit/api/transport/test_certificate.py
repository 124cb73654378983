"""The certificate of a node: what is accepted, and that only a whole pair replaces another."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import Any

import pytest

from api.transport.certificate import Certificate
from shared.errors import ConfigurationError
from tests.support.certificates import Authority, encrypt_key


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def rewrite(path: str, source: str) -> None:
    """Replace a file as programs that renew certificates do: by a rename."""
    new = Path(path + ".new")
    new.write_bytes(Path(source).read_bytes())
    new.replace(path)


def test_a_pair_of_files_is_loaded(authority: Authority) -> None:
    certificate = Certificate(*authority.sign("localhost"))
    context = certificate.context

    certificate.refresh()

    assert certificate.context is context


def test_a_new_pair_is_used_once_both_files_are_there(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    cert, key = authority.sign_for_years("localhost", 2020, 2090)
    new_cert, new_key = authority.sign_for_years("other", 2020, 2090)
    certificate = Certificate(cert, key)
    context, pair = certificate.context, certificate.pair

    rewrite(cert, new_cert)
    certificate.refresh()
    certificate.refresh()

    assert certificate.context is context, "the key still belongs to the earlier certificate"
    assert certificate.pair is pair
    assert [record.message for record in caplog.records] == ["certificate unusable"]
    rewrite(key, new_key)
    certificate.refresh()
    assert certificate.context is not context
    assert certificate.pair == (Path(new_cert).read_bytes(), Path(new_key).read_bytes())
    assert caplog.records[-1].message == "certificate loaded"


def test_a_renewal_during_the_load_never_mixes_two_pairs(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    cert, key = authority.sign("localhost")
    new_cert, new_key = authority.sign("other")
    renewed = (Path(new_cert).read_bytes(), Path(new_key).read_bytes())
    load = ssl.SSLContext.load_cert_chain

    def load_and_renew(context: ssl.SSLContext, *args: Any, **kwargs: Any) -> None:
        load(context, *args, **kwargs)
        monkeypatch.undo()
        rewrite(cert, new_cert)
        rewrite(key, new_key)
        loaded.append(context)

    loaded: list[ssl.SSLContext] = []
    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", load_and_renew)
    certificate = Certificate(cert, key)

    assert certificate.pair == renewed
    assert certificate.context is not loaded[0], "this context has the earlier pair"


def test_a_file_that_disappears_changes_nothing(authority: Authority) -> None:
    cert, key = authority.sign("localhost")
    certificate = Certificate(cert, key)
    context = certificate.context
    Path(cert).rename(cert + ".away")

    certificate.refresh()

    assert certificate.context is context
    Path(cert + ".away").rename(cert)
    certificate.refresh()
    assert certificate.context is context, "the same file as before"


def test_each_pair_that_cannot_be_used_has_a_reason(authority: Authority, tmp_path: Path) -> None:
    cert, key = authority.sign("localhost")
    _, foreign = authority.sign("other")
    rubbish = tmp_path / "rubbish"
    rubbish.write_text("rubbish")
    encrypted = encrypt_key(key, tmp_path / "encrypted")
    absent = str(tmp_path / "absent")

    def why(cert: str, key: str) -> str:
        with pytest.raises(ConfigurationError) as error:
            Certificate(cert, key)
        return str(error.value)

    assert why(absent, key) == f"TAILRACE_TLS_CERT: cannot read {absent}: No such file or directory"
    assert why(cert, absent).startswith(f"TAILRACE_TLS_KEY: cannot read {absent}")
    assert (
        why(cert, foreign)
        == f"TAILRACE_TLS_KEY: {foreign} is not the key of the certificate {cert}"
    )
    for pair in ((str(rubbish), key), (cert, str(rubbish)), (cert, encrypted), (key, cert)):
        assert "a PEM certificate with its chain, and its PEM key without a password" in why(*pair)


@pytest.mark.parametrize(("years", "is_warned"), [((2020, 2021), True), ((2020, 2090), False)])
def test_a_certificate_that_ends_soon_is_warned_of(
    authority: Authority, caplog: pytest.LogCaptureFixture, years: tuple[int, int], is_warned: bool
) -> None:
    Certificate(*authority.sign_for_years("localhost", *years))

    assert [record.message for record in caplog.records] == ["certificate expires"] * is_warned

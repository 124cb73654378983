"""A login in files: read anew for each connection, and refused in one line without its text."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path

import pytest

from shared.config.redis_login import FILE_BYTES_MAX, LoginFileError, RedisLogin
from shared.config.settings import Settings
from shared.errors import ConfigurationError, Unavailable
from shared.redis.connections import connect
from shared.redis.resp import AutoPipeline
from shared.text.redaction import MASK, redact
from tests.support.redis_server import RedisServer


@pytest.mark.parametrize("raw", [b"a pass", b"a pass\n", b"a pass\r\n"])
def test_a_file_holds_one_line_and_is_read_each_time(tmp_path: Path, raw: bytes) -> None:
    file = tmp_path / "password"
    file.write_bytes(raw)
    login = RedisLogin("me", password_file=str(file))

    assert login.words() == [b"AUTH", b"me", b"a pass"]
    file.write_bytes(b"another")
    assert login.words() == [b"AUTH", b"me", b"another"]


def test_a_user_may_be_in_a_file_without_a_password(tmp_path: Path) -> None:
    (tmp_path / "user").write_text("me\n")

    assert RedisLogin(username_file=str(tmp_path / "user")).words() == [b"AUTH", b"me", b""]
    assert RedisLogin().words() == []
    assert RedisLogin(password="pw").words() == [b"AUTH", b"pw"]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (None, "No such file"),
        (b"", "exactly one line"),
        (b"\n", "exactly one line"),
        (b"secret\nsecret\n", "exactly one line"),
        (b"secret\xff", "not UTF-8"),
        (b"secret" * FILE_BYTES_MAX, "more than 4096 bytes"),
    ],
    ids=["absent", "empty", "an empty line", "two lines", "not UTF-8", "too long"],
)
def test_a_file_that_cannot_be_used_is_one_line(
    tmp_path: Path, raw: bytes | None, message: str
) -> None:
    file = tmp_path / "password"
    if raw is not None:
        file.write_bytes(raw)

    with pytest.raises(LoginFileError, match=message) as error:
        RedisLogin(password_file=str(file)).words()

    assert "secret" not in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(ConfigurationError, match=message):
        connect(Settings(redis_url=f"redis://h?password_file={file}"))
    with pytest.raises(ConfigurationError, match=message):
        connect(Settings(redis_url=f"redis+sentinel://s/mine?sentinel_password_file={file}"))


def test_the_password_of_a_file_is_redacted(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("correct horse battery")
    RedisLogin(password_file=str(tmp_path / "password")).read()

    assert redact("AUTH correct horse battery") == f"AUTH {MASK}"


async def test_new_connections_use_a_rotated_password(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("first\n")
    with RedisServer(tcp=True) as server, server.client() as admin:
        url = f"{server.url}?password_file={file}"
        admin.config_set("requirepass", "first")
        async with aclosing(connect(Settings(redis_url=url))) as redis:
            pipeline = AutoPipeline(url, answer_s=5.0)
            async with aclosing(pipeline):
                assert await redis.ping()
                assert await pipeline.run([["PING"]]) == [b"PONG"]

                admin.config_set("requirepass", "second")
                admin.execute_command("CLIENT KILL TYPE normal SKIPME yes")
                with pytest.raises(Unavailable):
                    await pipeline.run([["PING"]])
                file.write_text("second\n")

                assert await redis.ping()
                assert await pipeline.run([["PING"]]) == [b"PONG"]

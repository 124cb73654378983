"""Every implementation of `Pipeline` gives the same replies."""

from __future__ import annotations

import pytest
from redis.exceptions import NoScriptError, ResponseError

from shared.config.settings import Settings
from shared.errors import Unavailable
from shared.redis.connections import connect
from shared.redis.pipeline import ClientPipeline
from shared.redis.resp import AutoPipeline

ECHO = "return {KEYS[1], ARGV[1], ARGV[2]}"
UNKNOWN = "0" * 40


@pytest.fixture(params=["auto", "client"])
async def new_pipeline(request):
    """Return a function that makes a pipeline on a URL."""
    closing = []

    def new(url):
        if request.param == "auto":
            closing.append(AutoPipeline(url, answer_s=2.0))
            return closing[-1]
        closing.append(connect(Settings(redis_url=url)))
        return ClientPipeline(closing[-1])

    yield new
    for one in closing:
        await one.aclose()


@pytest.fixture
def pipeline(new_pipeline, redis_server):
    return new_pipeline(redis_server.url)


@pytest.mark.parametrize("count", [1, 3])
async def test_scripts_are_evaluated_in_order(pipeline, real_redis, count):
    digest = await real_redis.script_load(ECHO)
    calls = [(digest, (["tr:k"], [b"\xff", n])) for n in range(count)]

    replies = await pipeline.evaluate(calls)

    assert replies == [[b"tr:k", b"\xff", b"%d" % n] for n in range(count)]


async def test_an_error_reply_stands_in_the_place_of_its_call(pipeline, real_redis):
    digest = await real_redis.script_load(ECHO)

    first, unknown, last = await pipeline.evaluate(
        [(digest, (["a"], [1, 2])), (UNKNOWN, ([], [])), (digest, (["b"], [3, 4]))]
    )

    assert (first, last) == ([b"a", b"1", b"2"], [b"b", b"3", b"4"])
    assert isinstance(unknown, NoScriptError)


async def test_a_single_error_reply_is_returned_and_not_raised(pipeline):
    (unknown,) = await pipeline.evaluate([(UNKNOWN, ([], []))])
    (wrong,) = await pipeline.run([("NONSENSE",)])

    assert isinstance(unknown, NoScriptError)
    assert isinstance(wrong, ResponseError)


async def test_commands_run_in_order(pipeline):
    replies = await pipeline.run([("SET", "tr:n", 1), ("INCR", b"tr:n"), ("GET", "tr:n")])

    assert replies[1:] == [2, b"2"]


async def test_an_absent_server_is_unavailable(new_pipeline):
    pipeline = new_pipeline("unix:///nonexistent/s")

    with pytest.raises(Unavailable):
        await pipeline.run([("PING",)])
    with pytest.raises(Unavailable):
        await pipeline.evaluate([(UNKNOWN, ([], []))])

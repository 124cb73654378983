"""What becomes of a chunk of audio, in each state of its input."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shared.audio.input import (
    CHUNK_BYTES_MAX,
    UNREAD_BYTES_MAX,
    AudioChunk,
    AudioInputs,
    AudioRefusal,
    AudioState,
)
from shared.audio.record import AUDIO_STEP_BYTES, audio_charge, end_audio
from shared.log import owner_bytes
from shared.log.owner_bytes import SCRIPT
from shared.log.store import Store
from shared.queue.endings import CANCELLED
from shared.queue.leaving import forget
from shared.redis import keys
from tests.support.audio import lose_audio_tail
from tests.support.generation import ID, create, store_on

OWNER = "anonymous"
TOKEN = "t1"
BIG = b"x" * CHUNK_BYTES_MAX


@pytest.fixture
async def store(redis) -> Store:
    store = store_on(redis)
    await create(store, audio="audio/ogg", owner=OWNER)
    return store


@pytest.fixture
def inputs(store: Store) -> AudioInputs:
    return AudioInputs(store, store.settings)


async def say(inputs: AudioInputs, seq: int, data: bytes = b"a", *, last: bool = False) -> str:
    """Append a chunk, and return the outcome in a word."""
    outcome = await inputs.append(ID, OWNER, AudioChunk(seq, data, last))
    if isinstance(outcome, AudioRefusal):
        return f"{outcome.reason} {outcome.next_seq or outcome.detail}".strip()
    return f"{'again' if outcome.is_repeat else 'ok'} {outcome.next_seq}"


async def test_chunks_are_taken_in_order_and_each_once(inputs: AudioInputs, store: Store) -> None:
    await store.begin(ID, TOKEN, "w")

    assert [await say(inputs, n, b"%d" % n) for n in (1, 2, 3)] == ["ok 2", "ok 3", "ok 4"]
    assert await say(inputs, 2, b"2") == "again 4"
    taken = await inputs.take(ID, TOKEN, 1, 1)

    assert taken == [AudioChunk(2, b"2", False), AudioChunk(3, b"3", False)]


@pytest.mark.parametrize(
    ("seq", "data", "last", "outcome"),
    [
        (3, b"c", False, "ok 4"),
        (4, b"d", False, "gap 3"),
        (2, b"other", False, "conflict"),
        (2, b"b", True, "conflict"),
        (1, b"a", False, "again 3"),
    ],
)
async def test_a_number_has_one_content_and_none_is_left_out(
    inputs: AudioInputs, seq: int, data: bytes, last: bool, outcome: str
) -> None:
    await say(inputs, 1, b"a")
    await say(inputs, 2, b"b")

    assert await say(inputs, seq, data, last=last) == outcome


async def test_nothing_follows_the_last_chunk_but_its_repeat(inputs: AudioInputs) -> None:
    assert await say(inputs, 1, b"a") == "ok 2"
    assert await say(inputs, 2, b"", last=True) == "ok 3"

    assert await say(inputs, 2, b"", last=True) == "again 3"
    assert await say(inputs, 3) == "complete 3"


async def test_a_reader_opens_the_window_that_unread_bytes_close(
    inputs: AudioInputs, store: Store
) -> None:
    await store.begin(ID, TOKEN, "w")
    full = UNREAD_BYTES_MAX // CHUNK_BYTES_MAX
    for seq in range(1, full + 1):
        assert await say(inputs, seq, BIG) == f"ok {seq + 1}"
    assert await say(inputs, full + 1) == f"full {full + 1}"
    assert await say(inputs, full + 1, b"", last=True) == f"ok {full + 2}"

    await inputs.take(ID, TOKEN, 1, CHUNK_BYTES_MAX)
    state = await inputs.state(ID, OWNER)

    assert isinstance(state, AudioState) and state.bytes_read == CHUNK_BYTES_MAX
    assert replace(state, is_complete=False).window_bytes == CHUNK_BYTES_MAX


async def test_a_reader_that_begins_again_closes_no_window(
    inputs: AudioInputs, store: Store
) -> None:
    await store.begin(ID, TOKEN, "w")
    await say(inputs, 1, BIG)
    await inputs.take(ID, TOKEN, 1, CHUNK_BYTES_MAX)

    await inputs.take(ID, TOKEN, 0, 0)

    state = await inputs.state(ID, OWNER)
    assert isinstance(state, AudioState) and state.window_bytes == UNREAD_BYTES_MAX


async def test_a_whole_input_has_a_bound(redis) -> None:
    store = store_on(redis, audio_bytes_max=10)
    await create(store, audio="audio/ogg", owner=OWNER)
    inputs = AudioInputs(store, store.settings)
    assert await say(inputs, 1, b"x" * 10) == "ok 2"

    assert await say(inputs, 2) == "long"
    assert await say(inputs, 2, b"", last=True) == "ok 3"


async def test_only_the_owner_may_send(inputs: AudioInputs) -> None:
    chunk = AudioChunk(1, b"a", False)

    assert await inputs.append(ID, "somebody", chunk) == AudioRefusal("absent")
    assert await inputs.state(ID, "somebody") == AudioRefusal("absent")


async def test_a_generation_without_audio_takes_none(redis) -> None:
    store = store_on(redis)
    await create(store, owner=OWNER)

    assert await say(AudioInputs(store, store.settings), 1) == "none"


async def test_only_the_holder_reads(inputs: AudioInputs, store: Store) -> None:
    await store.begin(ID, TOKEN, "w")
    await say(inputs, 1)

    assert await inputs.take(ID, "another", 0, 0) is None


async def test_the_end_refuses_chunks_and_deletes_the_input(
    inputs: AudioInputs, store: Store
) -> None:
    await say(inputs, 1)
    await store.close(ID, CANCELLED)

    assert await say(inputs, 2) == "ended cancelled"
    assert await say(inputs, 1) == "ended cancelled"
    await forget(store, ID)
    assert not await store.redis.exists(keys.audio(ID))


async def test_a_deleted_generation_has_no_input(inputs: AudioInputs, store: Store) -> None:
    await say(inputs, 1)

    await store.delete(ID)

    assert await say(inputs, 2) == "absent"
    assert not await store.redis.exists(keys.audio(ID))


async def test_chunks_that_redis_has_lost_are_asked_for_again(
    inputs: AudioInputs, store: Store
) -> None:
    await store.begin(ID, TOKEN, "w")
    for seq in (1, 2, 3):
        await say(inputs, seq, b"%d" % seq)
    await inputs.take(ID, TOKEN, 3, 3)
    await lose_audio_tail(store.redis, ID, keep=1)

    assert await say(inputs, 4, b"4") == "gap 2"
    assert [await say(inputs, n, b"%d" % n) for n in (2, 3, 4)] == ["ok 3", "ok 4", "ok 5"]
    assert await inputs.take(ID, TOKEN, 3, 3) == [AudioChunk(4, b"4", False)]


@pytest.mark.parametrize("last", [True, False])
async def test_the_state_stays_after_the_end_and_takes_no_more(
    inputs: AudioInputs, store: Store, last: bool
) -> None:
    await say(inputs, 1, b"abc")
    await say(inputs, 2, b"de", last=last)
    before = await inputs.state(ID, OWNER)
    await store.close(ID, CANCELLED)
    for _ in range(2):
        await end_audio(store.scripts, OWNER, ID)
        state = await inputs.state(ID, OWNER)

        assert isinstance(before, AudioState) and isinstance(state, AudioState)
        assert state == replace(before, status="cancelled")
        assert (state.next_seq, state.is_complete, state.window_bytes) == (3, last, 0)
    assert not await store.redis.exists(keys.audio(ID))

    await store.redis.delete(keys.log(ID))
    assert await inputs.state(ID, OWNER) == AudioRefusal("expired")


async def test_the_end_of_an_input_creates_no_generation(inputs: AudioInputs, store: Store) -> None:
    await say(inputs, 1, b"abc")
    await store.redis.delete(keys.meta(ID))

    await end_audio(store.scripts, OWNER, ID)

    assert not await store.redis.exists(keys.meta(ID), keys.audio(ID))


async def test_the_bytes_of_an_input_count_for_its_owner_until_its_end(store: Store) -> None:
    scripts = store.scripts
    total = int(await scripts.run(SCRIPT, *audio_charge(OWNER, ID, 1, store.settings)))
    again = int(
        await scripts.run(SCRIPT, *audio_charge(OWNER, ID, AUDIO_STEP_BYTES, store.settings))
    )

    await end_audio(scripts, OWNER, ID)
    await store.redis.zadd(keys.owner_until(OWNER), {f"{ID} audio": 1})

    assert total == again == AUDIO_STEP_BYTES
    assert int(await scripts.run(SCRIPT, *owner_bytes.total(OWNER))) == 0

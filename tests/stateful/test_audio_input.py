"""The chunk protocol in any interleaving: a client, two nodes, a reader, a Redis that loses chunks.

The model splits each request from its reply: a reply may be lost, and the client then repeats the
request, or asks another node for the state. Redis may forget the newest chunks at any time. A
reader may die; the next one begins at the first chunk. In the end every reader has read exactly the
bytes that the client had to send.
"""

from __future__ import annotations

import asyncio

import pytest
from fakeredis import FakeServer
from fakeredis.aioredis import FakeRedis
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from shared.audio.input import AudioChunk, AudioInputs, AudioRefusal, AudioState
from shared.redis import keys
from tests.support.audio import lose_audio_tail
from tests.support.generation import ID, create, store_on

OWNER, TOKEN = "anonymous", "t1"


class AudioProtocol(RuleBasedStateMachine):
    """One input. `self.chunks` is what the client sends; chunk n has the number n."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.redis = FakeRedis(server=FakeServer())
        self.store = store_on(self.redis)
        self.nodes = [AudioInputs(self.store, self.store.settings) for _ in range(2)]
        self.next = 1  # the chunk that the client sends next
        self.after, self.read = 0, b""  # of the present reader
        self.was_read_to_the_end = False

    def run(self, work):
        return self.loop.run_until_complete(work)

    @initialize(chunks=st.lists(st.binary(min_size=1, max_size=3), min_size=1, max_size=8))
    def begin(self, chunks: list[bytes]) -> None:
        self.chunks = [*chunks, b""]
        self.run(create(self.store, audio="audio/ogg", owner=OWNER))
        self.run(self.store.begin(ID, TOKEN, "w"))

    def chunk(self, seq: int) -> AudioChunk:
        return AudioChunk(seq, self.chunks[seq - 1], seq == len(self.chunks))

    # The client

    @rule(node=st.sampled_from([0, 1]), reply_is_lost=st.booleans())
    def send(self, node: int, reply_is_lost: bool) -> None:
        seq = min(self.next, len(self.chunks))
        outcome = self.run(self.nodes[node].append(ID, OWNER, self.chunk(seq)))
        if reply_is_lost:
            return
        if isinstance(outcome, AudioRefusal):
            assert outcome.reason == "gap", outcome
        self.next = outcome.next_seq

    @rule(node=st.sampled_from([0, 1]), data=st.data())
    def repeat_an_old_chunk(self, node: int, data: st.DataObject) -> None:
        seq = data.draw(st.integers(1, len(self.chunks)))
        outcome = self.run(self.nodes[node].append(ID, OWNER, self.chunk(seq)))
        assert isinstance(outcome, AudioState) or outcome.reason == "gap", outcome

    @rule(node=st.sampled_from([0, 1]))
    def come_back(self, node: int) -> None:
        state = self.run(self.nodes[node].state(ID, OWNER))
        assert isinstance(state, AudioState)
        self.next = state.next_seq

    @rule(node=st.sampled_from([0, 1]), data=st.data())
    def send_other_bytes(self, node: int, data: st.DataObject) -> None:
        """A chunk whose number is stored already, with other bytes, changes nothing."""
        stored = self.run(self.redis.xlen(keys.audio(ID)))
        if stored:
            seq = data.draw(st.integers(1, stored))
            wrong = AudioChunk(seq, b"wrong", False)
            assert self.run(self.nodes[node].append(ID, OWNER, wrong)) == AudioRefusal("conflict")

    # Redis, and the worker

    @rule(data=st.data())
    def lose_the_newest(self, data: st.DataObject) -> None:
        stored = self.run(self.redis.xlen(keys.audio(ID)))
        keep = data.draw(st.integers(0, stored))
        self.run(lose_audio_tail(self.redis, ID, keep=keep))

    @precondition(lambda self: not self.was_read_to_the_end)
    @rule()
    def take(self) -> None:
        taken = self.run(self.nodes[0].take(ID, TOKEN, self.after, len(self.read)))
        assert taken is not None
        for chunk in taken:
            assert chunk.seq == self.after + 1
            self.after, self.read = chunk.seq, self.read + chunk.data
            self.was_read_to_the_end = chunk.is_last

    @rule()
    def another_reader(self) -> None:
        self.after, self.read, self.was_read_to_the_end = 0, b"", False

    @invariant()
    def what_was_read_is_the_beginning_of_what_is_sent(self) -> None:
        if hasattr(self, "chunks"):
            assert self.read == b"".join(self.chunks[: self.after])

    def teardown(self) -> None:
        """The client and a reader come to the end, whatever has happened before."""
        if hasattr(self, "chunks"):
            self.come_back(0)
            for _ in self.chunks:
                self.send(1, False)
            while not self.was_read_to_the_end:
                before = self.after
                self.take()
                assert self.after > before
            assert self.read == b"".join(self.chunks)
        self.run(self.redis.aclose())
        self.loop.close()


def test_every_chunk_counts_once_whatever_is_lost() -> None:
    run_state_machine_as_test(
        AudioProtocol, settings=settings(max_examples=20, stateful_step_count=20)
    )


def test_the_machine_notices_a_protocol_that_does_not_compare(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A repeat that is taken without a look at its bytes is found."""

    async def append(self: AudioInputs, name: str, owner: str, chunk: AudioChunk):
        found = await right(self, name, owner, chunk)
        is_conflict = isinstance(found, AudioRefusal) and found.reason == "conflict"
        return await self.state(name, owner) if is_conflict else found

    right = AudioInputs.append
    monkeypatch.setattr(AudioInputs, "append", append)

    with pytest.raises(AssertionError):
        run_state_machine_as_test(
            AudioProtocol,
            settings=settings(max_examples=60, stateful_step_count=20, phases=[Phase.generate]),
        )

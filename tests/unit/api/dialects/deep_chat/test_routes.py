"""deep-chat on the bench: what its requests mean, and the socket with its stop key."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from api.dialects.deep_chat.fold import CompleteAnswer, DeepChatFold, DeepChatFrameFold
from api.dialects.deep_chat.request import parse_deep_chat
from api.dialects.deep_chat.socket import deep_chat_socket, read_stop_key
from api.edge.auth import Authenticator
from shared.config.credentials import Identity
from shared.errors import RequestError, Unavailable
from shared.log.events import End, Failure, File, Progress, Reset, Start, Token, encode
from shared.log.ids import EventId
from tests.support.bench import END, Bench, make_meta, settle
from tests.support.talk import ANYBODY, KeyedAcceptor, Talk

HELLO = {"messages": [{"role": "user", "text": "Hi"}]}
STOP = {"text": "stop-key"}
BROKE = End("failed", "error", error=Failure("upstream_error", "it broke", True))
PLOT = File("plot.png", "image/png", url="https://example.org/plot.png")
FIRST, SECOND = "gen_0000000000", "gen_0000000001"


# What is shown, over server-sent events and over WebSocket


def sse(*events: Any) -> list[dict[str, Any]]:
    fold = DeepChatFold(make_meta())
    sent = b"".join(fold.add(EventId(1, seq), encode(e)) for seq, e in enumerate(events, 1))
    blocks = sent.decode().split("\n\n")[:-1]
    return [json.loads(block.partition("data: ")[2]) for block in blocks]


def frames(*events: Any, key: str = "stop-key") -> list[dict[str, Any]]:
    fold = DeepChatFrameFold(make_meta(), key)
    sent = [f for seq, e in enumerate(events, 1) for f in fold.add(EventId(1, seq), encode(e))]
    return [json.loads(frame) for frame in sent]


def test_the_text_after_a_reset_overwrites_what_was_shown() -> None:
    events = (Token("One, "), Reset("takeover"), Token(""), Token("Uno, "), Token("due"), END)
    shown = [{"text": "One, "}, {"text": "Uno, ", "overwrite": True}, {"text": "due"}]
    assert sse(*events) == shown
    assert frames(*events) == [*shown, STOP]


def test_where_nothing_follows_a_reset_nothing_is_shown_any_more() -> None:
    events = (Token("One, "), Reset("takeover"), BROKE)
    assert sse(*events)[1:] == [{"text": " ", "overwrite": True}, {"error": "it broke"}]


def test_a_reset_before_the_first_text_overwrites_nothing() -> None:
    assert sse(Start(1, "demo"), Reset("takeover"), Token("Uno"), END) == [{"text": "Uno"}]


@pytest.mark.parametrize("end", [END, End("cancelled", "cancelled")])
def test_an_answer_without_a_word_is_a_blank(end: End) -> None:
    assert sse(Start(1, "demo"), end) == [{"text": " "}]
    assert frames(end) == [{"text": " "}, STOP]


def test_an_error_keeps_what_was_said_and_comes_before_the_key() -> None:
    assert sse(Token("One"), BROKE) == [{"text": "One"}, {"error": "it broke"}]
    assert frames(Token("One"), BROKE) == [{"text": "One"}, {"error": "it broke"}, STOP]
    assert sse(BROKE) == [{"error": "it broke"}]


def test_progress_is_a_role_of_its_own_and_the_answer_names_its_role_after_it() -> None:
    events = (Progress("pdf_parsing", 3, 50, 6.0), Token("a"), Token("b"))
    status = {"role": "status", "text": "pdf parsing 3/50", "overwrite": True}
    assert sse(*events, END) == [status, {"role": "ai", "text": "a"}, {"text": "b"}]
    assert frames(*events, END) == [
        status, {"text": "a"}, {"text": "b"}, {"role": "status", **STOP}, STOP,
    ]  # fmt: skip


def test_progress_in_mid_answer_does_not_cut_the_bubble_in_two() -> None:
    progress = Progress("rows", 1, 2, 50.0)
    assert sse(Token("a"), progress, Token("b"), END) == [{"text": "a"}, {"text": "b"}]
    assert [f["text"] for f in frames(Token("a"), progress, Token("b"))] == ["a", "rows 1/2", "b"]


def test_files_are_a_message_and_are_not_shown_again_after_a_reset() -> None:
    paper = File("paper.pdf", "application/pdf", data="UERG")
    song = File("song.mp3", "audio/mpeg", data="TVAz")
    files = [
        {"src": "https://example.org/plot.png", "name": "plot.png", "type": "image"},
        {"src": "data:application/pdf;base64,UERG", "name": "paper.pdf", "type": "any"},
        {"src": "data:audio/mpeg;base64,TVAz", "name": "song.mp3", "type": "audio"},
    ]
    shown = sse(PLOT, paper, Reset("takeover"), PLOT, paper, PLOT, song, END)
    assert shown == [{"files": [files[n]]} for n in (0, 1, 0, 2)]


@pytest.mark.parametrize("key", ["stop-key", "ab", "👩\u200d🚀", '"x'])
def test_a_piece_that_equals_the_key_is_sent_in_two(key: str) -> None:
    stop = {"text": key}
    shown = frames(Token("x"), Token(key), Reset("r"), Token(key), Token(key * 2), END, key=key)
    assert shown.count(stop) == 1 and shown[-1] == stop
    after = next(n for n, frame in enumerate(shown) if frame.get("overwrite"))
    assert "".join(frame["text"] for frame in shown[after:-1]) == key * 3


def test_a_status_that_equals_the_key_does_not_stop_it() -> None:
    shown = frames(Progress("rows", 1, 2, 50.0), END, key="rows 1/2")
    assert [f["text"] for f in shown if f.get("role") == "status"] == ["rows 1/2 ", "rows 1/2"]


def test_a_whole_answer_is_one_response() -> None:
    whole = CompleteAnswer(make_meta())
    events = (Token("One"), PLOT, Reset("takeover"), Token("Uno"), PLOT, END)
    for seq, event in enumerate(events, 1):
        whole.add(EventId(1, seq), encode(event))
    assert whole.failure is None
    assert whole.response["text"] == "Uno"
    assert [file["name"] for file in whole.response["files"]] == ["plot.png"]


# What is asked


def test_a_history_is_handed_on_in_the_roles_that_models_know() -> None:
    messages = [
        {"role": "system", "text": "Be short."},
        {"role": "user", "text": "Hi"},
        {"role": "status", "text": "parsing 3/50"},
        {"role": "ai", "html": "<b>Hello</b>"},
        {"error": "it broke"},
        {"role": "ai", "files": [{"src": "x", "type": "any"}]},
        {"role": "anna", "text": "And I?"},
    ]
    asked = parse_deep_chat({"messages": messages, "params": {"max_tokens": 5}}, grace_s=7)
    assert asked.request.messages == [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "<b>Hello</b>"},
        {"role": "user", "content": "And I?"},
    ]
    assert (asked.request.params, asked.grace_s) == ({"max_tokens": 5}, 7)


def test_a_picture_of_the_user_is_a_part() -> None:
    picture = {"src": "data:image/png;base64,AA", "type": "image", "name": "a.png"}
    message = {"role": "user", "text": "What is it?", "files": [picture, {"type": "any"}]}
    (read,) = parse_deep_chat({"messages": [message]}, grace_s=0).request.messages
    assert read["content"] == [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}},
    ]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"messages": []},
        {"messages": {}},
        {"messages": ["Hi"]},
        {"messages": [{}]},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "user", "text": ""}]},
        {"messages": [{"role": "user", "text": 7}]},
        {"messages": [{"role": 7, "text": "x"}]},
        {"messages": [{"role": "user", "text": "x", "files": {}}]},
        {"messages": [{"role": "user", "text": "x", "files": ["a"]}]},
        {"messages": [{"role": "status", "text": "x"}]},
        {"messages": [{"text": "x"}], "params": []},
    ],
)
def test_what_is_wrong_is_422(body: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as caught:
        parse_deep_chat(body, grace_s=0)
    assert caught.value.status == 422


@pytest.mark.parametrize("key", ["", "x", "  ", "x" * 257, "ab\udc80"])
def test_a_stop_key_that_cannot_be_told_from_text_is_refused(key: str) -> None:
    with pytest.raises(RequestError) as caught:
        read_stop_key({"stop_key": key})
    assert caught.value.status == 422


# The socket


class Stage:
    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.log = bench.log
        self.acceptor = KeyedAcceptor(bench)
        self.talks: list[Talk] = []

    async def talk(self, query: str = "", authenticator: Authenticator = ANYBODY) -> Talk:
        node = self.bench.node(acceptor=self.acceptor, authenticator=authenticator)
        self.talks.append(Talk(deep_chat_socket(node), query=query))
        await settle()
        return self.talks[-1]


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with Bench() as bench:
        stage = Stage(bench)
        yield stage
        for talk in stage.talks:
            await talk.leave()


async def test_an_answer_is_texts_and_the_key(stage: Stage) -> None:
    talk = await stage.talk("stop_key=%2Fover%2F")
    await talk.say({**HELLO, "session": "s1"})
    stage.log.append(Start(1, "demo"))
    stage.log.tokens("Hel")
    await settle()
    stage.log.tokens("lo", "/over/")
    stage.log.append(END)
    await settle()

    assert talk.take() == [
        {"text": "Hel"}, {"text": "lo"}, {"text": "/"}, {"text": "over/"}, {"text": "/over/"},
    ]  # fmt: skip
    (new,) = stage.acceptor.seen
    assert (new.session, new.grace_s) == ("s1", 5.0)


async def test_what_is_asked_meanwhile_waits_for_its_turn(stage: Stage) -> None:
    talk = await stage.talk()
    for _ in range(2):
        await talk.say(HELLO)
    stage.log.tokens("a")
    await settle()
    assert talk.take() == [{"text": "a"}]
    assert len(stage.acceptor.seen) == 1

    stage.log.append(END)
    await settle()
    stage.log.tokens("b", generation_id=SECOND)
    stage.log.append(BROKE, generation_id=SECOND)
    await settle()
    assert talk.take() == [STOP, {"text": "b"}, {"error": "it broke"}, STOP]


async def test_what_is_wrong_is_said_in_its_turn_with_a_key(stage: Stage) -> None:
    talk = await stage.talk()
    await talk.say(HELLO)
    for wrong in ("{", "[1]", {"messages": []}, {**HELLO, "model": "none"}):
        await talk.say(wrong)
    assert talk.take() == []
    stage.log.append(END)
    await settle()

    said = talk.take()
    assert said[:2] == [{"text": " "}, STOP]
    assert said[3::2] == [STOP] * 4
    assert all(isinstance(frame["error"], str) for frame in said[2::2]) and len(said) == 10
    await talk.say(HELLO)
    assert len(stage.acceptor.seen) == 2


async def test_more_requests_than_may_wait_are_refused(stage: Stage) -> None:
    talk = await stage.talk()
    for _ in range(18):
        await talk.say(HELLO)
    for n in range(17):
        stage.log.append(END, generation_id=f"gen_{n:010}")
        await settle(80)
    assert [f["error"] for f in talk.take() if "error" in f] == [
        "at most 16 requests wait on a socket"
    ]
    assert len(stage.acceptor.seen) == 17


async def test_a_flood_closes_the_socket(stage: Stage) -> None:
    talk = await stage.talk()
    for _ in range(90):
        await talk.say(HELLO)
    await talk.task
    assert talk.close_code == 1008


async def test_a_log_that_is_written_anew_overwrites_exactly(stage: Stage) -> None:
    talk = await stage.talk()
    await talk.say(HELLO)
    stage.log.tokens("One, ", "two, ", "three")
    await settle()
    stage.log.roll_back(2)
    stage.log.tokens("deux, ")
    stage.log.append(END)
    await stage.bench.pass_time(5)
    said = talk.take()
    assert said[3]["overwrite"] is True
    assert "".join(f["text"] for f in said[3:-1]) == "One, deux, "
    assert said[-1] == STOP


async def test_a_lost_answer_is_an_error_and_a_key(stage: Stage) -> None:
    talk = await stage.talk()
    await talk.say(HELLO)
    stage.log.tokens("a")
    await settle()
    talk.take()
    stage.log.lose(FIRST)
    await stage.bench.pass_time(13)
    error, stop = talk.take()
    assert "lost" in error["error"]
    assert stop == STOP


async def test_with_redis_away_it_says_so_and_the_socket_lives(stage: Stage) -> None:
    talk = await stage.talk()
    stage.acceptor.error = Unavailable("away")
    await talk.say(HELLO)
    error, stop = talk.take()
    assert "repeating" in error["error"] and stop == STOP
    stage.acceptor.error = None
    await talk.say(HELLO)
    stage.log.append(END)
    await settle()
    assert talk.take() == [{"text": " "}, STOP]


async def test_a_draining_node_says_so_and_closes(stage: Stage) -> None:
    talk = await stage.talk()
    stage.bench.hub.is_draining = True
    await talk.say(HELLO)
    await talk.task
    assert [next(iter(frame)) for frame in talk.take()] == ["error", "text"]
    assert talk.close_code == 1012


async def test_binary_is_an_error_and_then_1003(stage: Stage) -> None:
    talk = await stage.talk()
    await talk.say_bytes(b"\x00")
    await talk.task
    assert talk.close_code == 1003


@pytest.mark.parametrize(
    ("query", "authenticator", "status"),
    [("", Authenticator({"k": Identity("ann")}, ()), 401), ("stop_key=x", ANYBODY, 422)],
)
async def test_what_is_refused_is_refused_at_the_handshake(
    stage: Stage, query: str, authenticator: Authenticator, status: int
) -> None:
    """Accepted and closed, the component would come back at once, for ever."""
    talk = await stage.talk(query, authenticator)
    with pytest.raises(RequestError) as caught:
        await talk.task
    assert caught.value.status == status
    assert talk.client.messages == []

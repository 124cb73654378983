"""The text of the demo backend: a description of Tailrace, built from sentences that a seed picks.

Invariant: the same seed and the same quoted words give the same pieces in the same order, on every
machine and Python version. Only `Random.random()` is used, because Python guarantees its sequence.
Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain
from random import Random

QUOTE_CHARS_MAX = 60  # of the prompt, in the opening sentence
READ_CHARS_MAX = 16_384  # of a prompt: a megabyte blocked the lease renewals for half a second
PARAGRAPHS = 4  # of an answer of the default length
PARAGRAPH_END = "\n\n"

OPENINGS = (
    "You wrote “{quote}”. I am Tailrace’s built-in demo — no model, no key, no network — so instead"
    " of an answer you get the story of how these words reach you.",
    "“{quote}” — a fair thing to ask a language model. I am not one: I am the demo backend of"
    " Tailrace, and what I know is the road between a worker and your screen.",
    "Thank you for “{quote}”. A real model would think about it now; the demo tells you what"
    " happens"
    " to a token after it is born. 🚀",
)

# One paragraph each; every inner tuple is one sentence in several wordings.
TOPICS: tuple[tuple[tuple[str, ...], ...], ...] = (
    (
        (
            "Everything starts with the log.",
            "The heart of it is a log.",
            "There is one truth here, and it is a log.",
        ),
        (
            "Each answer has a Redis stream of its own, and whatever a worker hears from a model is"
            " appended there before anybody else learns of it.",
            "A worker appends every piece of the answer to a stream in Redis — one stream per"
            " answer, never shared, never reused.",
        ),
        (
            "Nodes and workers keep nothing that could not be read again from it, so any of them"
            " may"
            " be switched off in mid-sentence.",
            "What the processes hold in memory is only a copy, and a copy can be thrown away.",
        ),
        (
            "The Chinese word 流 means both “stream” and “to flow”, which fits: you can step"
            " into this river twice.",
            "Léa, who likes to read logs, calls it the only place in the system that never lies.",
        ),
    ),
    (
        (
            "Every event carries an id such as 1-42.",
            "Look at the ids on the wire: 1-41, 1-42, 1-43.",
        ),
        (
            "The first number is the attempt, the second counts up without a hole, and together"
            " they"
            " say exactly where you are.",
            "The second number rises by one each time, so a gap cannot hide; the first one rises"
            " when another worker takes over.",
        ),
        (
            "An id is never given to two different events, not even after a failover.",
            "Two events never share an id, whatever breaks in between.",
        ),
        (
            "Compare them as two integers or do not compare them at all — sending the last one back"
            " is enough.",
            "You need not understand them: keep the last one you saw, and send it back when you"
            " return.",
        ),
    ),
    (
        (
            "Close the lid of your laptop and open it again: the answer goes on.",
            "Reload this page in the middle of a word, if you like.",
            "Suppose your train enters a tunnel right now.",
        ),
        (
            "Your browser comes back with the last id it has seen, on any node, and is given what"
            " follows — no piece twice, no piece missing.",
            "On reconnecting the reader names its last id, and whichever node answers continues"
            " from there, first from the log and then live.",
        ),
        (
            "Meanwhile the model kept talking, because losing a reader is not the same as being"
            " told to stop.",
            "The worker never noticed: readers come and go, and generation does not wait for them.",
        ),
        (
            "And a stream never ends in silence; a clean end always says why it ended.",
            "If a connection breaks without an end event, it broke — you are never left to guess.",
        ),
    ),
    (
        (
            "A worker holds each answer on a lease.",
            "Between a worker and its answer stands a lease of a few seconds.",
        ),
        (
            "As long as it appends or renews, nobody else may write; when it falls silent, the"
            " lease"
            " runs out and the work is free again.",
            "Each append pushes the lease on, and a worker that hangs, crashes or loses its network"
            " simply stops pushing.",
        ),
        (
            "Should the old worker wake up later — after a long pause, say — its token no longer"
            " fits, and not one late word gets in.",
            "A sleeper that returns finds the door locked: the log compares tokens, and its own"
            " is old.",
        ),
        (
            "Søren once stopped a worker with a signal, waited, and let it run on; the log did"
            " not change by a single byte.",
            "That fence is checked in the same step as the write, so there is no moment in"
            " between.",
        ),
    ),
    (
        (
            "When a worker dies, another takes over.",
            "Machines fail; that is what the second worker is for.",
        ),
        (
            "It begins a new attempt, reads what was already said, and asks the model to go on from"
            " exactly there.",
            "The partial answer goes back to the model as the beginning of its own turn, and the"
            " next token continues the sentence.",
        ),
        (
            "Where a model cannot do that, the log says reset, and every reader knows that the text"
            " so far is void.",
            "If the model cannot continue, a reset event tells all readers to start the text anew.",
        ),
        (
            "You may try it: find my worker’s process, kill it without mercy, and watch this"
            " sentence finish.",
            "In most cases you will notice a pause of about a second, or nothing at all. 👩‍🚀",
        ),
    ),
    (
        (
            "On every node there is a hub.",
            "Between Redis and the readers sits the hub.",
        ),
        (
            "It follows each live answer once, however many people are watching, and keeps the"
            " encoded pieces at hand.",
            "It reads a live answer a single time and hands the same bytes to one reader or to ten"
            " thousand.",
        ),
        (
            "A late joiner gets one slice of that memory instead of a query to Redis.",
            "Whoever joins late is served from memory, in one write.",
        ),
        (
            "When a piece is missing, the node notices by its id and repairs itself, once for all"
            " its readers.",
            "If the live channel drops something, the next id does not fit, and the hub fetches"
            " the missing part from the log.",
        ),
    ),
    (
        (
            "A slow reader costs only itself.",
            "Not everybody reads at the same speed, and nobody has to.",
        ),
        (
            "The worker never waits for readers, and a node keeps no endless queue for any of"
            " them.",
            "What piles up for one stalled connection is bounded in bytes; past that it is cut.",
        ),
        (
            "Being cut is no tragedy: the reader returns with its last id and catches up from the"
            " log.",
            "Those who were cut come back and resume — the log is patient.",
        ),
    ),
    (
        (
            "Prompts wait in a queue, but safety does not depend on it.",
            "The queue only says who should look.",
        ),
        (
            "An entry may be delivered twice, or late, and nothing bad happens, for the log alone"
            " decides who may write.",
            "Whether a worker may begin is decided at the answer’s own key; a second delivery finds"
            " it taken and goes home.",
        ),
        (
            "Every accepted prompt ends: completed, cancelled or failed, and within a bound.",
            "So each accepted prompt comes to an end that somebody can read, even on a bad day.",
        ),
        (
            "In Reykjavík or São Paulo — the node nearest to you can cancel it just as well.",
            "Cancelling works from any node, at once, and what was said before it stays.",
        ),
    ),
    (
        (
            "Even these letters are a small test.",
            "A word about characters, since streams like to break them.",
        ),
        (
            "“Zoë”, “naïve”, 流 and 🇩🇰 take several bytes each, and a network may cut them"
            " anywhere.",
            "An é takes two bytes, 水 three, and 👩‍🚀 eleven; a packet may end inside any of them.",
        ),
        (
            "The reader joins the bytes before it decodes a line, so no half character is ever"
            " shown.",
            "Nothing is decoded before its line is whole, and broken bytes are an error rather than"
            " a question mark in a box.",
        ),
    ),
)

CLOSINGS = (
    "That is all there is to it — one log, one writer, any number of readers. Connect a real model"
    " in models.toml, and the same 流, as Zoë would call the stream, carries its words. 👩‍🚀",
    "Now put a real model behind me: a few lines in models.toml, and everything above holds for its"
    " answers too. Or ask again — with another seed, André, Zoë and 小明 hear another story. 👋",
    "Thanks for reading to the end event. The rest is in docs/architecture.md — short, and with a"
    " picture. À bientôt, as Léa says; or 再见, if you prefer. 🌊",
)

THOUGHTS = (
    "The question arrived; it is worth a short thought.",
    "First the log, then the ids, then what happens when something breaks.",
    "An example helps more than a definition.",
    "Which part matters most to somebody who reads this for the first time?",
    "Keep it short — and keep it true.",
)

# Pieces like those of a tokenizer: a word with the space before it, punctuation, a CJK character,
# or a run of other symbols. No piece cuts a character that has several code points.
MARKS = "\u0300-\u036f\u200d\ufe0f\u20e3\U0001f3fb-\U0001f3ff"
CJK = "\u3040-\u30ff\u3400-\u9fff"
PIECE = re.compile(
    rf"\n+| ?[{CJK}][{MARKS}]*| ?(?:[^\W{CJK}][{MARKS}]*)+"
    rf"| ?[.,;:!?…—’“”\"'()-]+| ?[^\w\s.,;:!?…—’“”\"'()-]+[{MARKS}]*|\s"
)
WORD_CHARS_MAX = 8  # longer words come in two pieces


def split(text: str) -> tuple[str, ...]:
    """Cut `text` into pieces; joined they are `text` again."""
    return tuple(chain.from_iterable(_halve(piece) for piece in PIECE.findall(text)))


_split_known = lru_cache(maxsize=1024)(split)  # only for the sentences above, never for prompts


def count(texts: Sequence[str]) -> int:
    """Return the number of pieces in `texts`; an estimate beyond `READ_CHARS_MAX` characters."""
    total = sum(map(len, texts))
    counted = read = 0
    for text in texts:
        if read >= READ_CHARS_MAX:
            break
        head = text[: READ_CHARS_MAX - read]
        counted += len(split(head))
        read += len(head)
    return round(counted * total / read) if read else 0


def quote_of(prompt: str) -> str:
    """Return the first words of the prompt on one line, about `QUOTE_CHARS_MAX` characters."""
    head = prompt[:READ_CHARS_MAX]
    words = " ".join(head.encode("utf-8", "ignore").decode().split())
    if len(words) <= QUOTE_CHARS_MAX and len(head) == len(prompt):
        return words or "…"
    taken = ""
    for piece in split(words[: 2 * QUOTE_CHARS_MAX]):
        if len(taken) + len(piece) > QUOTE_CHARS_MAX:
            break
        taken += piece
    return taken + "…"


def answer(prompt: str, seed: str, tokens: int | None) -> Iterator[str]:
    """Yield the pieces of one answer.

    Args:
        tokens: the exact number of pieces; topics repeat if necessary. None: an opening,
            `PARAGRAPHS` paragraphs and a closing.
    """
    rng = Random(f"{seed}/text")
    opening = split(_choose(rng, OPENINGS).format(quote=quote_of(prompt)))
    order = _shuffled(rng, TOPICS)
    if tokens is None:
        yield from opening
        for topic in order[:PARAGRAPHS]:
            yield from _paragraph(rng, topic)
        yield PARAGRAPH_END
        yield from _split_known(_choose(rng, CLOSINGS))
        return
    for piece in _endless(rng, opening, order):
        if tokens <= 0:
            return
        tokens -= 1
        yield piece


def thoughts(seed: str, tokens: int) -> Iterator[str]:
    """Yield `tokens` pieces of reasoning."""
    rng = Random(f"{seed}/thoughts")
    while tokens > 0:
        for piece in _split_known(_choose(rng, THOUGHTS) + " ")[:tokens]:
            tokens -= 1
            yield piece


def _endless(
    rng: Random, opening: Sequence[str], order: Sequence[tuple[tuple[str, ...], ...]]
) -> Iterator[str]:
    yield from opening
    while True:
        for topic in order:
            yield from _paragraph(rng, topic)
        order = _shuffled(rng, TOPICS)


def _paragraph(rng: Random, topic: tuple[tuple[str, ...], ...]) -> Iterator[str]:
    yield PARAGRAPH_END
    for number, wordings in enumerate(topic):
        yield from _split_known((" " if number else "") + _choose(rng, wordings))


def _choose(rng: Random, choices: Sequence[str]) -> str:
    return choices[int(rng.random() * len(choices))]


def _shuffled(
    rng: Random, topics: Sequence[tuple[tuple[str, ...], ...]]
) -> list[tuple[tuple[str, ...], ...]]:
    return [topic for _, topic in sorted((rng.random(), topic) for topic in topics)]


def _halve(piece: str) -> tuple[str, ...]:
    """Cut a long ASCII word into two pieces, as a tokenizer would."""
    if len(piece) <= WORD_CHARS_MAX or not (piece.isascii() and piece.strip().isalpha()):
        return (piece,)
    middle = len(piece) * 3 // 5
    return piece[:middle], piece[middle:]

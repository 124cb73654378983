"""The stage `filter`: masks words and patterns, or stops the answer at the first of them.

The answer, the thoughts and each tool call are texts of their own. When one of them interrupts
another, what is held back leaves first, so that events keep their order.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from shared.config.models import Model
from shared.config.stages.filter import WORD_CHARACTERS_MAX, WORDS_MAX
from shared.config.stages.spec import StageTable
from shared.errors import ConfigurationError
from shared.log.events import (
    AnyEvent,
    Extra,
    File,
    Reasoning,
    Reset,
    Token,
    ToolCall,
    Usage,
)
from workers.backends.contract import BackendItem, Finish
from workers.stages.contract import Answer, AnswerStage, Items, Services
from workers.stages.filter.extras import without_text
from workers.stages.filter.finder_cache import Finder, FinderCache
from workers.stages.filter.matcher import Matcher
from workers.stages.filter.patterns import Patterns
from workers.stages.filter.symbols import SEPARATOR, symbols_of
from workers.stages.filter.words import Words

WORDS_FILE_BYTES_MAX = 4_194_304
DEFAULT_FILTER_CHANNELS = ["answer", "reasoning"]  # the default
_CONTENT = Token | Reasoning | ToolCall | File
Channel = tuple[str, str, int]  # a member of `channels`, the agent, the index of a tool call


class Filter:
    """The filter of one model."""

    def __init__(self, table: StageTable) -> None:
        options = table.options
        self.mask = options.get("mask", "*")
        self.stops = options.get("action", "mask") == "stop"
        self.channels = frozenset(options.get("channels", DEFAULT_FILTER_CHANNELS))
        self.finders: list[Finder] = []
        if words := _words(table, self.mask):
            is_whole = options.get("whole_words", False)
            self.finders.append(Words(words, is_whole=is_whole))
        if patterns := options.get("patterns"):
            where = f"{table.where}.patterns"
            max_match = options.get("max_match", 256)
            self.finders.append(Patterns(patterns, where, max_match=max_match, mask=self.mask))
        self._known = [FinderCache(finder) for finder in self.finders]

    def open(self, answer: Answer) -> AnswerFilter:
        """Return the filter of one attempt."""
        return AnswerFilter(self)

    def matchers(self) -> list[Matcher]:
        """Return the state of a new text."""
        return [
            Matcher(finder, self.mask, stops=self.stops, known=known)
            for finder, known in zip(self.finders, self._known, strict=True)
        ]

    def hits(self, text: str) -> bool:
        """Whether a whole text has a match."""
        return any(finder.find(text, 0, True) is not None for finder in self.finders)


class AnswerFilter(AnswerStage):
    """The filter of one attempt at an answer."""

    def __init__(self, filter_: Filter) -> None:
        self._filter = filter_
        self._texts: dict[Channel, list[Matcher]] = {}
        self._open: Channel | None  # the text to which the last piece belonged
        self._agent = ""
        self._forget()

    def _forget(self) -> None:
        self._texts.clear()
        self._begin(None)

    def _begin(self, channel: Channel | None) -> None:
        """Note the text that is open now."""
        self._open = channel
        self._usual: Matcher | None = None  # of the answer, if one finder does all
        if channel is not None and channel[0] == "answer":
            matchers = self._matchers(channel)
            self._agent = channel[1]
            self._usual = matchers[0] if len(matchers) == 1 else None

    def fold(self, event: AnyEvent) -> None:
        """See `AnswerStage.fold`."""
        if isinstance(event, Reset):
            self._forget()
            return
        channel, text = self._place_of(event)
        if channel is not None and text:
            self._begin(channel)
            for matcher in self._matchers(channel):
                matcher.fold(text)

    def feed(self, items: Items) -> Items:
        """See `AnswerStage.feed`."""
        usual = self._usual
        if usual is None or len(items) != 1:
            return self._feed(items)
        item = items[0]
        if type(item) is not Token or item.extra is not None or item.agent != self._agent:
            return self._feed(items)
        # One token of the answer, and one finder: the usual case, with as few calls as possible.
        text = item.text
        rest = usual.feed(text)
        if usual.is_stopped:
            left: Items = [Token(rest, None, item.agent)] if rest else []
            return [*left, Finish("content_filter", is_cut=True)]
        if rest == text:
            return items
        return [Token(rest, None, item.agent)] if rest else []

    def _feed(self, items: Items) -> Items:
        left: Items = []
        for item in items:
            if isinstance(item, Finish | Usage):
                left.append(item)
                continue
            if isinstance(item, Reset):
                self._forget()
                left.append(item)
                continue
            channel, text = self._place_of(item)
            if channel != self._open and isinstance(item, _CONTENT):
                left += self._interrupt()
                if left and isinstance(left[-1], Finish):
                    break
                self._begin(channel)
            if channel is None:
                left += self._cleaned(item)
            elif self._pass(channel, text, item, left):
                left.append(Finish("content_filter", is_cut=True))
                break
        return left

    def flush(self) -> Items:
        """See `AnswerStage.flush`."""
        left: Items = []
        for channel, matchers in self._texts.items():
            text, is_stopped = "", False
            for matcher in matchers:
                text = (matcher.feed(text) if text else "") + matcher.flush()
                is_stopped = is_stopped or matcher.is_stopped
            if text:
                left.append(_event(channel, text))
            if is_stopped:
                return [*left, Finish("content_filter", is_cut=True)]
        self._forget()
        return left

    def _place_of(self, item: BackendItem) -> tuple[Channel | None, str]:
        """Return the text that an item continues, and its piece; None: the item is not filtered."""
        channels = self._filter.channels
        if isinstance(item, Token):
            return (("answer", item.agent, 0) if "answer" in channels else None), item.text
        if isinstance(item, Reasoning):
            return (("reasoning", item.agent, 0) if "reasoning" in channels else None), item.text
        if isinstance(item, ToolCall) and "tools" in channels:
            return ("tools", item.agent, item.index), item.arguments
        return None, ""

    def _matchers(self, channel: Channel) -> list[Matcher]:
        found = self._texts.get(channel)
        if found is None:
            found = self._texts[channel] = self._filter.matchers()
        return found

    def _pass(self, channel: Channel, text: str, item: BackendItem, left: Items) -> bool:
        """Add what may leave of a piece; return whether the answer ends here."""
        rest, is_stopped = text, False
        for matcher in self._matchers(channel):
            if is_stopped:
                rest = matcher.feed(rest) + matcher.flush()
            elif rest:
                rest = matcher.feed(rest)
            is_stopped = is_stopped or matcher.is_stopped
        if rest == text:
            left += self._cleaned(item)
        elif isinstance(item, ToolCall):
            left.append(msgspec.structs.replace(item, arguments=rest))
        else:
            assert isinstance(item, Token | Reasoning)
            extra = without_text(item.extra, self._filter.hits) if item.extra else None
            if rest:
                left.append(type(item)(rest, extra, item.agent))
            elif extra:
                left.append(Extra(extra))
        return is_stopped

    def _cleaned(self, item: BackendItem) -> Items:
        """Return an item without the members of `extra` that repeat the text."""
        if not isinstance(item, Token | Reasoning | Extra) or not item.extra:
            return [item]
        extra = without_text(item.extra, self._filter.hits)
        if isinstance(item, Extra):
            return [Extra(extra)] if extra else []
        if not item.text and not extra:
            return []
        return [msgspec.structs.replace(item, extra=extra)]

    def _interrupt(self) -> Items:
        """Return what is held back of the open text, with `Finish` if the answer ends there."""
        if self._open is None:
            return []
        text, is_stopped = "", False
        for matcher in self._matchers(self._open):
            text = (matcher.feed(text) if text else "") + matcher.interrupt()
            is_stopped = is_stopped or matcher.is_stopped
        left: Items = [_event(self._open, text)] if text else []
        return [*left, Finish("content_filter", is_cut=True)] if is_stopped else left


def _event(channel: Channel, text: str) -> AnyEvent:
    kind, agent, index = channel
    if kind == "tools":
        return ToolCall(index, arguments=text, agent=agent)
    return (Token if kind == "answer" else Reasoning)(text, agent=agent)


def build(table: StageTable, model: Model, services: Services) -> Filter:
    """Build the filter of a model: see workers/stages/kinds.py."""
    return Filter(table)


def _words(table: StageTable, mask: str) -> list[str]:
    """Return the words of the table and of its file.

    Raises:
        ConfigurationError: the file cannot be read, or a word cannot be found in any text.
    """
    words = list(table.options.get("words", []))
    places = [f"{table.where}.words[{at}]" for at in range(len(words))]
    if name := table.options.get("words_file"):
        for number, word in _lines(table.folder / name, f"{table.where}.words_file"):
            words.append(word)
            places.append(f"{table.where}.words_file: line {number}")
    if len(words) > WORDS_MAX:
        raise ConfigurationError(f"{table.where}: at most {WORDS_MAX} words")
    for at, word in enumerate(words):
        words[at] = word = word.strip()
        symbols, _ = symbols_of(word)
        if not symbols or SEPARATOR in symbols:
            raise ConfigurationError(f"{places[at]}: has no visible character")
        if len(symbols) > WORD_CHARACTERS_MAX:
            raise ConfigurationError(f"{places[at]}: at most {WORD_CHARACTERS_MAX} characters")
        if symbols_of(mask)[0] in symbols:
            raise ConfigurationError(
                f"{places[at]}: has the mask character {mask}: choose another `mask`"
            )
    return words


def _lines(path: Path, where: str) -> list[tuple[int, str]]:
    """Return the words of a file with their line numbers. A line with # in front is a comment."""
    try:
        with path.open("rb") as file:
            raw = file.read(WORDS_FILE_BYTES_MAX + 1)
        if len(raw) > WORDS_FILE_BYTES_MAX:
            raise ConfigurationError(f"{where}: {path}: at most {WORDS_FILE_BYTES_MAX} bytes")
        text = raw.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"{where}: {path}: {exc}") from exc
    lines = enumerate((line.strip() for line in text.splitlines()), 1)
    found = [(number, line) for number, line in lines if line and not line.startswith("#")]
    if not found:
        raise ConfigurationError(f"{where}: {path}: has no words")
    return found

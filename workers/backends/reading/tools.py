"""Assigns fragments of tool calls to calls, for servers that mark them differently.

OpenAI numbers the calls and sends id and name of a call once. Other servers omit the number, give
number 0 or the same id to every call, send a new id with each fragment, send the id late or never,
or send the name in pieces. The result has consecutive numbers from 0. The first event of a call has
its whole name and an id that no other call has. So a call is held back until its name is whole (its
arguments have begun, or another call begins) and its id is there. A call whose id never comes gets
one at its end. Pure.

    which call a fragment belongs to
    known id                         the call with this id
      …but another known number, or    a new call, with an id of ours
      the call is complete and its
      name or number is another
    new id, known number             the call with this number
      …but it names another tool, or   a new call
      the call is complete and the
      fragment has a name
    no id, known number              the call with this number
      …but the call is complete and    a new call
      the fragment has a name
    no id, no number                 the last call
      …but the fragment has a name     a new call
      and it or the call has arguments

A call is complete when its arguments are a JSON document. A fragment that repeats all arguments
of a complete call adds nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from shared.log.events import ToolCall
from shared.log.extra import merge
from shared.text.json_values import is_json

_ANY_CLOSE = tuple('}]"0123456789el')  # the last characters of JSON documents


@dataclass(frozen=True, slots=True)
class Fragment:
    """One fragment of a tool call, as servers send it.

    Attributes:
        index: the server's number of the call.
        extra: members of the call that this system does not interpret.
    """

    index: int | None = None
    id: str = ""
    name: str = ""
    arguments: str = ""
    extra: dict[str, Any] | None = None


class _Call:
    """One call so far."""

    __slots__ = (
        "_is_complete",
        "extra",
        "id",
        "index",
        "is_open",
        "name",
        "pieces",
        "sent",
        "size",
    )

    def __init__(self, index: int | None) -> None:
        self.index = index
        self.id = ""
        self.name = ""
        self.pieces: list[str] = []
        self.extra: dict[str, Any] = {}  # not sent yet
        self.size = 0  # characters in `pieces`
        self.sent = 0  # pieces that have left
        self.is_open = False  # the first event has left
        self._is_complete: tuple[int, bool] = (0, False)

    def add(self, arguments: str) -> None:
        self.pieces.append(arguments)
        self.size += len(arguments)

    @property
    def arguments(self) -> str:
        return "".join(self.pieces)

    @property
    def is_complete(self) -> bool:
        """Whether the arguments are a JSON document; scanned only when they may be one."""
        if not self.pieces:
            return False
        if self._is_complete[0] != len(self.pieces):
            may_be_whole = self.pieces[-1].rstrip().endswith(_ANY_CLOSE)
            self._is_complete = (len(self.pieces), may_be_whole and is_json(self.arguments))
        return self._is_complete[1]


class ToolCalls:
    """The tool calls of one answer so far.

    Args:
        seed: part of the ids that are made here.
    """

    def __init__(self, seed: str = "") -> None:
        self._seed = seed
        self._calls: list[_Call] = []
        self._by_id: dict[str, int] = {}
        self._by_index: dict[int, int] = {}  # the server's number -> ours, of its newest call

    def __len__(self) -> int:
        return len(self._calls)

    def read(self, fragment: Fragment) -> list[ToolCall]:
        """Return the events that one fragment makes possible."""
        number = self._find(fragment)
        events: list[ToolCall] = []
        if number is None:
            events += self._settle_last()
            number = self._begin(fragment.index)
        call = self._calls[number]
        if fragment.id and not call.id and fragment.id not in self._by_id:
            call.id = fragment.id
        if fragment.id:
            self._by_id.setdefault(fragment.id, number)
        if fragment.extra:
            call.extra = merge(call.extra, fragment.extra, joins_strings=False)
        self._add_name(call, fragment.name)
        if fragment.arguments and not self._is_repeated(call, fragment.arguments):
            call.add(fragment.arguments)
        return events + self._events(number)

    def read_whole(self, fragment: Fragment, position: int) -> list[ToolCall]:
        """Return the events for a call of a closing summary: only what has not arrived yet.

        Args:
            position: of the call in the summary.
        """
        number = self._by_id.get(fragment.id, position) if fragment.id else position
        if number >= len(self._calls):
            return self.read(replace(fragment, index=None, id=fragment.id or self._new_id()))
        call = self._calls[number]
        if not call.id and fragment.id:
            call.id = fragment.id
            self._by_id.setdefault(fragment.id, number)
        call.name = call.name or fragment.name
        so_far = call.arguments
        if fragment.arguments.startswith(so_far) and fragment.arguments != so_far:
            call.add(fragment.arguments[len(so_far) :])
        if fragment.extra and not call.is_open:
            call.extra = merge(call.extra, fragment.extra, joins_strings=False)
        return self._events(number)

    def finish(self) -> list[ToolCall]:
        """Return the events of the calls that were held back."""
        return [event for number in range(len(self._calls)) for event in self._open(number)]

    def _find(self, fragment: Fragment) -> int | None:
        """Return the number of the call; None: the fragment begins a call."""
        if not self._calls:
            return None
        by_index = None if fragment.index is None else self._by_index.get(fragment.index)
        by_id = self._by_id.get(fragment.id) if fragment.id else None
        if by_id is not None:
            return self._find_known_id(fragment, by_id, by_index)
        if fragment.index is not None:
            if by_index is None:
                return None
            call = self._calls[by_index]
            if fragment.name and call.is_complete:
                return None
            if fragment.id and call.id and fragment.name:
                # The same name with arguments is the same call: some servers send it, and a new id,
                # with each fragment.
                is_same = fragment.name == call.name and (fragment.arguments or call.pieces)
                return by_index if is_same else None
            return by_index
        if fragment.id:
            last = self._calls[-1]
            # Without a number, an id that comes late belongs to the last call.
            is_late = not last.id and not fragment.name
            return len(self._calls) - 1 if is_late else None
        last = self._calls[-1]
        if fragment.name and (fragment.arguments or last.pieces):
            return None
        return len(self._calls) - 1

    def _find_known_id(self, fragment: Fragment, by_id: int, by_index: int | None) -> int | None:
        call = self._calls[by_id]
        if fragment.index is not None and fragment.index != call.index:
            # The server gives one id to several calls. Then the number says which call it is.
            if by_index is not None:
                return by_index
            return None if fragment.name else by_id
        last = len(self._calls) - 1
        if by_index is not None:
            by_id = by_index
        elif fragment.index is None and self._is_shared(fragment.id):
            by_id = last
        call = self._calls[by_id]
        if fragment.name and call.is_complete and not self._is_repeated(call, fragment.arguments):
            return None
        if fragment.name and call.is_complete and fragment.name != call.name:
            return None
        return by_id

    def _is_shared(self, call_id: str) -> bool:
        """Whether a later call was begun under an id that an earlier one has."""
        return not self._calls[-1].id and call_id in self._by_id

    def _begin(self, index: int | None) -> int:
        number = len(self._calls)
        self._calls.append(_Call(index))
        if index is not None:
            self._by_index[index] = number
        return number

    def _add_name(self, call: _Call, name: str) -> None:
        """Join the pieces of a name, which come before the arguments; some servers repeat it."""
        if name and not call.is_open and not call.pieces and name != call.name:
            is_longer = call.name and name.startswith(call.name)
            call.name = name if is_longer else call.name + name

    def _is_repeated(self, call: _Call, arguments: str) -> bool:
        if not arguments:
            return call.is_complete
        is_as_long = len(arguments) == call.size  # cheap: most fragments end here
        return is_as_long and call.is_complete and arguments == call.arguments

    def _settle_last(self) -> list[ToolCall]:
        """Return the events of the last call, whose name is whole, because another call begins."""
        return self._events(len(self._calls) - 1, is_named=True) if self._calls else []

    def _events(self, number: int, *, is_named: bool = False) -> list[ToolCall]:
        call = self._calls[number]
        if call.is_open or (call.id and call.name and (call.pieces or is_named)):
            return self._open(number)
        return []

    def _open(self, number: int) -> list[ToolCall]:
        """Return the part of a call that was not yet returned; a call without an id gets an id."""
        call = self._calls[number]
        is_first = not call.is_open
        text = "".join(call.pieces[call.sent :])
        if not (is_first or text or call.extra):
            return []
        if not call.id:
            call.id = self._new_id(number)
            self._by_id[call.id] = number
        extra, call.extra = call.extra or None, {}
        call.is_open, call.sent = True, len(call.pieces)
        if is_first:
            return [ToolCall(number, call.id, call.name, text, extra)]
        return [ToolCall(number, arguments=text, extra=extra)]

    def _new_id(self, number: int | None = None) -> str:
        number = len(self._calls) if number is None else number
        made = f"call_{self._seed}_{number}" if self._seed else f"call_{number}"
        while made in self._by_id:
            made += "_"
        return made

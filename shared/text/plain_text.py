r"""Text of others, made such that a terminal only shows it.

A terminal obeys control characters: they clear the screen, set the window's title, write to the
clipboard (OSC 52), make a log line look like two. Here they become visible: `\x1b`, `\u202e`.
Invariant: what comes out holds no control character (C0, DEL, C1) but those that are named below,
and the same text when it is put in again. Pure; knows no terminal.
Source: ECMA-48 (C0 and C1); Unicode 9.0, UAX #9 (direction), 23.2 (layout controls).
"""

from __future__ import annotations

import re

_CONTROLS = "\x00-\x1f\x7f-\x9f"
_HALVES = "\ud800-\udfff"  # no text can carry half a pair: printing one is an error
# What turns the direction of the text around it, and what cannot be seen.
_DIRECTIONS = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_INVISIBLE = "\u00ad\u180e\u200b\u2028\u2029\u2060-\u2064\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"

_LINE = re.compile(f"[{_CONTROLS}{_HALVES}{_DIRECTIONS}{_INVISIBLE}]")
_TEXT = re.compile(f"(?![\t\n])[{_CONTROLS}{_HALVES}]")
# Of a line that is JSON already: JSON itself escapes C0.
_JSON = re.compile(f"[\x7f-\x9f{_HALVES}{_DIRECTIONS}{_INVISIBLE}]")


def plain_line(text: str) -> str:
    """Return `text` for a field of one line: also direction marks and invisible ones are shown."""
    return _LINE.sub(_escaped, text)


def plain_text(text: str) -> str:
    """Return `text` for a terminal, line by line: newline and tab stay, carriage returns go.

    A text with CRLF looks as it should, and a lone CR cannot write over what stands there.
    Direction marks stay: an answer in Arabic or Hebrew needs them.
    """
    return _TEXT.sub(_escaped, text.replace("\r", ""))


def plain_block(text: str) -> str:
    """Return `text` of several lines, a traceback for instance, with nothing else unseen in it."""
    return "\n".join(map(plain_line, text.split("\n")))


def plain_json(line: str) -> str:
    """Return a line of JSON in which nothing is unseen, and which is the same JSON."""
    return _JSON.sub(_escaped_in_json, line)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x1_0000 else f"\\U{code:08x}"


def _escaped_in_json(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))

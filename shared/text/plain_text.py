r"""Makes foreign text safe to show on a terminal.

A terminal obeys control characters: they clear the screen, set the title of the window, write to
the clipboard (OSC 52), or split a log line in two. The functions here replace them by visible
escapes: `\x1b`, `\u202e`. Invariant: the result holds no control character (C0, DEL, C1) except
those that a function names, and a second call changes nothing. Pure; knows no terminal.
Source: ECMA-48 (C0 and C1); Unicode 9.0, UAX #9 (direction), 23.2 (layout controls).
"""

from __future__ import annotations

import re

_CONTROLS = "\x00-\x1f\x7f-\x9f"
_HALVES = "\ud800-\udfff"  # half of a surrogate pair: printing one is an error
# Characters that change the direction of the text around them, and invisible ones.
_DIRECTIONS = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_INVISIBLE = "\u00ad\u180e\u200b\u2028\u2029\u2060-\u2064\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"

_LINE = re.compile(f"[{_CONTROLS}{_HALVES}{_DIRECTIONS}{_INVISIBLE}]")
_TEXT = re.compile(f"(?![\t\n])[{_CONTROLS}{_HALVES}]")
# In a line of JSON: the encoder has escaped C0 already.
_JSON = re.compile(f"[\x7f-\x9f{_HALVES}{_DIRECTIONS}{_INVISIBLE}]")


def plain_line(text: str) -> str:
    """Escape `text` for one line, including direction marks and invisible characters."""
    return _LINE.sub(_escaped, text)


def plain_text(text: str) -> str:
    """Escape `text` of several lines: keep newline and tab, remove carriage returns.

    Text with CRLF keeps its lines, and a lone CR cannot overwrite a line. Direction marks stay,
    because an answer in Arabic or Hebrew needs them.
    """
    return _TEXT.sub(_escaped, text.replace("\r", ""))


def plain_block(text: str) -> str:
    """Escape each line of `text`, for instance of a traceback, as `plain_line` does."""
    return "\n".join(map(plain_line, text.split("\n")))


def plain_json(line: str) -> str:
    """Escape a line of JSON, whose meaning stays the same."""
    return _JSON.sub(_escaped_in_json, line)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x1_0000 else f"\\U{code:08x}"


def _escaped_in_json(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))

"""The bytes of each token of a model, and the tokens of a text that the model has written.

llama.cpp returns tokens as text and loses the bytes of half characters, so the bytes are computed
from the names of the tokens. Pure: knows no model, only names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

KIND_SPM, KIND_BPE = 1, 2  # of llama.h, `llama_vocab_type`
# About 500 tokens, which take as long as they took when the model said them.
ALIGNED_BYTES_MAX = 2_048
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def _bpe_bytes() -> Mapping[str, int]:
    """Return the byte for each character of a name, as GPT-2's byte-level BPE writes bytes."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    shown = {chr(byte): byte for byte in printable}
    return shown | {chr(256 + number): byte for number, byte in enumerate(others)}


_BPE_BYTES = _bpe_bytes()


def token_bytes(name: str, kind: int) -> bytes:
    """Return the bytes that a token adds to the text.

    Args:
        kind: `KIND_BPE` or `KIND_SPM`.
    """
    if kind == KIND_BPE:
        try:
            return bytes(_BPE_BYTES[character] for character in name)
        except KeyError:
            return name.encode()  # an added token, which is written as it is
    if (match := _BYTE.fullmatch(name)) is not None:
        return bytes((int(match[1], 16),))
    return name.replace("\u2581", " ").encode()


class Vocabulary:
    """The tokens of one model by their bytes. Tokens for control have no bytes and are left out.

    Args:
        tokens: the id and the bytes of each token that is text.
    """

    def __init__(self, tokens: Iterable[tuple[int, bytes]]) -> None:
        self.bytes_of = dict(tokens)
        self._ids: dict[bytes, list[int]] = {}
        for number, raw in self.bytes_of.items():
            if raw:
                self._ids.setdefault(raw, []).append(number)

    def beginnings(self, rest: bytes) -> list[int]:
        """Return the tokens that are a beginning of `rest`. Some models lack some bytes."""
        return [
            number
            for length in range(1, len(rest) + 1)
            for number in self._ids.get(rest[:length], ())
        ]


def split_to_align(text: str) -> tuple[str, bytes]:
    """Split a partial answer into a beginning and the part whose tokens the model chooses again.

    A tokenizer may divide a text in another way than the model did that said it, and a model
    computes many tokens at once slightly differently than one after another. Both change what the
    model says next. So the end of the answer is computed as it was said.

    Returns:
        the text before a space, which is a border for every tokenizer, and the bytes from there:
        the whole answer, or about `ALIGNED_BYTES_MAX`.
    """
    raw = text.encode()
    if len(raw) <= ALIGNED_BYTES_MAX:
        return "", raw
    at = raw.rfind(b" ", 0, len(raw) - ALIGNED_BYTES_MAX + 1)
    if at < len(raw) - 2 * ALIGNED_BYTES_MAX:  # a script without spaces
        return text, b""
    return raw[:at].decode(), raw[at:]

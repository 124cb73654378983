"""The check of an input. Each kind of malformed line: tests/conformance/test_batches.py."""

from __future__ import annotations

import json

import pytest

from jobs.batch.check import COMPLAINTS_MAX, CUSTOM_ID_CHARACTERS_MAX, InputCheck
from jobs.batch.splitter import InputLine, LineSplitter
from shared.batches.record import LINES_MAX

CHAT = "/v1/chat/completions"


def input_line(number: int, custom_id: object, **members: object) -> InputLine:
    said = {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": {}, **members}
    raw = json.dumps(said).encode()
    return InputLine(number, 0, len(raw), raw)


@pytest.fixture
def check() -> InputCheck:
    return InputCheck(CHAT, bytes_max=1_000)


def codes(check: InputCheck) -> list[tuple[str, int | None]]:
    return [(complaint.code, complaint.line) for complaint in check.complaints]


def test_well_formed_lines_are_counted(check: InputCheck) -> None:
    for number in range(1, 4):
        check.add(input_line(number, f"c{number}", further="members"))
    check.close()

    assert (check.total, check.complaints) == (3, [])


TWO_LINES = ['{"custom_id": "a", "method": "POST", "url": "/v1/x", "body": {}}'] * 2


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        ("\n".join(TWO_LINES).encode("utf-16"), "UTF-16"),
        ("\n".join(TWO_LINES).encode("utf-16-le"), "UTF-16"),
        ("\n".join(TWO_LINES).encode("utf-16-be"), "UTF-16"),
        (b"\xfe\xff" + "\n".join(TWO_LINES).encode("utf-16-be"), "UTF-16"),
        ("\n".join(TWO_LINES).encode("utf-32"), "UTF-32"),
        ("\r".join(TWO_LINES).encode(), "CR alone"),
        (b"\xef\xbb\xbf" + "\r".join(TWO_LINES).encode(), "CR alone"),
        (" \r\r".join(TWO_LINES).encode() + b"\r", "CR alone"),
    ],
)
def test_a_file_of_another_text_form_has_one_complaint(content: bytes, hint: str) -> None:
    check = InputCheck(CHAT, bytes_max=1_000)
    splitter = LineSplitter(bytes_max=1_000)
    for line in [*splitter.feed(content), *splitter.close()]:
        if not check.is_over:
            check.add(line)
    check.close()

    assert codes(check) == [("invalid_encoding", None)]
    assert hint in check.complaints[0].message


def test_a_line_without_bytes_is_too_large(check: InputCheck) -> None:
    check.add(InputLine(1, 0, 5_000, None))

    assert codes(check) == [("line_too_large", 1)]


def test_fifty_thousand_lines_are_enough_and_one_more_is_too_many(check: InputCheck) -> None:
    for number in range(1, LINES_MAX + 1):
        check.add(input_line(number, f"c{number}"))
    assert check.complaints == [] and not check.is_over

    check.add(input_line(LINES_MAX + 1, "last"))

    assert codes(check) == [("too_many_lines", LINES_MAX + 1)]
    assert check.is_over


def test_many_complaints_end_the_check(check: InputCheck) -> None:
    for number in range(1, COMPLAINTS_MAX + 1):
        assert not check.is_over
        check.add(InputLine(number, 0, 1, b"{"))

    assert check.is_over


def test_an_empty_input_is_a_complaint(check: InputCheck) -> None:
    check.close()

    assert codes(check) == [("empty_file", None)]


@pytest.mark.parametrize(
    ("characters", "is_good"),
    [(1, True), (CUSTOM_ID_CHARACTERS_MAX, True), (CUSTOM_ID_CHARACTERS_MAX + 1, False)],
)
def test_the_length_of_ids_is_bounded(check: InputCheck, characters: int, is_good: bool) -> None:
    check.add(input_line(1, "ü" * characters))

    assert (codes(check) == []) == is_good


def test_half_a_surrogate_pair_in_an_id_is_a_complaint(check: InputCheck) -> None:
    raw = b'{"custom_id":"\\ud800","method":"POST","url":"/v1/chat/completions","body":{}}'
    check.add(InputLine(1, 0, len(raw), raw))

    assert codes(check) == [("invalid_json_line", 1)]


def test_a_deeply_nested_line_is_a_complaint(check: InputCheck) -> None:
    raw = b"[" * 100_000
    check.add(InputLine(1, 0, len(raw), raw))

    assert codes(check) == [("invalid_json_line", 1)]


def test_half_a_surrogate_pair_outside_the_id_is_no_complaint(check: InputCheck) -> None:
    raw = rb'{"custom_id":"c1","method":"POST","url":"/v1/chat/completions","body":{"a":"\ud800"}}'
    check.add(InputLine(1, 0, len(raw), raw))

    assert (check.total, check.complaints) == (1, [])

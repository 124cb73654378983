"""Attached files in requests: which parts are files, and what the model gets in their places."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shared.config.models import Model
from shared.config.settings import Settings
from shared.config.stages import parse_stages
from shared.errors import ConfigurationError
from shared.log.request import Request
from workers.stages.contract import Services
from workers.stages.documents.parts import (
    Attached,
    find_files,
    kind_of,
    plain_name,
    shown_text,
    with_texts,
)
from workers.stages.documents.stage import build

PDF_URL = "data:application/pdf;base64,AAAA"
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,BBBB"}}


def request_of(*parts: Any) -> Request:
    return Request(
        messages=[{"role": "system", "content": "x"}, {"role": "user", "content": [*parts]}]
    )


def file(**members: Any) -> dict[str, Any]:
    return {"type": "file", "file": members}


@pytest.mark.parametrize(
    ("part", "found"),
    [
        (file(filename="a.pdf", file_data=PDF_URL), ("a.pdf", "pdf", "AAAA", "")),
        (file(file_data=PDF_URL.upper()), ("file", "pdf", "AAAA", "")),
        (file(filename="a.PDF", file_data="AAAA"), ("a.PDF", "pdf", "AAAA", "")),
        (
            file(filename="a.md", file_data="data:text/plain;charset=utf-8;base64,CC"),
            ("a.md", "text", "CC", ""),
        ),
        (file(file_id="file-0123456789"), ("file", "", "", "file-0123456789")),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_file_is_found(part: dict[str, Any], found: tuple[str, str, str, str]) -> None:
    (attached,) = find_files(request_of(part), with_pictures=False)

    assert attached == Attached(1, 0, *found)


@pytest.mark.parametrize(
    "part",
    [
        PICTURE,
        {"type": "text", "text": PDF_URL},
        file(),
        file(file_data=7),
        file(file_data="https://example.org/a.pdf", filename="a.pdf"),
        file(file_data="data:application/pdf,plain", filename="a.pdf"),
        file(file_data="data:application/zip;base64,AAAA", filename="a.zip"),
        file(file_id="file_of_another_vendor"),
        {"type": "file", "file": "AAAA"},
        {"type": "file"},
    ],
    ids=lambda value: str(value)[:70],
)
def test_other_parts_stay(part: dict[str, Any]) -> None:
    assert find_files(request_of(part), with_pictures=False) == []


def test_pictures_are_files_only_if_the_stage_reads_them() -> None:
    (attached,) = find_files(request_of(PICTURE), with_pictures=True)

    assert attached == Attached(1, 0, "picture", "picture", "BBBB")


def test_the_texts_stand_in_the_places_of_the_files_and_the_request_does_not_change() -> None:
    request = request_of({"type": "text", "text": "x"}, file(filename="a.pdf", file_data=PDF_URL))
    before = repr(request)
    changed = with_texts(request, [(find_files(request, with_pictures=False)[0], "TEXT")])

    assert changed.messages[1]["content"][1] == {"type": "text", "text": "TEXT"}
    assert repr(request) == before


@pytest.mark.parametrize(
    ("name", "shown"),
    [("a]\n[page 2.pdf", "apage 2.pdf"), (None, "file"), ("", "file"), ("x" * 500, "x" * 120)],
    ids=["marks", "none", "empty", "long"],
)
def test_a_name_cannot_forge_a_mark(name: str | None, shown: str) -> None:
    assert plain_name(name) == shown


def test_pages_have_marks_and_their_number() -> None:
    assert shown_text("a.pdf", ["x"], is_paged=True) == (
        "[file: a.pdf, 1 page]\n[page 1]\nx\n[end of file: a.pdf]"
    )


def test_the_kind_follows_from_the_media_type_and_then_from_the_name() -> None:
    assert kind_of("application/pdf", "a.txt") == "pdf"
    assert kind_of("application/octet-stream", "a.pdf") == "pdf"
    assert kind_of("", "a.csv") == "text"
    assert kind_of("", "a") == kind_of("application/zip", "a.pdf") == ""


def test_a_language_that_tesseract_lacks_stops_the_worker(tmp_path: Path, monkeypatch) -> None:
    tesseract = tmp_path / "tesseract"
    tesseract.write_text('#!/bin/sh\necho "List of languages (2):"; echo eng; echo osd\n')
    tesseract.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    services = Services(Settings(redis_url="redis://test"), None)  # type: ignore[arg-type]

    def built(ocr: str) -> Any:
        (table,) = parse_stages([{"stage": "documents", "ocr": ocr}], "models.m.stages", Path())
        return build(table, Model(name="m"), services)

    assert built("eng").bounds.ocr == "eng"
    with pytest.raises(ConfigurationError, match="no language deu, fra"):
        built("deu+eng+fra")


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"pages_max": 0}, "pages_max"),
        ({"ocr": "eng; rm"}, "tesseract"),
        ({"ocr": "eng"}, "not on PATH"),
        ({"pictures": True}, "needs ocr"),
        ({"page_max": 3}, "unknown member"),
    ],
    ids=str,
)
def test_a_wrong_member_stops_the_worker(members: dict[str, Any], said: str, monkeypatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    settings = Settings(redis_url="redis://test")
    with pytest.raises(ConfigurationError, match=said):
        (table,) = parse_stages([{"stage": "documents", **members}], "models.m.stages", Path())
        build(table, Model(name="m"), Services(settings, None))  # type: ignore[arg-type]

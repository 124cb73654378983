"""The stage `documents` in real workers: attached files become text before the model is asked."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterable
from pathlib import Path
from typing import Any

import pytest

from shared.erasure.owner import OwnerEraser
from shared.errors import BackendError
from shared.files.store import FileStore
from shared.log.events import Progress
from shared.log.request import Request, encode_request
from tests.support.backend_scripts import says
from tests.support.pdf import JPEG, encrypted_pdf, file_part, pdf, scanned_pdf
from tests.support.worker_harness import WorkerHarness
from workers.stages.documents import reading

ASK = {"type": "text", "text": "What does it say?"}
STAGE = {"stage": "documents"}


def request_with(*parts: dict[str, Any]) -> bytes:
    return encode_request(Request(messages=[{"role": "user", "content": [ASK, *parts]}]))


async def answer(
    harness: WorkerHarness, *parts: dict[str, Any]
) -> tuple[list[dict[str, Any]], list[Progress], Any]:
    """Ask with attached parts; return the parts that the model got, the progress, and the end."""
    asked = len(harness.backend.requests)
    generation_id = await harness.ask(request=request_with(*parts))
    await harness.ended(generation_id)
    events = await harness.events(generation_id)
    given = harness.backend.requests[asked:]
    content = given[-1].messages[0]["content"] if given else []
    return content, [event for event in events if isinstance(event, Progress)], events[-1]


@pytest.fixture
async def harness(url: str, tmp_path: Path) -> AsyncIterable[WorkerHarness]:
    stages = [STAGE | {"pages_max": 5, "files_max": 4}]
    async with WorkerHarness(url, says("Fine."), stages=stages, data_dir=str(tmp_path)) as found:
        await found.start()
        yield found


async def test_the_model_gets_the_pages_of_a_pdf_and_readers_their_progress(harness) -> None:
    content, progress, end = await answer(harness, file_part(pdf("One", "Two", "Three")))

    assert content == [
        ASK,
        {
            "type": "text",
            "text": "[file: a.pdf, 3 pages]\n[page 1]\nOne\n[page 2]\nTwo\n[page 3]\nThree\n"
            "[end of file: a.pdf]",
        },
    ]
    last = progress[-1]
    assert (last.stage, last.current, last.total, last.percentage) == ("pdf_parsing", 3, 3, 100)
    assert end.status == "completed"


async def test_the_text_of_a_file_is_kept_and_forgotten_with_its_owner(
    harness, monkeypatch
) -> None:
    part = file_part(pdf("Kept"))
    first, *_ = await answer(harness, part)
    monkeypatch.setattr(reading, "PROGRAM", Path("/nonexistent"))
    again, progress, _ = await answer(harness, part)
    redis, settings = harness.redis, harness.settings
    kept = [key async for key in redis.scan_iter("tr:{docs:*")]
    eraser = OwnerEraser(redis, harness.store, FileStore(redis, settings), settings)
    step = await eraser.step("alice", "")
    while step.next:
        step = await eraser.step("alice", step.next)

    assert again == first
    assert [(each.current, each.total) for each in progress] == [(1, 1)]
    assert kept
    assert [key async for key in redis.scan_iter("tr:{docs:*")] == []


async def test_a_file_of_the_files_api_is_read_for_its_owner_only(harness) -> None:
    files = FileStore(harness.redis, harness.settings)

    async def chunks() -> AsyncIterable[bytes]:
        yield pdf("From the store")

    own, foreign = [
        await files.create(owner, "b.pdf", "user_data", chunks(), bytes_max=10_000)
        for owner in ("alice", "mallory")
    ]
    content, _, _ = await answer(harness, {"type": "file", "file": {"file_id": own.id}})
    _, _, end = await answer(harness, {"type": "file", "file": {"file_id": foreign.id}})

    assert "[file: b.pdf, 1 page]\n[page 1]\nFrom the store" in content[1]["text"]
    assert end.error.code == "document_invalid"
    assert foreign.id in end.error.message


async def test_a_text_file_is_given_without_pages_and_other_files_stay(harness) -> None:
    audio = {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}
    word = file_part(b"PK", "x.docx", "application/vnd.ms-word")
    content, _, _ = await answer(
        harness, file_part("a;ü".encode(), "t.csv", "text/csv"), audio, word
    )

    assert content[1]["text"] == "[file: t.csv]\na;ü\n[end of file: t.csv]"
    assert content[2:] == [audio, word]


BAD = {
    "encrypted": (encrypted_pdf("x"), "document_invalid", "encrypted"),
    "no pdf": (b"<html>", "document_invalid", "no PDF"),
    "cut": (pdf("x", "y")[:120], "document_invalid", "cannot be read"),
    "too many pages": (pdf(*"abcdef"), "document_too_large", "6 pages"),
    "pictures only": (scanned_pdf(), "document_invalid", "OCR"),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_pdf_that_cannot_be_read_ends_the_answer_with_a_clear_error(harness, name) -> None:
    raw, code, said = BAD[name]
    lists = harness.backend.lists
    _, _, end = await answer(harness, file_part(raw, "bad.pdf"))

    assert (end.status, end.error.code, end.error.retryable) == ("failed", code, False)
    assert end.error.message.startswith("bad.pdf: ") and said in end.error.message
    assert harness.backend.lists == lists, "the model was not asked"


async def test_too_many_files_are_refused(harness) -> None:
    _, _, end = await answer(harness, *[file_part(pdf("x"))] * 5)

    assert (end.error.code, "at most 4 files" in end.error.message) == ("document_too_large", True)


@pytest.mark.parametrize(
    ("bound", "said"),
    [
        ({"file_bytes_max": 100}, "larger"),
        ({"text_max": 3}, "more text"),
        ({"read_s": 0.001}, "longer"),
    ],
    ids=lambda value: str(value),
)
async def test_the_error_names_the_limit_that_was_passed(bound, said) -> None:
    bounds = reading.Bounds(**bound)
    with pytest.raises(BackendError, match=said) as error:
        [page async for page in reading.read_file("a.pdf", "pdf", pdf("Some text"), bounds)]

    assert error.value.code == "document_too_large"


async def test_a_file_that_needs_too_much_memory_is_an_error() -> None:
    bounds = reading.Bounds(memory_mb=64)
    with pytest.raises(BackendError, match="memory") as error:
        [page async for page in reading.read_file("a.txt", "text", b"x" * 40_000_000, bounds)]

    assert error.value.code == "document_too_large"


async def test_a_cancel_ends_the_program_that_reads(tmp_path, monkeypatch) -> None:
    """A program that never ends, as a parser on a hostile file."""
    pid_file = tmp_path / "pid"
    program = tmp_path / "program.py"
    program.write_text(
        f"import os, time\nopen({str(pid_file)!r}, 'w').write(str(os.getpid()) + '\\n')\n"
        'print(\'{"total": 2}\\n{"text": "a"}\', flush=True)\ntime.sleep(600)\n'
    )
    monkeypatch.setattr(reading, "PROGRAM", program)
    pages = reading.read_file("a.pdf", "pdf", b"x", reading.Bounds())
    first = await anext(pages)
    pid = int(pid_file.read_text())
    await pages.aclose()

    assert first.text == "a"
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_program_that_crashes_is_an_error_and_not_an_answer(tmp_path, monkeypatch) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        'import os\nprint(\'{"total": 2}\\n{"text": "a"}\', flush=True)\nos.abort()\n'
    )
    monkeypatch.setattr(reading, "PROGRAM", program)

    with pytest.raises(BackendError, match="crashed"):
        [page async for page in reading.read_file("a.pdf", "pdf", b"x", reading.Bounds())]


async def test_the_program_gets_no_variables_of_the_worker(tmp_path, monkeypatch) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import json, os\nprint(json.dumps({'total': 1}))\n"
        "print(json.dumps({'text': ' '.join(sorted(os.environ))}))\n"
    )
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setattr(reading, "PROGRAM", program)
    pages = [page async for page in reading.read_file("a", "pdf", b"x", reading.Bounds())]

    assert "OPENAI_API_KEY" not in pages[0].text


async def test_pictures_and_scanned_pages_are_read_with_ocr(tmp_path, monkeypatch) -> None:
    tesseract = tmp_path / "tesseract"
    tesseract.write_text('#!/bin/sh\necho "languages $4, bytes $(wc -c)"\n')
    tesseract.chmod(tesseract.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    bounds = reading.Bounds(ocr="eng+deu")
    files = (("pdf", scanned_pdf()), ("picture", b"12345"))
    found = [
        page.text for kind, raw in files async for page in reading.read_file("a", kind, raw, bounds)
    ]

    assert found == [f"languages eng+deu, bytes {len(JPEG)}", "languages eng+deu, bytes 5"]


async def test_a_page_of_a_fax_is_given_to_ocr_as_a_picture_file(tmp_path, monkeypatch) -> None:
    tesseract = tmp_path / "tesseract"
    tesseract.write_text("#!/bin/sh\nhead -c 2\n")
    tesseract.chmod(tesseract.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    fax = scanned_pdf(b"/CCITTFaxDecode /DecodeParms << /K -1 /Columns 8 /Rows 1 >>")
    bounds = reading.Bounds(ocr="eng")
    pages = [page.text async for page in reading.read_file("a", "pdf", fax, bounds)]

    assert pages == ["II"]  # the beginning of a TIFF file


async def test_the_worker_goes_on_while_a_file_is_read(harness, tmp_path, monkeypatch) -> None:
    program, go_on = tmp_path / "program.py", tmp_path / "go-on"
    program.write_text(
        "import os, time\nprint('{\"total\": 1}', flush=True)\n"
        f"while not os.path.exists({str(go_on)!r}): time.sleep(0.01)\n"
        'print(\'{"text": "late"}\')\n'
    )
    monkeypatch.setattr(reading, "PROGRAM", program)
    slow = asyncio.create_task(answer(harness, file_part(pdf("A slow one"))))
    other = await harness.ask()
    await harness.ended(other)
    assert not slow.done()
    go_on.touch()
    await slow
    with_files = [each for each in harness.backend.requests if each.messages]

    assert "late" in with_files[-1].messages[0]["content"][1]["text"]

"""PDFs by hand, for tests: pages of text, scanned pages, and files that are damaged in some way."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

from pypdf import PdfReader, PdfWriter

JPEG = b"\xff\xd8\xff\xe0 a picture \xff\xd9"  # no reader of the tests decodes it


def pdf(*texts: str) -> bytes:
    """Return a PDF with one page for each text of one line."""
    streams = [f"BT /F1 12 Tf 20 100 Td ({text}) Tj ET".encode("latin-1") for text in texts]
    return _file([(b"/Font << /F1 3 0 R >>", stream) for stream in streams])


def scanned_pdf(filter_: bytes = b"/DCTDecode") -> bytes:
    """Return a PDF of one page that is a picture."""
    page = b"/XObject << /P 3 0 R >>", b"q 100 0 0 100 0 0 cm /P Do Q"
    return _file([page], has_picture=True).replace(b"/DCTDecode", filter_)


def encrypted_pdf(*texts: str, password: str = "secret") -> bytes:
    writer = PdfWriter(PdfReader(io.BytesIO(pdf(*texts))))
    writer.encrypt(password, algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def data_url(raw: bytes, media_type: str = "application/pdf") -> str:
    return f"data:{media_type};base64,{base64.b64encode(raw).decode()}"


def file_part(raw: bytes, name: str = "a.pdf", media_type: str = "application/pdf") -> dict:
    return {"type": "file", "file": {"filename": name, "file_data": data_url(raw, media_type)}}


def _file(pages: Sequence[tuple[bytes, bytes]], *, has_picture: bool = False) -> bytes:
    third = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"
    if has_picture:
        third = (
            b"<< /Type /XObject /Subtype /Image /Width 1 /Height 1 /ColorSpace /DeviceGray "
            b"/BitsPerComponent 8 /Filter /DCTDecode /Length %d >>\nstream\n%b\nendstream"
            % (len(JPEG), JPEG)
        )
    kids = b" ".join(b"%d 0 R" % (4 + 2 * at) for at in range(len(pages)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [%b] /Count %d >>" % (kids, len(pages)),
        third,
    ]
    for at, (resources, stream) in enumerate(pages):
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 300 200] /Resources << %b >> "
            b"/Contents %d 0 R >>" % (resources, 5 + 2 * at)
        )
        objects.append(b"<< /Length %d >>\nstream\n%b\nendstream" % (len(stream), stream))
    out, offsets = bytearray(b"%PDF-1.4\n"), []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%b\nendobj\n" % (number, body)
    xref = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    out += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (
        len(objects) + 1, xref,
    )  # fmt: skip
    return bytes(out)

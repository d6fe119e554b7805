"""Read a `multipart/form-data` body (RFC 7578) in memory.

A framework's own reader writes large parts to temporary files, where photos must never be.
"""

from dataclasses import dataclass
from email.message import Message
from email.parser import BytesHeaderParser
from email.policy import HTTP

from starlette.datastructures import Headers

from .middleware import media_type
from .problems import Problem

MEDIA_TYPE = "multipart/form-data"
_MAX_PARTS = 1100
_MAX_HEADER_BYTES = 8192


@dataclass(frozen=True)
class Part:
    """A part of a form; `file_name` is None for a field that is no file."""

    name: str
    file_name: str | None
    data: bytes

    def text(self) -> str:
        """Return the part as text; raise Problem 400 if it is not UTF-8."""
        try:
            return self.data.decode()
        except UnicodeDecodeError as error:
            raise _unreadable("a field of the form is not UTF-8") from error


def parse_form(headers: Headers, body: bytes) -> list[Part]:
    """Return the parts of a form in their order; raise Problem 415 or 400."""
    if media_type(headers) != MEDIA_TYPE:
        raise Problem(415, "media-type-unsupported", f"send the body as {MEDIA_TYPE}")
    content_type = Message()
    content_type["content-type"] = headers["content-type"]
    boundary = content_type.get_boundary()
    if not boundary:
        raise _unreadable("the Content-Type of the form names no boundary")
    # A delimiter begins a line; the first may begin the body.
    sections = (b"\r\n" + body).split(b"\r\n--" + boundary.encode())
    if len(sections) < 2 or not sections[-1].startswith(b"--"):
        raise _unreadable("the form breaks off before its last boundary")
    if len(sections) > _MAX_PARTS:
        raise _unreadable(f"a form has at most {_MAX_PARTS} parts")
    return [_parse_part(section) for section in sections[1:-1]]


def _parse_part(section: bytes) -> Part:
    # Blanks may follow a boundary.
    head, found, data = section.lstrip(b" \t").removeprefix(b"\r\n").partition(b"\r\n\r\n")
    if not found or len(head) > _MAX_HEADER_BYTES:
        raise _unreadable("a part of the form has no readable headers")
    disposition = BytesHeaderParser(policy=HTTP.clone(utf8=True)).parsebytes(head)["content-disposition"]
    name = disposition.params.get("name") if disposition else None
    if not name:
        raise _unreadable("a part of the form has no name")
    return Part(name, disposition.params.get("filename"), data)


def _unreadable(detail: str) -> Problem:
    return Problem(400, "request-unreadable", detail)

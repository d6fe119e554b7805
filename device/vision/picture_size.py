"""Read the size of a JPEG, PNG or WebP from its header.

A decompression bomb is rejected so before decoding.
"""

import struct
from dataclasses import dataclass

from broker_bridge.common.pictures.picture_format import picture_format

# Frame headers SOF0..SOF15 without the tables DHT (C4), JPG (C8) and DAC (CC) that lie among them.
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Markers that stand alone: TEM, RST0..RST7, SOI.
_BARE = frozenset({0x01, *range(0xD0, 0xD9)})
_END = b"\xff\xd9"
# Flags of a WebP's extended header, and the bit of a lossless one that announces alpha.
_ANIMATED, _ALPHA = 0x02, 0x10
_LOSSLESS_ALPHA = 1 << 28
# Colour types of PNG with alpha.
_PNG_ALPHA = frozenset({4, 6})


@dataclass(frozen=True)
class PictureHeader:
    """The size in pixels, and whether the picture moves or has transparency."""

    width: int
    height: int
    animated: bool = False
    has_alpha: bool = False


def picture_header(data: bytes) -> PictureHeader | None:
    """Return the header of a JPEG, PNG or WebP, or None without a readable one.

    Standards: ITU T.81, ISO 15948 and RFC 9649.
    """
    match picture_format(data):
        case "JPEG":
            return _jpeg_header(data)
        case "PNG" if data[12:16] == b"IHDR" and len(data) >= 33:
            # The transparency of a palette comes before the first data.
            has_alpha = data[25] in _PNG_ALPHA or 0 <= data.find(b"tRNS") < data.find(b"IDAT")
            width, height = struct.unpack(">II", data[16:24])
            return PictureHeader(width, height, has_alpha=has_alpha)
        case "WebP" if len(data) >= 30:
            return _webp_header(data)
    return None


def is_complete(data: bytes) -> bool:
    """Return whether a picture with a header reaches its end.

    Decoders fill what is missing with grey, without an error. Cameras append data after the end.
    """
    match picture_format(data):
        case "JPEG":
            # A thumbnail within the headers has an end of its own.
            return data.find(_END, _segments_end(data)[0]) >= 0
        case "PNG":
            return b"IEND" in data
        case _:
            return len(data) >= 8 + int.from_bytes(data[4:8], "little")


def _jpeg_header(data: bytes) -> PictureHeader | None:
    return _segments_end(data)[1]


def _segments_end(data: bytes) -> tuple[int, PictureHeader | None]:
    """Return where the first scan of a JPEG begins, and what its frame header says."""
    at = 2
    header = None
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker in _BARE:
            at += 2
            continue
        if marker in _FRAME_HEADERS:
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            header = PictureHeader(width, height)
        elif marker == 0xDA:
            break
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return at, header


def _webp_header(data: bytes) -> PictureHeader | None:
    kind, body = data[12:16], data[20:30]
    if kind == b"VP8X":
        width, height = (int.from_bytes(body[at : at + 3], "little") + 1 for at in (4, 7))
        return PictureHeader(width, height, bool(body[0] & _ANIMATED), bool(body[0] & _ALPHA))
    if kind == b"VP8L":
        packed = int.from_bytes(body[1:5], "little")
        has_alpha = bool(packed & _LOSSLESS_ALPHA)
        return PictureHeader((packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1, has_alpha=has_alpha)
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", body[6:10])
        return PictureHeader(width & 0x3FFF, height & 0x3FFF)
    return None

"""Tell the format of a picture by its first bytes, never by its name."""

from typing import Final

JPEG: Final = "JPEG"
PNG: Final = "PNG"
WEBP: Final = "WebP"
HEIC: Final = "HEIC"

PHOTO_FORMATS: Final = {JPEG: "image/jpeg", PNG: "image/png", WEBP: "image/webp"}
"""The formats of photos, with their media types."""
_ENDINGS = "jpg jpeg jpe jfif pjpeg png webp heic heif avif gif bmp tif tiff jxl jp2"
PICTURE_SUFFIXES: Final = frozenset("." + ending for ending in _ENDINGS.split())
"""Endings of names that are no part of an id; what a file is, its first bytes tell."""
HEAD_BYTES: Final = 32
"""How many bytes are enough for `picture_format`."""

_MAGIC = (
    (b"\xff\xd8\xff", JPEG),
    (b"\x89PNG\r\n\x1a\n", PNG),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"%PDF", "PDF"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
)
# Brands of ISO base media files (ISO 14496-12) that are pictures.
_BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), HEIC),
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
}


def picture_format(data: bytes) -> str | None:
    """Return the name of the format of a picture, or None for anything else."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return WEBP
    if data[4:8] == b"ftyp":
        return _BRANDS.get(data[8:12])
    return next((name for magic, name in _MAGIC if data.startswith(magic)), None)


def why_no_photo(data: bytes) -> str | None:
    """Return a sentence for people if `data` has no format of photos."""
    found = picture_format(data)
    if found in PHOTO_FORMATS:
        return None
    if not data:
        return "the file is empty"
    if found == HEIC:
        return "this is a HEIC picture, as phones store it: export it as JPEG"
    if found is None:
        return "this is no picture: a photo is a JPEG, PNG or WebP file"
    return f"this is a {found} file: a photo is a JPEG, PNG or WebP file"

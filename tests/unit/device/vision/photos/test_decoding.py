"""Photos are judged by their content and come out upright, in 8 bits, on white."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

from device.vision.photos.decoding import decode_photo
from device.vision.photos.errors import PHOTO_INVALID, PhotoError
from device.vision.picture_size import picture_header

FACE = Image.fromarray(astronaut()[:240, 120:320])
"""200 x 240 pixels, so that a turned picture has another shape."""
PIXELS = np.asarray(FACE)[..., ::-1].astype(int)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def grey16() -> Image.Image:
    return Image.fromarray(np.asarray(FACE.convert("L")).astype(np.uint16) * 257)


def transparent(hidden: int) -> Image.Image:
    """Return the face with a transparent upper half, whose hidden pixels are grey."""
    pixels = np.asarray(FACE.convert("RGBA")).copy()
    pixels[:120] = (hidden, hidden, hidden, 0)
    return Image.fromarray(pixels)


MODES = {
    "jpeg": encode(FACE, "JPEG", quality=95),
    "progressive": encode(FACE, "JPEG", quality=95, progressive=True),
    "grey": encode(FACE.convert("L"), "JPEG", quality=95),
    "cmyk": encode(FACE.convert("CMYK"), "JPEG", quality=95),
    "with-profile": encode(FACE, "JPEG", quality=95, icc_profile=600 * b"p"),
    "trailing-data": encode(FACE, "JPEG", quality=95) + b"a film of a phone",
    "png": encode(FACE, "PNG"),
    "palette": encode(FACE.quantize(256), "PNG"),
    "16-bit": encode(grey16(), "PNG"),
    "grey-alpha": encode(FACE.convert("LA"), "PNG"),
    "webp": encode(FACE, "WEBP", quality=95),
    "lossless": encode(FACE, "WEBP", lossless=True),
}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_shows_the_same_face(mode: str) -> None:
    """The header has the size, and pixels differ by no more than the mode loses."""
    header = picture_header(MODES[mode])
    assert header
    assert (header.width, header.height) == (200, 240)
    image = decode_photo(MODES[mode])
    assert (image.shape, image.dtype) == ((240, 200, 3), np.uint8)
    luma = np.array([0.114, 0.587, 0.299])
    assert np.abs(image @ luma - PIXELS @ luma).mean() < 6


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
@pytest.mark.parametrize("hidden", [0, 128])
def test_what_is_transparent_becomes_white(kind: str, hidden: int) -> None:
    """The hidden pixels of a cut-out portrait are often black."""
    image = decode_photo(encode(transparent(hidden), kind))
    assert image[:118].min() > 250
    assert np.abs(image[122:] - PIXELS[122:]).mean() < 6


def test_a_transparent_colour_of_a_palette_becomes_white() -> None:
    """A palette has its transparency in a block of its own."""
    drawing = Image.fromarray(np.tile(np.uint8([0, 1]), (8, 4)), "P")
    drawing.putpalette([0, 0, 0, 200, 0, 0])
    image = decode_photo(encode(drawing, "PNG", transparency=0))
    assert image[0, :2].tolist() == [[255, 255, 255], [0, 0, 200]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_upright(orientation: int) -> None:
    """EXIF's eight orientations, with a thumbnail inside the header."""
    back = [None, 0, 3, 1, 5, 2, 6, 4][orientation - 1]
    stored = FACE if back is None else FACE.transpose(Image.Transpose(back))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode_photo(encode(stored, "JPEG", quality=95, exif=exif))
    assert image.shape == (240, 200, 3)
    assert np.abs(image - PIXELS).mean() < 6


def heading(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    return b"\x89PNG\r\n\x1a\n" + chunk


def jpeg_heading(width: int, height: int) -> bytes:
    return b"\xff\xd8\xff\xe0\x00\x04xx\xff\xc0\x00\x11\x08" + struct.pack(">HH", height, width) + bytes(20)


EXTENDED_WEBP = b"RIFF\x24\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + 2 * b"\x5f\xea\0" + bytes(20)
MOVING = encode(FACE, "WEBP", save_all=True, append_images=[FACE.rotate(90)])
THUMBNAIL = encode(FACE.resize((40, 48)), "JPEG")
WITH_THUMBNAIL = (
    MODES["jpeg"][:2] + b"\xff\xe1" + struct.pack(">H", len(THUMBNAIL) + 2) + THUMBNAIL + MODES["jpeg"][2:]
)
REFUSED = {
    "empty": (b"", "empty"),
    "text": (b"hello", "no picture"),
    "gif": (encode(FACE, "GIF"), "GIF file"),
    "bmp": (encode(FACE, "BMP"), "BMP file"),
    "tiff": (encode(FACE, "TIFF"), "TIFF file"),
    "heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC picture, as phones store it: export it as JPEG"),
    "heic-mif1": (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC"),
    "avif": (b"\0\0\0\x18ftypavif\0\0\0\0mif1avif", "AVIF"),
    "video": (b"\0\0\0\x18ftypmp42\0\0\0\0", "no picture"),
    "moving": (MOVING, "moves"),
    "bomb-png": (heading(60_000, 60_000), "at most 50 megapixels, this is 60000x60000"),
    "bomb-jpeg": (jpeg_heading(60_000, 60_000), "at most 50 megapixels"),
    "bomb-webp": (EXTENDED_WEBP, "at most 50 megapixels"),
    "no-width": (heading(0, 100), "damaged"),
    "no-height": (jpeg_heading(100, 0), "damaged"),
    "header-alone": (MODES["jpeg"][:30], "damaged"),
    "half-jpeg": (MODES["jpeg"][:9000], "breaks off"),
    "half-jpeg-with-thumbnail": (WITH_THUMBNAIL[:9000], "breaks off"),
    "half-progressive": (MODES["progressive"][:9000], "breaks off"),
    "half-png": (MODES["png"][:9000], "breaks off"),
    "half-webp": (MODES["webp"][:3000], "breaks off"),
    "scrambled": (MODES["png"][:200] + bytes(range(256)) * 20 + MODES["png"][-12:], "damaged"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_files_are_refused_with_a_sentence(case: str) -> None:
    """The code is `photo-invalid`; bombs are refused by their header."""
    data, sentence = REFUSED[case]
    with pytest.raises(PhotoError, match=sentence) as caught:
        decode_photo(data)
    assert caught.value.code == PHOTO_INVALID


def test_a_whole_photo_with_a_thumbnail_is_complete() -> None:
    """The first end of the file is that of the thumbnail."""
    assert decode_photo(WITH_THUMBNAIL).shape == (240, 200, 3)


@pytest.mark.parametrize(
    "data", [b"\xff\xd8\xff", b"\xff\xd8\xff\xe0\x00\x00", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBPVP8 "]
)
def test_a_truncated_header_has_no_size(data: bytes) -> None:
    """Reading it does not loop for ever."""
    assert picture_header(data) is None

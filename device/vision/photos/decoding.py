"""Decode a photo in memory: by its content, upright, in 8 bits, on white."""

import cv2
import numpy as np

from broker_bridge.common.pictures.picture_format import why_no_photo
from device.vision.capture.sources import Image
from device.vision.picture_size import is_complete, picture_header

from .errors import PHOTO_INVALID, PhotoError

MAX_PIXELS = 50_000_000
_ROWS = 256
_DAMAGED = "the photo is damaged and cannot be decoded"


def decode_photo(data: bytes) -> Image:
    """Return uint8[h, w, 3] BGR of a JPEG, PNG or WebP, turned upright.

    What is transparent becomes white. Raises PhotoError(`photo-invalid`).
    """
    reason = why_no_photo(data)
    if reason:
        raise PhotoError(PHOTO_INVALID, reason)
    header = picture_header(data)
    if header is None or 0 in (header.width, header.height):
        raise PhotoError(PHOTO_INVALID, _DAMAGED)
    if header.animated:
        raise PhotoError(PHOTO_INVALID, "this picture moves: use a still one")
    if header.width * header.height > MAX_PIXELS:
        size = f"{header.width}x{header.height}"
        raise PhotoError(
            PHOTO_INVALID, f"a photo has at most {MAX_PIXELS // 1_000_000} megapixels, this is {size}"
        )
    if not is_complete(data):
        raise PhotoError(PHOTO_INVALID, "the photo breaks off: the file is not complete")
    image = _decode(data, cv2.IMREAD_COLOR)
    return _on_white(image, _decode(data, cv2.IMREAD_UNCHANGED)) if header.has_alpha else image


def _decode(data: bytes, how: int) -> Image:
    try:
        image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), how)
    except cv2.error as error:
        raise PhotoError(PHOTO_INVALID, _DAMAGED) from error
    if image is None:
        raise PhotoError(PHOTO_INVALID, _DAMAGED)
    return np.asarray(image) if how == cv2.IMREAD_UNCHANGED else np.asarray(image, dtype=np.uint8)


def _on_white(image: Image, unchanged: Image) -> Image:
    """Return `image` on white where its alpha, in `unchanged`, is transparent."""
    if unchanged.ndim != 3 or unchanged.shape[2] != 4 or unchanged.shape[:2] != image.shape[:2]:
        return image
    opaque = np.float32(np.iinfo(unchanged.dtype).max)
    # A few rows at a time, since floating point takes four times the memory.
    for top in range(0, image.shape[0], _ROWS):
        rows = np.s_[top : top + _ROWS]
        share = unchanged[rows, :, 3:] / opaque
        image[rows] = np.rint(image[rows] * share + 255 * (1 - share))
    return image

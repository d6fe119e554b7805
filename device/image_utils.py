"""Event images within a byte budget, in as few encodes as can be."""

import base64
import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

_BYTES_PER_KB = 1000
_LONGEST_SIDE = 960
_FIRST_QUALITY = 90
_QUALITIES = (80, 70, 60)
_QUALITY_WHEN_SHRUNK = 70
# Measured on photographs, relative to quality 90; the sizes of three pictures agreed within 0.02.
_QUALITY_STEPS = (40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 95.0, 100.0)
_BYTES_AT_STEPS = (0.36, 0.41, 0.46, 0.54, 0.68, 1.0, 1.5, 2.7)
# Bytes went as the scale to the power of 1.5 to 1.7 on photographs, 2 on noise: the lowest is the safe one.
_BYTES_PER_SCALE = 1.5
_CAUTION = 0.95
# A JPEG never gets smaller than its tables; under this many pixels a side nobody is recognised any more.
_SHORTEST_SIDE = 16
_MOST_ENCODES = 8


def compress_image_for_event(
    frame: NDArray[np.uint8],
    target_size_kb: float = 50,
    face_bbox: Sequence[float] | None = None,
    *,
    padding: float = 0.4,
    max_side: int = _LONGEST_SIDE,
    quality: int = _FIRST_QUALITY,
) -> str | None:
    """Base64 of a JPEG of at most `target_size_kb` (of 1,000 bytes, before base64) for an event (seed 003).

    `frame` is uint8[h, w, 3] BGR or uint8[h, w]. With `face_bbox` (x, y, width, height in pixels) it is cut
    round the face, widened by `padding` of the box on each side. None when it cannot be done: an empty
    picture, a box outside of it, or a budget that no JPEG fits.
    """
    jpeg = compress_to_jpeg(
        frame,
        int(target_size_kb * _BYTES_PER_KB),
        face_bbox,
        padding=padding,
        max_side=max_side,
        quality=quality,
    )
    return None if jpeg is None else base64.b64encode(jpeg).decode("ascii")


def compress_to_jpeg(
    frame: NDArray[np.uint8],
    budget: int,
    face_bbox: Sequence[float] | None = None,
    *,
    padding: float = 0.4,
    max_side: int = _LONGEST_SIDE,
    quality: int = _FIRST_QUALITY,
) -> bytes | None:
    """A JPEG of at most `budget` bytes; arguments and None as in `compress_image_for_event`."""
    if frame.ndim not in (2, 3) or frame.dtype != np.uint8 or 0 in frame.shape:
        return None
    image = frame if face_bbox is None else _crop(frame, face_bbox, padding)
    if image is None:
        return None
    scale = min(1.0, max_side / max(image.shape[:2]))
    for _ in range(_MOST_ENCODES):
        jpeg = _encode(image, scale, quality)
        if len(jpeg) <= budget:
            return jpeg
        if min(image.shape[:2]) * scale <= _SHORTEST_SIDE:
            return None
        scale, quality = _smaller(scale, quality, budget / len(jpeg))
    return None


def _smaller(scale: float, quality: int, wanted: float) -> tuple[float, int]:
    """Scale and quality for a JPEG `wanted` (a share below 1) times as large.

    Lower quality comes first, since down to 60 it costs a face less than lost pixels do.
    """
    aim = _CAUTION * wanted * _relative_bytes(quality)
    for lower in _QUALITIES:
        if lower < quality and _relative_bytes(lower) <= aim:
            return scale, lower
    kept = min(quality, _QUALITY_WHEN_SHRUNK)
    return scale * min(0.95, (aim / _relative_bytes(kept)) ** (1 / _BYTES_PER_SCALE)), kept


def _relative_bytes(quality: int) -> float:
    return float(np.interp(quality, _QUALITY_STEPS, _BYTES_AT_STEPS))


def _encode(image: NDArray[np.uint8], scale: float, quality: int) -> bytes:
    if scale < 1.0:
        height, width = image.shape[:2]
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return encoded.tobytes()


def _crop(frame: NDArray[np.uint8], box: Sequence[float], padding: float) -> NDArray[np.uint8] | None:
    x, y, width, height = (float(value) for value in box)
    if not (math.isfinite(x + y + width + height) and width > 0 and height > 0):
        return None
    left, right = max(0, math.floor(x - padding * width)), math.ceil(x + width * (1 + padding))
    top, bottom = max(0, math.floor(y - padding * height)), math.ceil(y + height * (1 + padding))
    cut = frame[top : max(top, bottom), left : max(left, right)]
    return cut if cut.size else None

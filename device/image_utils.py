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
_LOWEST_QUALITY = 50
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

    Measured on photographs, bytes go as the square of the scale, or a little more slowly than the distance
    of the quality to 100; lower quality is used first, since it costs a face less than lost pixels do.
    """
    lower = max(_LOWEST_QUALITY, 100 - math.ceil((100 - quality) / max(wanted, 0.01) ** 1.5))
    if lower < quality and wanted > 0.4:
        return scale, lower
    return scale * 0.92 * math.sqrt(wanted), quality


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

"""Event images within a byte budget, with as few encodes as possible."""

import base64
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from device.vision.jpeg_size import JpegSample, sample_for_jpeg

_log = logging.getLogger(__name__)

Image = NDArray[np.uint8]

_BYTES_PER_KB = 1000
_PADDING = 0.4
_LONGEST_SIDE = 960
_BEST_QUALITY = 90
# Down to this quality a face suffers less than from fewer pixels.
_LOWEST_QUALITY = 60
# The quality that a smaller image is planned for.
_QUALITY_WHEN_SHRUNK = 70
# Bytes grow with the scale to the power of 1.5 to 1.7 on photographs, 2 on noise.
_BYTES_PER_SCALE = 1.6
_CAUTION = 0.94
# A JPEG is never smaller than its tables; with fewer pixels a side no face can be recognised.
_SHORTEST_SIDE = 16
_MAX_SHRINKS = 12
_MAX_ENCODES = 6


@dataclass(frozen=True)
class EventImage:
    """An event image: `jpeg`, or None with the `reason`.

    `encodes` counts the JPEGs made for it.
    """

    jpeg: bytes | None
    reason: str | None
    encodes: int

    def __post_init__(self) -> None:
        if (self.jpeg is None) == (self.reason is None):
            raise ValueError("expected an image or a reason, exactly one of them")


@dataclass(frozen=True)
class _Plan:
    """An image in its final size, the quality, and the estimated bytes."""

    image: Image
    quality: int
    estimate: float


def compress_image_for_event(
    frame: Image,
    target_size_kb: float = 50,
    face_bbox: Sequence[float] | None = None,
    *,
    padding: float = _PADDING,
    max_side: int = _LONGEST_SIDE,
    quality: int = _BEST_QUALITY,
) -> str | None:
    """Return base64 of a JPEG of at most `target_size_kb` for an event (seed 003).

    A kilobyte is 1,000 bytes before base64. `frame` is uint8[h, w, 3] BGR or uint8[h, w]. With `face_bbox`
    (x, y, width, height in pixels) it is cut round the face, with a margin of `padding` of the box on each
    side. The longer side is at most `max_side` pixels, the JPEG quality at most `quality`. Returns None and
    logs the reason if no image can be made.
    """
    jpeg = compress_to_jpeg(
        frame,
        target_size_kb * _BYTES_PER_KB,
        face_bbox,
        padding=padding,
        max_side=max_side,
        quality=quality,
    )
    return None if jpeg is None else base64.b64encode(jpeg).decode("ascii")


def compress_to_jpeg(
    frame: Image,
    budget: float,
    face_bbox: Sequence[float] | None = None,
    *,
    padding: float = _PADDING,
    max_side: int = _LONGEST_SIDE,
    quality: int = _BEST_QUALITY,
) -> bytes | None:
    """Return a JPEG of at most `budget` bytes, or None.

    See `compress_image_for_event`.
    """
    made = make_event_image(frame, budget, face_bbox, padding=padding, max_side=max_side, quality=quality)
    if made.reason is not None:
        _log.warning("event image not made reason=%r", made.reason)
    return made.jpeg


def make_event_image(
    frame: Image,
    budget: float,
    face_bbox: Sequence[float] | None = None,
    *,
    padding: float = _PADDING,
    max_side: int = _LONGEST_SIDE,
    quality: int = _BEST_QUALITY,
) -> EventImage:
    """Return a JPEG of at most `budget` bytes, or the reason for none.

    See `compress_image_for_event`. The size is estimated before encoding, and each JPEG that is too large
    corrects the estimate. A bad frame or box is a reason. Raises ValueError for a padding, side or
    quality out of range.
    """
    if not (padding >= 0 and max_side >= 1 and 1 <= quality <= 100):
        raise ValueError(
            f"expected a padding of 0 or more, a side of 1 or more and a quality of 1 to 100, got {padding}, "
            f"{max_side} and {quality}"
        )
    cut = _cut(frame, face_bbox, padding)
    if isinstance(cut, str):
        return EventImage(None, cut, 0)
    image = _resized(cut, max_side / max(cut.shape[:2]))
    bias, encodes = 1.0, 0
    while encodes < _MAX_ENCODES:
        plan = _plan(image, quality, _CAUTION * budget / bias)
        if plan is None:
            break
        encodes += 1
        jpeg = _encode(plan)
        if len(jpeg) <= budget:
            return EventImage(jpeg, None, encodes)
        bias = len(jpeg) / plan.estimate
    height, width = cut.shape[:2]
    return EventImage(None, f"no JPEG of the {width}x{height} image fits into {budget:g} bytes", encodes)


def _cut(frame: Image, box: Sequence[float] | None, padding: float) -> Image | str:
    """Return the part of `frame` to show, or the reason for none."""
    fault = _fault_of_frame(frame) or (box is not None and _fault_of_box(box))
    if fault:
        return fault
    image = frame.reshape(frame.shape[:2]) if frame.ndim == 3 and frame.shape[2] == 1 else frame
    if box is None:
        return image
    cut = _crop(image, box, padding)
    return cut if cut.size else f"the face box lies outside of the {frame.shape[1]}x{frame.shape[0]} frame"


def _fault_of_frame(frame: object) -> str | None:
    if not isinstance(frame, np.ndarray):
        return f"expected a frame as array of uint8, got a {type(frame).__name__}"
    if frame.dtype != np.uint8 or not (frame.ndim == 2 or (frame.ndim == 3 and frame.shape[2] in (1, 3))):
        return f"expected a frame uint8[h, w, 3] or uint8[h, w], got {frame.dtype}{list(frame.shape)}"
    return None if frame.size else f"the frame is empty, {frame.shape[1]}x{frame.shape[0]}"


def _fault_of_box(box: Sequence[float]) -> str | None:
    if len(box) == 4 and all(math.isfinite(value) for value in box) and box[2] > 0 and box[3] > 0:
        return None
    return "expected a face box x, y, width, height in pixels, finite and not empty"


def _crop(frame: Image, box: Sequence[float], padding: float) -> Image:
    height, width = frame.shape[:2]

    def span(start: float, length: float, end: int) -> slice:
        first, last = start - padding * length, start + length * (1 + padding)
        return slice(math.floor(min(max(first, 0), end)), math.ceil(min(max(last, 0), end)))

    return frame[span(box[1], box[3], height), span(box[0], box[2], width)]


def _plan(original: Image, best: int, aim: float) -> _Plan | None:
    """Return the plan of best quality for about `aim` bytes.

    The image is made smaller if needed.
    """
    image, scale = original, 1.0
    for _ in range(_MAX_SHRINKS):
        sample = sample_for_jpeg(image)
        quality = _quality(sample, best, aim)
        if quality is not None:
            return _Plan(image, quality, sample.bytes_at(quality))
        if min(image.shape[:2]) <= _SHORTEST_SIDE or not aim > 0:
            return None
        share = aim / sample.bytes_at(min(best, _QUALITY_WHEN_SHRUNK))
        scale *= min(0.95, share ** (1 / _BYTES_PER_SCALE))
        image = _resized(original, scale)
    return None


def _quality(sample: JpegSample, best: int, aim: float) -> int | None:
    """Return the best quality up to `best` for `aim` bytes.

    Returns None if the lowest quality takes more.
    """
    high, low = best, min(best, _LOWEST_QUALITY)
    high_bytes, low_bytes = sample.bytes_at(high), sample.bytes_at(low)
    if high_bytes <= aim:
        return high
    if not low_bytes <= aim:
        return None
    while high - low > 1:
        share = math.log(aim / low_bytes) / math.log(high_bytes / low_bytes)
        guess = min(max(low + 1, low + round(share * (high - low))), high - 1)
        guess_bytes = sample.bytes_at(guess)
        if guess_bytes > aim:
            high, high_bytes = guess, guess_bytes
            continue
        low, low_bytes = guess, guess_bytes
        if low_bytes > _CAUTION * aim:
            break
    return low


def _resized(image: Image, scale: float) -> Image:
    if scale >= 1.0:
        return image
    height, width = image.shape[:2]
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _encode(plan: _Plan) -> bytes:
    encoded = cv2.imencode(".jpg", plan.image, [cv2.IMWRITE_JPEG_QUALITY, plan.quality])[1]
    return encoded.tobytes()

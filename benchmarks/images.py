"""Event images: 1080p frames to at most 50 KB, compared with one bare encode."""

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress
from skimage import data

from device.events.image_utils import make_event_image

from .stats import Latency, Row

Image = NDArray[np.uint8]

BUDGET = 50_000
MOST_ENCODES = 2
NOISE = (0, 4, 10, 20, 40)
"""Standard deviation in grey levels: none, a good sensor by day, and a bad one at night."""
FACES = (None, 96, 224, 360, 540)
"""Sides of the face box in pixels; None sends the whole frame."""
_WIDTH, _HEIGHT = 1920, 1080
_PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket", "camera", "coins", "grass", "gravel", "brick")


@dataclass(frozen=True)
class EncodesRow(Row):
    """A row with a bound on the encodes of 95 % of the images; `encodes` are sorted."""

    encodes: tuple[int, ...] = ()

    @property
    def p95(self) -> int:
        return self.encodes[round(0.95 * (len(self.encodes) - 1))]

    @property
    def holds(self) -> bool:
        return super().holds and self.p95 <= MOST_ENCODES

    @property
    def must(self) -> str:
        return f"p95 <= {MOST_ENCODES} encodes  {'holds' if self.holds else 'MISSED'}"


def frames(count: int) -> Iterator[Image]:
    """Yield uint8[1080, 1920, 3] of photographs, enlarged (smooth) or tiled (detail)."""
    pictures = {name: _bgr(getattr(data, name)()) for name in _PHOTOGRAPHS}
    pictures["motorcycle"] = _bgr(data.stereo_motorcycle()[0])  # type: ignore[no-untyped-call]
    faces = np.asarray(data.lfw_subset()[:100] * 255, np.uint8)  # type: ignore[no-untyped-call]
    pictures["faces"] = _bgr(np.vstack([np.hstack(list(faces[row * 10 :][:10])) for row in range(10)]))
    chosen = list(pictures.values())[:count]
    for picture in chosen:
        height, width = picture.shape[:2]
        factor = max(_WIDTH / width, _HEIGHT / height)
        large = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
        yield np.asarray(large[:_HEIGHT, :_WIDTH], dtype=np.uint8)
    for picture in chosen:
        rows, columns = -(-_HEIGHT // picture.shape[0]), -(-_WIDTH // picture.shape[1])
        yield np.tile(picture, (rows, columns, 1))[:_HEIGHT, :_WIDTH]


def measure(progress: Progress, pictures: int) -> list[Row]:
    """Return rows for whole frames and for faces, each followed by its bare encode."""
    images = list(frames(pictures))
    task = progress.add_task("event images", total=len(images) * len(NOISE))
    pixels = np.random.default_rng(1)
    places = random.Random(1)
    whole, face = _Tally(), _Tally()
    for frame in images:
        for level in NOISE:
            noisy = _with_noise(frame, level, pixels)
            for side in FACES:
                (whole if side is None else face).add(noisy, _box(side, places))
            progress.advance(task)
    return [*whole.rows("1080p frame"), *face.rows("face in 1080p")]


class _Tally:
    """Measurements over a set of images."""

    def __init__(self) -> None:
        self._took: list[float] = []
        self._bare: list[float] = []
        self._encodes: list[int] = []
        self._sides: list[int] = []

    def add(self, frame: Image, box: Sequence[float] | None) -> None:
        started = time.perf_counter()
        made = make_event_image(frame, BUDGET, box)
        self._took.append(time.perf_counter() - started)
        if made.jpeg is None or len(made.jpeg) > BUDGET:
            raise RuntimeError(f"no event image: {made.reason}")
        crop = _crop(frame, box)
        started = time.perf_counter()
        cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, 90])
        self._bare.append(time.perf_counter() - started)
        self._encodes.append(made.encodes)
        shown = np.asarray(cv2.imdecode(np.frombuffer(made.jpeg, np.uint8), cv2.IMREAD_COLOR))
        self._sides.append(max(shown.shape))

    def rows(self, what: str) -> list[Row]:
        bare = Latency.from_seconds(self._bare)
        row = EncodesRow(
            what, Latency.from_seconds(self._took), bare=bare, encodes=tuple(sorted(self._encodes))
        )
        middle, most = row.encodes[len(row.encodes) // 2], row.encodes[-1]
        name = f"{what} to {np.mean(self._sides):.0f} px: encodes p50/p95/max {middle}/{row.p95}/{most}"
        return [
            replace(row, name=name),
            Row("  one bare encode at quality 90", bare),
        ]


def _bgr(picture: Image) -> Image:
    conversion = cv2.COLOR_GRAY2BGR if picture.ndim == 2 else cv2.COLOR_RGB2BGR
    return np.asarray(cv2.cvtColor(picture, conversion), dtype=np.uint8)


def _with_noise(frame: Image, level: float, pixels: np.random.Generator) -> Image:
    if not level:
        return np.ascontiguousarray(frame)
    noise = pixels.standard_normal(frame.shape, dtype=np.float32) * level
    return np.asarray(np.clip(frame + noise, 0, 255), dtype=np.uint8)


def _box(side: int | None, places: random.Random) -> list[float] | None:
    if side is None:
        return None
    return [places.randrange(_WIDTH - side), places.randrange(_HEIGHT - side), side, side]


def _crop(frame: Image, box: Sequence[float] | None) -> Image:
    """Return the pixels of the event image: the box and 0.4 of it on each side."""
    if box is None:
        return frame
    x, y, width, height = (int(value) for value in box)
    pad_x, pad_y = int(0.4 * width), int(0.4 * height)
    return frame[max(0, y - pad_y) : y + height + pad_y, max(0, x - pad_x) : x + width + pad_x]

"""Make sample videos from the faces of scikit-image's `lfw_subset`.

The faces come from Labeled Faces in the Wild and lie in scikit-image's wheel as 25x25 grey pictures, so the
videos need no download. They are for trials only: each appearance is one still that is moved, turned, lit and
noised.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.data import lfw_subset

WIDTH, HEIGHT, FPS = 640, 480, 15
FACE_PIXELS = 160

# Rows of `lfw_subset` that the cascade found in every trial and that resemble no other of the hundred faces
# (cosine to the nearest other at most 0.58 in face:resnet29-512).
IDENTITIES: Mapping[str, int] = {
    "EMP-10001": 53,
    "EMP-10002": 25,
    "EMP-10003": 12,
    "EMP-10004": 54,
    "EMP-10005": 16,
    "EMP-10006": 69,
}
UNKNOWN = 67
"""The row of the stranger, which the demo does not enroll."""

_STAY_FRAMES = 36
_GAP_FRAMES = 18
_SLIDE_FRAMES = 5
_SINGLE_X = (240,)
_PAIR_X = (90, 390)

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Appearance:
    """Row `face` of `lfw_subset` in a video.

    It is in the frames `first_frame` to `last_frame`, both included.
    """

    face: int
    first_frame: int
    last_frame: int
    left: int
    """The left edge of the face, in pixels."""

    @property
    def starts_at(self) -> float:
        """Return the seconds from the start of the video."""
        return self.first_frame / FPS


@dataclass(frozen=True)
class SampleVideo:
    """A video file of `frames` frames with the appearances in it, in order."""

    path: Path
    frames: int
    appearances: tuple[Appearance, ...]


def make_sample(
    folder: Path,
    faces: Sequence[int] = tuple(IDENTITIES.values()),
    unknown: int = UNKNOWN,
    *,
    cameras: int = 2,
    seed: int = 7,
) -> list[SampleVideo]:
    """Write `camera-1.mp4`, ...

    Into `folder`: 640x480, 15 frames a second, about 21 s, silent.
    Each of `faces` appears once, one after the other except the last two, which appear together; `unknown` is
    third. Every camera has its own order and movements; the same seed gives the same videos.
    """
    folder.mkdir(parents=True, exist_ok=True)
    videos = []
    for camera in range(cameras):
        shift = camera * 2 % max(1, len(faces))
        order = [*faces[shift:], *faces[:shift]]
        appearances = _schedule([*order[:2], unknown, *order[2:]])
        frames = appearances[-1].last_frame + 1 + _GAP_FRAMES
        path = folder / f"camera-{camera + 1}.mp4"
        _write(path, frames, appearances, np.random.default_rng([seed, camera]))
        videos.append(SampleVideo(path, frames, appearances))
    return videos


def enrollment_photo(face: int) -> bytes:
    """Return a JPEG portrait, 480x480, of row `face` of `lfw_subset`.

    It equals no frame of a video.
    """
    random = np.random.default_rng([97, face])
    size = 200
    canvas = np.full((480, 480, 3), 196, dtype=np.uint8)
    turned = _jitter(_face(face, size), random, degrees=2.0, light=0.05, noise=2.0)
    _paste(canvas, turned, 140 + int(random.integers(-4, 5)), 110 + int(random.integers(-4, 5)))
    encoded = cv2.imencode(".jpg", canvas, [cv2.IMWRITE_JPEG_QUALITY, 92])[1]
    return encoded.tobytes()


def _schedule(order: Sequence[int]) -> tuple[Appearance, ...]:
    """Return appearances one after the other, the last two together."""
    alone = [(face,) for face in order[:-2]]
    appearances: list[Appearance] = []
    first = _GAP_FRAMES
    for group in [*alone, tuple(order[-2:])]:
        lefts = _SINGLE_X if len(group) == 1 else _PAIR_X
        for face, left in zip(group, lefts, strict=False):
            appearances.append(Appearance(face, first, first + _STAY_FRAMES - 1, left))
        first += _STAY_FRAMES + _GAP_FRAMES
    return tuple(appearances)


def _write(path: Path, frames: int, appearances: Sequence[Appearance], random: np.random.Generator) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), FPS, (WIDTH, HEIGHT))
    if not writer.isOpened():
        raise OSError(
            f"{path} cannot be written: this OpenCV has no mp4v encoder, or the folder is not writable"
        )
    try:
        for index in range(frames):
            writer.write(_frame(index, appearances, random))
    finally:
        writer.release()


def _frame(index: int, appearances: Sequence[Appearance], random: np.random.Generator) -> Image:
    picture = _background(index)
    for seen in appearances:
        if seen.first_frame <= index <= seen.last_frame:
            face = _jitter(_face(seen.face, FACE_PIXELS), random, degrees=4.0, light=0.15, noise=4.0)
            left = seen.left + int(random.integers(-2, 3))
            _paste(picture, face, left + _slide(index, seen), 120 + int(random.integers(-2, 3)))
    return picture


def _slide(index: int, seen: Appearance) -> int:
    """Return the offset in pixels: a face slides in on one side and out on the other."""
    arriving = max(0, _SLIDE_FRAMES - (index - seen.first_frame))
    leaving = max(0, _SLIDE_FRAMES - (seen.last_frame - index))
    return 16 * (leaving - arriving)


def _background(index: int) -> Image:
    """Draw a wall in slowly drifting light, with a darker floor."""
    across = np.linspace(0, np.pi, WIDTH) + index * 0.02
    row = 150 + 12 * np.sin(across)
    wall = np.tile(row, (HEIGHT, 1))
    wall[400:] -= 35
    return np.repeat(wall[..., None], 3, axis=2).astype(np.uint8)


@lru_cache(maxsize=32)
def _face(row: int, size: int) -> Image:
    """Return uint8[size, size], grey."""
    small = (lfw_subset()[row] * 255).astype(np.uint8)  # type: ignore[no-untyped-call]
    return np.asarray(cv2.resize(small, (size, size), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def _jitter(face: Image, random: np.random.Generator, *, degrees: float, light: float, noise: float) -> Image:
    size = face.shape[0]
    turn = cv2.getRotationMatrix2D((size / 2, size / 2), float(random.uniform(-degrees, degrees)), 1.0)
    turned = cv2.warpAffine(face, turn, (size, size), borderMode=cv2.BORDER_REPLICATE)
    lit = turned * random.uniform(1 - light, 1 + light) + random.normal(0, noise, face.shape)
    return np.clip(lit, 0, 255).astype(np.uint8)


def _paste(picture: Image, face: Image, left: int, top: int) -> None:
    """Draw a grey face with soft edges, on shoulders, into `picture`.

    Parts outside are cut off.
    """
    size = face.shape[0]
    shoulders = (left + size // 2, top + round(1.6 * size))
    cv2.ellipse(picture, shoulders, (round(0.85 * size), round(0.75 * size)), 0, 0, 360, (92, 74, 60), -1)
    x0, x1 = max(0, left), min(picture.shape[1], left + size)
    y0, y1 = max(0, top), min(picture.shape[0], top + size)
    if x0 >= x1 or y0 >= y1:
        return
    part = (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
    share = _soft_edges(size)[part][..., None]
    under = picture[y0:y1, x0:x1]
    picture[y0:y1, x0:x1] = (share * face[part][..., None] + (1 - share) * under).astype(np.uint8)


@lru_cache(maxsize=8)
def _soft_edges(size: int) -> NDArray[np.float64]:
    """Return float64[size, size]: 1 in the middle, 0 at the edge.

    The value falls over the outer twentieth.
    """
    ramp = np.clip(np.minimum(np.arange(size), np.arange(size)[::-1]) / (size / 20), 0, 1)
    edges: NDArray[np.float64] = np.minimum.outer(ramp, ramp)
    return edges

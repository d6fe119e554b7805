"""`PictureWatch`: tells new pictures from a frozen or dark camera's."""

import math
import zlib
from collections import deque
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from .sources import Image

FROZEN_SECONDS: Final = 10.0
"""A camera whose pictures are equal to the last bit for so long is frozen."""
STILL_SECONDS: Final = 60.0
"""As above, for pictures that differ by compression alone: an empty corridor may look so for a while."""
DARK_SECONDS: Final = 5.0

# Measured on stills of three sizes. Sensor noise of 1 grey level or more, or of 2 behind JPEG, differs by 1.3
# and more; a still that is encoded again soon differs by less than 0.9 from one of the pictures before it.
_NOISE = 1.0
_NOISE_QUANTILE = 25
_BLOCK, _BLOCKS = 8, 250
_CLIPPED = 16
# A face that moves by a pixel changes whole cells; compression changes few of them, and by less.
_WIDTH = 80
_CELL_CHANGE = 6
_MOVING_SHARE = 0.004
# Date and time are burnt in at the top or the bottom, where no face is seen whole.
_EDGE = 0.12
_REMEMBERED = 32
_FLAT = 6.0


@dataclass(frozen=True)
class _Look:
    """What is kept of a picture, without its edges.

    `cells` int16[rows, 80] is the picture in small. Of n blocks of 8 x 8 pixels it has the `levels`
    float32[n], the `variances` float32[n] and the pixels less their level, `residuals` float32[n, 64].
    """

    cells: NDArray[np.int16]
    levels: NDArray[np.float32]
    variances: NDArray[np.float32]
    residuals: NDArray[np.float32]

    def repeats(self, known: "_Look") -> bool:
        """Return whether this picture is `known`, apart from compression."""
        if (np.abs(self.cells - known.cells) > _CELL_CHANGE).mean() >= _MOVING_SHARE:
            return False
        # Black and white have no noise: the sensor's range ends there.
        usable = (known.levels > _CLIPPED) & (known.levels < 255 - _CLIPPED)
        if not usable.any():
            return True
        common = np.einsum("ij,ij->i", self.residuals, known.residuals) / _BLOCK**2
        difference = (self.variances + known.variances - 2 * common)[usable]
        return bool(np.percentile(difference, _NOISE_QUANTILE) < _NOISE**2)


class PictureWatch:
    """The pictures of a camera, for one thread.

    A picture is new if it differs from each of the last 32 new ones by the noise of a sensor or by
    something that moved. Codec noise and a clock that is burnt in at the top or the bottom make no picture
    new. Time is passed in, in monotonic seconds. `repeated` counts the others.
    """

    def __init__(self) -> None:
        self.repeated = 0
        self._new: deque[_Look] = deque(maxlen=_REMEMBERED)
        self._shape: tuple[int, ...] = ()
        self._checksum = -1
        self._new_at = -math.inf
        self._changed_at = -math.inf
        self._dark_since: float | None = None
        self._at = -math.inf

    def add(self, image: Image, at: float) -> bool:
        """Return whether `image`, uint8[h, w, 3], is new."""
        checksum = zlib.crc32(image[::_BLOCK].tobytes())
        is_equal = checksum == self._checksum and image.shape == self._shape
        self._at = at
        if is_equal:
            self.repeated += 1
            return False
        if image.shape != self._shape:
            self._new.clear()
        self._checksum, self._shape, self._changed_at = checksum, image.shape, at
        look = _look_at(image)
        self._note_light(look, at)
        if any(look.repeats(known) for known in reversed(self._new)):
            self.repeated += 1
            return False
        self._new.append(look)
        self._new_at = at
        return True

    def _note_light(self, look: _Look, at: float) -> None:
        low, high = np.percentile(look.cells, (2, 98)) if look.cells.size else (0, 0)
        if high - low >= _FLAT:
            self._dark_since = None
        elif self._dark_since is None:
            self._dark_since = at

    @property
    def is_dark(self) -> bool:
        """Whether the picture has had one colour (black, grey or white) for seconds."""
        return self._dark_since is not None and self._at - self._dark_since >= DARK_SECONDS

    @property
    def is_frozen(self) -> bool:
        """Whether no new picture came for long; a picture of one colour is dark instead."""
        if self._dark_since is not None:
            return False
        return self._at - self._changed_at >= FROZEN_SECONDS or self._at - self._new_at >= STILL_SECONDS

    def limit_fps(self, fps: float | None, now: float) -> float | None:
        """Return `fps`, the average of new pictures, lowered while none comes."""
        return None if fps is None else min(fps, 1.0 / max(now - self._new_at, 1e-3))


def _look_at(image: Image) -> _Look:
    green = image[..., 1]
    height, width = green.shape
    edge = round(height * _EDGE)
    inner = np.ascontiguousarray(green[edge : height - edge])
    step = max(_BLOCK, int(math.sqrt(inner.size / _BLOCKS)))
    rows, columns = inner.shape[0] // step, width // step
    grid = inner[: rows * step, : columns * step].reshape(rows, step, columns, step)
    blocks = grid[:, :_BLOCK, :, :_BLOCK].swapaxes(1, 2).reshape(rows * columns, _BLOCK**2)
    pixels = blocks.astype(np.float32)
    levels = pixels.mean(axis=1)
    residuals = pixels - levels[:, None]
    size = (_WIDTH, max(1, round(_WIDTH * inner.shape[0] / width)))
    cells = cv2.resize(inner, size, interpolation=cv2.INTER_AREA)
    variances = np.einsum("ij,ij->i", residuals, residuals) / _BLOCK**2
    return _Look(np.asarray(cells, np.int16), levels, variances, residuals)

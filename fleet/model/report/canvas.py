"""Draw lines, areas and text on a white picture.

It is drawn twice as large and then reduced, so that edges are smooth.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]
"""Blue, green, red."""
Point = tuple[float, float]

INK: Colour = (56, 48, 43)
FAINT: Colour = (112, 104, 98)
GRID: Colour = (232, 229, 226)
PANEL: Colour = (252, 251, 250)
GREEN: Colour = (101, 150, 31)
ORANGE: Colour = (41, 118, 227)
BLUE: Colour = (176, 104, 38)
RED: Colour = (60, 50, 200)
_WHITE: Colour = (255, 255, 255)

_SCALE = 2
# Points are given in sixteenths of a pixel.
_SHIFT = 4
_PIXELS_PER_SCALE = 21.0
"""The height of a capital letter of OpenCV's fonts at scale 1."""


@dataclass(frozen=True)
class Area:
    """A rectangle in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top

    def point(self, x: float, y: float) -> Point:
        """Return the place of shares 0..1 from the left and from the bottom."""
        return self.left + x * self.width, self.bottom - y * self.height


class Canvas:
    """A picture of `width` times `height` pixels."""

    def __init__(self, width: int, height: int) -> None:
        self._size = (width, height)
        self._image: NDArray[np.uint8] = np.full((height * _SCALE, width * _SCALE, 3), _WHITE, dtype=np.uint8)

    def line(self, points: Sequence[Point], colour: Colour, width: float = 1.0) -> None:
        """Draw a line through `points`."""
        thickness = max(1, round(width * _SCALE))
        cv2.polylines(self._image, [_fixed(points)], False, colour, thickness, cv2.LINE_AA, _SHIFT)

    def dashed(self, start: Point, end: Point, colour: Colour, width: float = 1.0, dash: float = 5.0) -> None:
        """Draw a dashed line."""
        length = max(1e-6, float(np.hypot(end[0] - start[0], end[1] - start[1])))
        for begin in np.arange(0, length, 2 * dash).tolist():
            shares = begin / length, min(1.0, (begin + dash) / length)
            points = [
                (start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1]))
                for share in shares
            ]
            self.line(points, colour, width)

    def fill(self, points: Sequence[Point], colour: Colour, opacity: float = 1.0) -> None:
        """Fill the polygon of `points`."""
        drawn = self._image.copy()
        cv2.fillPoly(drawn, [_fixed(points)], colour, cv2.LINE_AA, _SHIFT)
        self._image = np.asarray(cv2.addWeighted(drawn, opacity, self._image, 1 - opacity, 0), dtype=np.uint8)

    def box(self, area: Area, colour: Colour, opacity: float = 1.0) -> None:
        """Fill a rectangle."""
        corners = [area.point(x, y) for x, y in ((0, 0), (1, 0), (1, 1), (0, 1))]
        self.fill(corners, colour, opacity)

    def dot(self, at: Point, colour: Colour, radius: float = 4.0) -> None:
        """Draw a disc with a white edge."""
        x, y = (round(value * _SCALE * 2**_SHIFT) for value in at)
        for size, paint in ((radius + 1.5, _WHITE), (radius, colour)):
            pixels = round(size * _SCALE * 2**_SHIFT)
            cv2.circle(self._image, (x, y), pixels, paint, -1, cv2.LINE_AA, _SHIFT)

    def text(
        self,
        at: Point,
        text: str,
        colour: Colour = INK,
        size: float = 10.0,
        *,
        align: Literal["left", "centre", "right"] = "left",
        bold: bool = False,
    ) -> None:
        """Write `text` with capitals `size` pixels high on the line of `at`.

        Characters beyond ASCII, which the font lacks, become `?`.
        """
        plain = text.encode("ascii", "replace").decode()
        scale = size * _SCALE / _PIXELS_PER_SCALE
        font = cv2.FONT_HERSHEY_DUPLEX if bold else cv2.FONT_HERSHEY_SIMPLEX
        weight = max(1, round(size / 9 * _SCALE * (0.75 if bold else 0.6)))
        wide = cv2.getTextSize(plain, font, scale, weight)[0][0]
        x = at[0] * _SCALE - {"left": 0.0, "centre": wide / 2, "right": float(wide)}[align]
        place = (round(x), round(at[1] * _SCALE))
        cv2.putText(self._image, plain, place, font, scale, colour, weight, cv2.LINE_AA)

    def width_of(self, text: str, size: float) -> float:
        """Return the width of a text in pixels."""
        return float(cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size / _PIXELS_PER_SCALE, 1)[0][0])

    def png(self) -> bytes:
        """Return the picture as a PNG."""
        reduced = cv2.resize(self._image, self._size, interpolation=cv2.INTER_AREA)
        return bytes(cv2.imencode(".png", reduced)[1])


def _fixed(points: Sequence[Point]) -> NDArray[np.int32]:
    """Return int32[n, 1, 2] in sixteenths of a pixel."""
    array = np.asarray(points, dtype=np.float64) * _SCALE * 2**_SHIFT
    return np.asarray(np.round(array), dtype=np.int32).reshape(-1, 1, 2)

"""Predict five landmarks of faces in given squares.

Source: Kazemi and Sullivan 2014, "One Millisecond Face Alignment with an Ensemble of Regression Trees". The
numbers are those of dlib's `shape_predictor_5_face_landmarks.dat` (see `models/NOTICE`), and each step
rounds as dlib does: its trees turn the smallest difference into another landmark.
"""

from functools import cached_property
from importlib import resources
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .capture.sources import Image
from .detectors.detector import Float32

Float64 = NDArray[np.float64]

POINTS: Final = 5
_SPLITS, _DEPTH = 15, 4
# Each split before its left half, and that before its right half; dlib writes them level by level.
_PREORDER = (0, 1, 3, 7, 8, 4, 9, 10, 2, 5, 11, 12, 6, 13, 14)
# The grey levels of as many faces as this are one 64-bit number, which is gathered at once.
_GROUP = 4
_LARGEST = 1e6


class LandmarkPredictor:
    """The ensemble of trees, used by any number of threads."""

    def __init__(self) -> None:
        with np.load(str(resources.files("device.vision") / "models" / "landmarks-5.npz")) as file:
            mean_shape, features, thresholds, leaves, anchors, offsets = (
                file[name]
                for name in ("mean_shape", "features", "thresholds", "leaves", "anchors", "offsets")
            )
        self._mean_shape: Float32 = mean_shape
        middle = mean_shape.astype(np.float64)
        self._reference: Float64 = middle - middle.mean(axis=0)
        cascades, trees = features.shape[:2]
        # Per cascade: the two features of each split, [2, splits, trees].
        self._features = np.ascontiguousarray(features[:, :, _PREORDER].transpose(0, 3, 2, 1), dtype=np.intp)
        wide = thresholds[:, :, _PREORDER].transpose(0, 2, 1)[..., None].astype(np.int16)
        self._thresholds = np.repeat(wide, _GROUP, axis=-1)
        # A leaf's number has a bit per level, set where the walk went left; dlib's count grows to the right.
        self._leaves: Float32 = leaves[:, :, ::-1].reshape(cascades, -1, 2 * POINTS)
        self._first_leaf = np.arange(trees)[:, None] << _DEPTH
        self._anchors = anchors.astype(np.intp)
        self._offsets: Float32 = offsets.transpose(0, 2, 1).copy()

    def predict(self, image: Image, squares: Float64) -> Float32:
        """Return float32[n, 5, 2], the landmarks in pixels of `image`, in dlib's order.

        `image` is uint8[h, w, 3], `squares` float64[n, 4] as x, y, width, height. Pixels outside the image
        are black. A square that is not finite, or has sides under two pixels, has landmarks of NaN.
        """
        image = np.ascontiguousarray(image)
        landmarks = np.full((len(squares), POINTS, 2), np.nan, dtype=np.float32)
        with np.errstate(invalid="ignore"):
            sound = (np.abs(squares) <= _LARGEST).all(axis=1) & (squares[:, 2:] >= 2).all(axis=1)
        rows = np.flatnonzero(sound) if image.size else np.empty(0, dtype=np.intp)
        for start in range(0, len(rows), _GROUP):
            group = rows[start : start + _GROUP]
            landmarks[group] = self._predict_group(image, squares[group])
        return landmarks

    def _predict_group(self, image: Image, squares: Float64) -> Float64:
        """Return float64[n, 5, 2] of up to four squares."""
        count = len(squares)
        padded = squares[np.minimum(np.arange(_GROUP), count - 1)]
        # Coordinates first: [2, faces, 1], and shapes [2, faces, points].
        origin, extent = padded[:, :2].T[..., None], padded[:, 2:].T[..., None] - 1
        shapes = np.repeat(self._mean_shape.T[:, None], _GROUP, axis=1)
        for cascade in range(len(self._leaves)):
            grey = self._sample(image, cascade, shapes, origin, extent)
            leaves = self._find_leaves(cascade, grey)
            # In dlib's order, tree by tree: another would round otherwise.
            terms = np.empty((1 + len(leaves), _GROUP, 2 * POINTS), dtype=np.float32)
            terms[0] = shapes.transpose(1, 2, 0).reshape(_GROUP, -1)
            self._leaves[cascade].take(leaves, axis=0, out=terms[1:], mode="clip")
            shapes = np.add.reduce(terms, axis=0).reshape(_GROUP, POINTS, 2).transpose(2, 0, 1)
        placed: Float64 = (shapes * extent + origin).transpose(1, 2, 0)
        return placed[:count]

    def _sample(
        self, image: Image, cascade: int, shapes: Float32, origin: Float64, extent: Float64
    ) -> NDArray[np.int16]:
        """Return int16[features, faces], what the trees of `cascade` compare."""
        cosine, sine = self._turns(shapes)
        across, down = self._offsets[cascade]
        places = shapes.take(self._anchors[cascade], axis=2)
        places[0] += across * cosine - down * sine
        places[1] += across * sine + down * cosine
        wide = places.astype(np.float64)
        wide *= extent
        wide += origin + 0.5
        x, y = np.floor(wide, out=wide).astype(np.intp)
        height, width = image.shape[:2]
        # A negative number is a huge one without its sign.
        inside = (x.view(np.uintp) < width) & (y.view(np.uintp) < height)
        y *= width
        y += x
        y *= 3
        if not (whole := bool(inside.all())):
            y *= inside
        pixels = image.reshape(-1)
        grey = pixels.take(y).astype(np.int16)
        for channel in (1, 2):
            grey += pixels[channel:].take(y)
        grey //= 3
        return np.ascontiguousarray((grey if whole else grey * inside).T)

    def _turns(self, shapes: Float32) -> tuple[Float32, Float32]:
        """Return cosines and sines, with scale, from the mean shape to `shapes`.

        Both are float32[faces, 1].
        """
        moved = shapes.astype(np.float64)
        moved -= moved.mean(axis=2, keepdims=True)
        x, y = self._reference.T[..., None] / self._spread
        cosine = moved[0] @ x + moved[1] @ y
        sine = moved[1] @ x - moved[0] @ y
        return cosine.astype(np.float32), sine.astype(np.float32)

    @cached_property
    def _spread(self) -> float:
        return float((self._reference**2).sum())

    def _find_leaves(self, cascade: int, grey: NDArray[np.int16]) -> NDArray[np.intp]:
        """Return intp[trees, faces], the leaf of each tree at which each face arrives."""
        packed = grey.view(np.int64)[:, 0]
        first, second = packed.take(self._features[cascade]).view(np.int16).reshape(2, _SPLITS, -1, _GROUP)
        first -= second
        left = first > self._thresholds[cascade]
        root, rest = left[0], left[1:]
        path = root.view(np.uint8).copy()
        for _ in range(_DEPTH - 1):
            half = len(rest) // 2
            # Where the walk goes left the left half remains, else the right one.
            level = rest[half:] ^ ((rest[:half] ^ rest[half:]) & root)
            root, rest = level[0], level[1:]
            path <<= 1
            path |= root
        leaves: NDArray[np.intp] = path + self._first_leaf
        return leaves

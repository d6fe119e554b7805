"""Classify emotions with a configured ONNX network. The product includes none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .inference.session import Float32, ModelError, Session

# What half precision leaves of a sum of one.
_SUM_TOLERANCE = 1e-2


@dataclass(frozen=True)
class Emotion:
    """The most probable class of a face.

    `label` is its name, `code` its `EV2.n` (None: not reported), `confidence` its probability. Without finite
    scores the label is None and the confidence 0.
    """

    label: str | None
    code: str | None
    confidence: float


class EmotionClassifier:
    """A network from float32[n, c, h, w] to float32[n, classes].

    One channel takes grey, three take RGB; both as (pixels - `mean`) / `scale`. `classes` names the outputs
    in order, `codes` those that are reported. Raises ModelError if the network has other shapes.
    """

    def __init__(
        self,
        session: Session,
        classes: Sequence[str],
        codes: Mapping[str, str],
        mean: float = 0.0,
        scale: float = 1.0,
    ) -> None:
        self._channels, self._height, self._width = _input_shape(session)
        self._session = session
        self._classes = tuple(classes)
        self._codes = dict(codes)
        self._mean = mean
        self._scale = scale
        # The declared output may have free dimensions, so the network runs once.
        self._scores(np.zeros((1, self._channels, self._height, self._width), np.float32))

    def classify(self, faces: NDArray[np.uint8]) -> list[Emotion]:
        """Return an emotion for each of `faces`, uint8[n, 112, 112, 3] BGR, from one run.

        Raises ModelError when the network fails on it.
        """
        if not len(faces):
            return []
        batch = np.stack([self._prepared(face) for face in faces])
        return [self._emotion(row) for row in self._scores((batch - self._mean) / self._scale)]

    def _prepared(self, face: NDArray[np.uint8]) -> Float32:
        """Return float32[c, h, w]."""
        colours = cv2.cvtColor(face, cv2.COLOR_BGR2GRAY if self._channels == 1 else cv2.COLOR_BGR2RGB)
        shrinks = self._height * self._width < face.shape[0] * face.shape[1]
        size = (self._width, self._height)
        resized = cv2.resize(colours, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        planes = resized.reshape(self._height, self._width, self._channels).transpose(2, 0, 1)
        return np.ascontiguousarray(planes, dtype=np.float32)

    def _scores(self, batch: Float32) -> Float32:
        """Return float32[n, classes]."""
        output = self._session.run(batch.astype(np.float32, copy=False))[0]
        if output.ndim < 2 or output.shape[0] != len(batch) or output[0].size != len(self._classes):
            raise ModelError(
                f"{self._session.path} answers {list(output.shape)} for {len(batch)} faces, the "
                f"configuration names {len(self._classes)} classes"
            )
        return output.reshape(len(batch), -1)

    def _emotion(self, scores: Float32) -> Emotion:
        if not np.isfinite(scores).all():
            return Emotion(None, None, 0.0)
        probabilities = scores if _are_probabilities(scores) else _softmax(scores)
        best = int(probabilities.argmax())
        label = self._classes[best]
        return Emotion(label, self._codes.get(label), min(1.0, float(probabilities[best])))


def _input_shape(session: Session) -> tuple[int, int, int]:
    """Return channels, height and width. Raises ModelError for another shape."""
    shape = session.input.shape
    if len(shape) == 4:
        _, channels, height, width = shape
        if channels in (1, 3) and height and width:
            return channels, height, width
    raise ModelError(
        f"{session.path} takes {list(shape)}, an emotion classifier takes [n, 1 or 3, height, width] with a "
        "fixed height and width"
    )


def _are_probabilities(scores: Float32) -> bool:
    return bool((scores >= 0).all()) and abs(float(scores.sum()) - 1.0) <= _SUM_TOLERANCE


def _softmax(scores: Float32) -> Float32:
    powers: Float32 = np.exp(scores - scores.max())
    probabilities: Float32 = powers / powers.sum()
    return probabilities

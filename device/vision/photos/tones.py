"""Judge the picture of a face as such: shades, contrast, blocks.

Sharpness alone takes the dots of a 1-bit picture and the edges of blocks for detail.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from device.vision.capture.sources import Image
from device.vision.detectors.detector import FaceBox

# Entropy of the grey levels of a face, in bits: photographs have 6 to 7.5, sixteen levels at most 4.
_NO_SHADES, _FULL_SHADES = 3.0, 6.0
# Standard deviation of the grey levels: photographs have 20 to 90, black dots on white up to 127.
_FULL_CONTRAST, _HARD_CONTRAST, _BLACK_AND_WHITE = 24.0, 100.0, 127.5
# How much steeper the edges of 8x8 blocks are than the rest: 1 to 1.3 for JPEG at quality 50 and more.
_VISIBLE_BLOCKS = 1.6
# Share of neighbours that are exactly equal: photographs have up to a half, enlarged blocks of pixels more.
_EQUAL_NEIGHBOURS = 0.6
_BLOCK = 8
_USELESS = 0.05


@dataclass(frozen=True)
class Tones:
    """Factors of the quality, 0..1 each."""

    shades: float
    contrast: float
    blocks: float

    @property
    def quality(self) -> float:
        return self.shades * self.contrast * self.blocks

    def complaint(self) -> str | None:
        """Return what is wrong with a picture that is no use, else None."""
        if self.quality >= _USELESS:
            return None
        sentences = {
            self.shades: "the face has too few shades, as in a 1-bit or overexposed picture",
            self.contrast: "the face has too little contrast, or nothing but black and white",
            self.blocks: "the face is a mosaic of blocks",
        }
        return f"{sentences[min(sentences)]}: use an unedited photo with an even light"


def judge_tones(photo: Image, box: FaceBox) -> Tones:
    """Return the tones of the face in `box`, in the pixels that the photo came with."""
    top, left = max(0, box.y), max(0, box.x)
    face = photo[top : box.y + box.height, left : box.x + box.width]
    grey = cv2.cvtColor(np.ascontiguousarray(face), cv2.COLOR_BGR2GRAY)
    shares = np.bincount(grey.ravel(), minlength=256) / grey.size
    present = shares[shares > 0]
    entropy = float(-(present * np.log2(present)).sum())
    levels = grey.astype(np.int16)
    return Tones(
        shades=float(np.clip((entropy - _NO_SHADES) / (_FULL_SHADES - _NO_SHADES), 0, 1)),
        contrast=_contrast(float(grey.std())),
        blocks=min(_blocks(levels, left), _blocks(levels.T, top)),
    )


def _contrast(deviation: float) -> float:
    hardness = (_BLACK_AND_WHITE - deviation) / (_BLACK_AND_WHITE - _HARD_CONTRAST)
    return max(0.0, min(1.0, deviation / _FULL_CONTRAST, hardness))


def _blocks(levels: NDArray[np.int16], offset: int) -> float:
    """Return 1 for a picture without visible blocks along its rows, less with them.

    `offset` is the place of the first column in the photo, whose blocks begin at its edge.
    """
    if levels.shape[1] <= 2 * _BLOCK:
        return 1.0
    steps = np.abs(np.diff(levels, axis=1))
    equal = float((steps == 0).mean())
    columns = (np.arange(steps.shape[1]) + offset + 1) % _BLOCK == 0
    steepness = (float(steps[:, columns].mean()) + 0.5) / (float(steps[:, ~columns].mean()) + 0.5)
    visible = min(1.0, _VISIBLE_BLOCKS / steepness)
    mosaic = min(1.0, (1 - equal) / (1 - _EQUAL_NEIGHBOURS))
    return visible * mosaic

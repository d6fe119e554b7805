"""Say what would make a better photo of an enrolled face."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from device.vision.detectors.detector import Detections
from device.vision.quality import brightness_and_sharpness, head_poses

from .tones import Tones

PHOTO_SMALL: Final = "photo-small"
PHOTO_BLURRED: Final = "photo-blurred"
PHOTO_DARK: Final = "photo-dark"
PHOTO_BRIGHT: Final = "photo-bright"
PHOTO_TURNED: Final = "photo-turned"
PHOTO_TILTED: Final = "photo-tilted"
PHOTO_TONES: Final = "photo-tones"

# Stricter than a camera's limits: a template is compared with every face from now on.
_LEAST_PIXELS = 80
_LEAST_SHARPNESS = 60.0
_DARK, _BRIGHT = 50.0, 205.0
_MOST_TURNED, _MOST_TILTED = 25.0, 25.0
_GOOD_TONES = 0.6


@dataclass(frozen=True)
class PhotoWarning:
    """A stable `code`, and a sentence with what to do."""

    code: str
    detail: str


def advise(face: NDArray[np.uint8], found: Detections, pixels: int, tones: Tones) -> tuple[PhotoWarning, ...]:
    """Return what is wrong with the photo of a face that can still be used.

    `face` is uint8[112, 112, 3], `found` its one detection, `pixels` the shorter side of its box in the
    photo.
    """
    warnings = []
    brightness, sharpness = brightness_and_sharpness(face[None])[0].tolist()
    if pixels < _LEAST_PIXELS:
        detail = (
            f"the face is {pixels} pixels wide, expected {_LEAST_PIXELS}: come closer, or send the original"
        )
        warnings.append(PhotoWarning(PHOTO_SMALL, f"{detail} file"))
    if brightness < _DARK:
        warnings.append(PhotoWarning(PHOTO_DARK, "the face is dark: light it from the front"))
    elif brightness > _BRIGHT:
        warnings.append(PhotoWarning(PHOTO_BRIGHT, "the face is too bright: avoid flash and direct sun"))
    if sharpness < _LEAST_SHARPNESS:
        detail = "the face is blurred: hold camera and head still, focus on the eyes, use more light"
        warnings.append(PhotoWarning(PHOTO_BLURRED, detail))
    if tones.quality < _GOOD_TONES:
        detail = "the face has few shades, little contrast or visible blocks: use an unedited photo"
        warnings.append(PhotoWarning(PHOTO_TONES, detail))
    return (*warnings, *_pose_warnings(found))


def _pose_warnings(found: Detections) -> list[PhotoWarning]:
    if found.landmarks is None:
        return []
    yaw, pitch, roll = head_poses(found.landmarks, found.layout)[0].tolist()
    warnings = []
    # NaN, an angle that is not known, compares as not greater.
    if math.fabs(yaw) > _MOST_TURNED or math.fabs(pitch) > _MOST_TURNED:
        warnings.append(PhotoWarning(PHOTO_TURNED, "the head is turned away: look straight into the camera"))
    if math.fabs(roll) > _MOST_TILTED:
        warnings.append(PhotoWarning(PHOTO_TILTED, "the head is tilted: hold it upright, or turn the photo"))
    return warnings

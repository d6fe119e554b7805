"""Describe how detectors draw faces, in terms of ArcFace's frame of 112x112.

A leaf module: which five points landmarks are, and where the frame lies around a box.
"""

from dataclasses import dataclass

Point = tuple[float, float]

FACE_SIZE = 112


@dataclass(frozen=True)
class LandmarkLayout:
    """Which five points the landmarks of a detector are.

    `template` has their places in ArcFace's frame, `depths` how far they lie behind the tip of the nose in
    pixels of that frame, None where the points are too flat to tell a pose from them.
    """

    name: str
    template: tuple[Point, Point, Point, Point, Point]
    depths: tuple[float, float, float, float, float] | None = None


ARCFACE_POINTS = LandmarkLayout(
    "arcface",
    ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)),
    # 27 and 25 mm, as in OpenCV's generic head model; 63 mm between the pupils are 35 pixels.
    (15.0, 15.0, 0.0, 14.0, 14.0),
)
"""Eye on the left of the image, other eye, tip of the nose, left and right corner of the mouth.

The template is that of the 112x112 faces of ArcFace's training.
"""

EYE_CORNER_POINTS = LandmarkLayout(
    "eye-corners",
    ((80.2, 53.7), (66.0, 54.1), (31.8, 53.7), (46.0, 54.1), (56.0, 80.9)),
)
"""The points of dlib's predictor: outer and inner corner of each eye, and the base of the nose.

The eye on the right of the image comes first. The template is where these points lie in faces that were
aligned by ArcFace's five: the means over 47 photographs of 12 people, made symmetric. They vary by 2 pixels.
The base of the nose lies hardly deeper than the eyes, so these points tell the roll of a head alone.
"""


@dataclass(frozen=True)
class BoxFrame:
    """Where a square lies around a detector's box, in shares of the box's longer side.

    The square has `scale` times the longer side; its centre lies `right` and `down` of the box's.
    """

    scale: float
    right: float
    down: float


CASCADE_FRAME = BoxFrame(1.087, -0.005, -0.073)
"""ArcFace's frame around a square of the cascade, which is centred on the nose. Fitted on landmarks."""

TIGHT_FRAME = BoxFrame(1.053, 0.0, -0.068)
"""ArcFace's frame around a box from forehead to chin, as SCRFD and YuNet draw it. Fitted on landmarks."""

PREDICTOR_FRAMES = {
    CASCADE_FRAME: BoxFrame(0.914, -0.008, 0.036),
    TIGHT_FRAME: BoxFrame(0.759, 0.0, 0.091),
}
"""The square that dlib's predictor starts from, where ArcFace's frame is the key.

It is the one in which the landmarks that are found have the mean that the predictor starts with.
"""

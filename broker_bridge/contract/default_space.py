"""Name the space of the model that comes with the product.

The same record lies as JSON beside the model file; a test compares the two.
"""

from .spaces import LimitsSource, SpaceLimits, SpaceRecord

DEFAULT_FACE_SPACE = SpaceRecord(
    space="face:resnet29-512",
    dimension=512,
    model_sha256="193f04fffbda5e98da5667b0ed79d6c4a5526121d45c080a5e40508be36159ba",
    detector="cascade",
    alignment="landmarks",
    limits=SpaceLimits(
        distance=0.38,
        margin=0.05,
        same_person=0.62,
        look_alike=0.56,
        tracked_similarity=0.6,
        tracked_margin=0.05,
        tracked_by_position=0.5,
    ),
    source=LimitsSource(kind="shipped"),
)
"""The record of the built-in face model."""

"""Name the space of the model that comes with the product.

The same record lies as JSON beside the model file; a test compares the two.
"""

from .spaces import LimitsSource, SpaceLimits, SpaceRecord

DEFAULT_FACE_SPACE = SpaceRecord(
    space="face:gabor-512",
    dimension=512,
    model_sha256="cf71e0e3ae136508a5496d11e4ff6e5e33b978b78801ffa6fc8dd106fc69d644",
    detector="cascade",
    alignment="landmarks",
    limits=SpaceLimits(
        distance=0.25,
        margin=0.05,
        same_person=0.75,
        look_alike=0.7,
        tracked_similarity=0.75,
        tracked_margin=0.05,
        tracked_by_position=0.7,
    ),
    source=LimitsSource(kind="shipped"),
)
"""The record of the built-in face model."""

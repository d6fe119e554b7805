"""Define the messages of cross-camera tracking (seed 004)."""

from typing import Annotated

from pydantic import Field, model_validator

from broker_bridge.contract.ids import SpaceId, UserId
from broker_bridge.contract.wire import ShortText, UpMessage, WireModel, WireTime, WireVector

from .fields import Liveness, Ratio, Version

Pixels = Annotated[int, Field(ge=0, lt=2**31)]

BoundingBox = Annotated[list[float], Field(min_length=4, max_length=4)]
"""`[x, y, width, height]` in pixels of the frame; a part of it may lie outside."""

MAX_FRAME_SIDE = 16_384
"""The largest box, in pixels, of an observation without a frame size."""


class Observation(UpMessage):
    """A face seen on one track, for the tracker (seed 004)."""

    track_id: ShortText
    bbox: BoundingBox
    frame_size: Annotated[list[Pixels], Field(min_length=2, max_length=2)] | None = None
    space: SpaceId
    quality: Ratio | None = None
    liveness: Liveness | None = None
    captured_at: WireTime
    vector: WireVector

    @model_validator(mode="after")
    def _check_box(self) -> "Observation":
        x, y, width, height = self.bbox
        if not (width > 0 and height > 0):
            raise ValueError("a bbox is [x, y, width, height] with a width and a height above 0")
        frame_width, frame_height = self.frame_size or (MAX_FRAME_SIDE, MAX_FRAME_SIDE)
        if width > frame_width or height > frame_height:
            raise ValueError(f"a bbox is no larger than its frame of {frame_width} x {frame_height} pixels")
        if not (-width < x < frame_width and -height < y < frame_height):
            raise ValueError("a bbox lies within its frame, if only with a part of it")
        return self


class Assignment(WireModel):
    """The tracker's answer: the detected person of a track, across all cameras.

    `similarity` is the mean cosine between the face and the stored faces of the detected person. None for a
    new detected person, and for an assignment that did not use the face alone.
    """

    track_id: ShortText
    global_id: Version
    user_id: UserId | None = None
    similarity: Annotated[float, Field(ge=-1, le=1)] | None = None

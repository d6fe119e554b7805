"""Define the messages of recognition events and their receipts (seed 003)."""

from typing import Annotated

from pydantic import Field, model_validator

from broker_bridge.contract.ids import DeviceId, EmotionCode, EventId, EventType, UserId
from broker_bridge.contract.wire import OpenDocument, UpMessage, WireModel, WireTime

from .fields import Code, Ratio, Sentence


class Event(UpMessage):
    """A validated recognition, key `(device_id, event_id)`.

    `wire.decode_image` decodes `image`.
    """

    event_id: EventId
    device_id: DeviceId
    user_id: UserId | None = None
    event_type: EventType
    emotion_code: EmotionCode | None = None
    timestamp: WireTime
    confidence: Ratio
    metadata: OpenDocument = Field(default_factory=dict)
    # Last, so that the line of a message shows what it says before some kilobytes of base64.
    image: str | None = None

    @model_validator(mode="after")
    def _check_fields_of_type(self) -> "Event":
        if (self.user_id is None) != (self.event_type == "unknown"):
            raise ValueError("every event names a user_id, except `unknown`, which has none")
        if (self.emotion_code is None) == (self.event_type == "emotion"):
            raise ValueError("an `emotion` event names its emotion_code, no other event does")
        return self


class Rejection(WireModel):
    event_id: Annotated[str, Field(max_length=128)]
    code: Code
    detail: Sentence


class Receipts(WireModel):
    """The bridge's answer to events.

    `stored` settles an event, also a repeated one; a `rejected` event will never be stored.
    """

    stored: list[EventId] = Field(default_factory=list)
    rejected: list[Rejection] = Field(default_factory=list)

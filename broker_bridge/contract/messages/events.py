"""Define the messages of recognition events and their receipts (seed 003)."""

from typing import Annotated

from pydantic import AfterValidator, Field, JsonValue, ValidationError, model_validator

from broker_bridge.contract.ids import DeviceId, EmotionCode, EventId, EventType, UserId
from broker_bridge.contract.wire import OpenDocument, UpMessage, WireModel, WireTime

from .fields import Code, Liveness, Ratio, Sentence


def _check_metadata(metadata: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Check the keys that the contract defines; the others are free."""
    if metadata.get("liveness") is not None:
        try:
            Liveness.model_validate(metadata["liveness"])
        except ValidationError as error:
            raise ValueError(
                "liveness is an object of a `score`, a number from 0 to 1, and a `method` of 1 to 32 "
                "characters of a-z 0-9 _ -"
            ) from error
    return metadata


_METADATA_PROPERTIES = {"liveness": {"anyOf": [Liveness.model_json_schema(), {"type": "null"}]}}
Metadata = Annotated[
    OpenDocument,
    AfterValidator(_check_metadata),
    Field(json_schema_extra={"properties": _METADATA_PROPERTIES}),
]
"""The metadata of an event: an open document, in which `liveness` is that of the contract."""


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
    metadata: Metadata = Field(default_factory=dict)
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

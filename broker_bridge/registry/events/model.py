"""Define the values of events.

They are incoming events, recorded events, and the result of a batch.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

from broker_bridge.contract.messages import Event, Rejection
from broker_bridge.contract.wire import format_time
from broker_bridge.registry.mongo.client import Document


@dataclass(slots=True)
class IncomingEvent:
    """An event to record, with the site of its device."""

    event: Event
    site_id: str | None
    received_at: datetime
    key: str = field(init=False)
    """`<device_id>/<event_id>`, the unique key. Neither id has a slash."""

    def __post_init__(self) -> None:
        self.key = f"{self.event.device_id}/{self.event.event_id}"


@dataclass(frozen=True)
class RecordedEvents:
    """The result of recording a batch.

    It has keys stored (now or before), rejections by place in the batch, and the number of repeats.
    """

    stored: frozenset[str]
    rejected: Mapping[int, Rejection]
    repeats: int = 0


@dataclass(frozen=True)
class EventRecord:
    """A recorded event without its image.

    The fields stand in the order of the JSON that REST answers.
    """

    device_id: str
    event_id: str
    site_id: str | None
    user_id: str | None
    event_type: str
    timestamp: datetime
    received_at: datetime
    confidence: float
    metadata: Mapping[str, Any]
    has_image: bool
    emotion_code: str | None = None
    image_error: str | None = None

    @property
    def key(self) -> str:
        """The key of the event; see IncomingEvent.key."""
        return f"{self.device_id}/{self.event_id}"

    def to_wire(self, image: bytes | None = None) -> dict[str, Any]:
        """Return the event's payload with its site and time of receipt.

        Absent fields are left out.

        `image` is added in base64.
        """
        wire = {name: value for name in _NAMES if (value := getattr(self, name)) is not None}
        wire["timestamp"] = format_time(self.timestamp)
        wire["received_at"] = format_time(self.received_at)
        if image is not None:
            wire["image"] = base64.b64encode(image).decode("ascii")
        return wire


_NAMES = tuple(each.name for each in fields(EventRecord))


def to_event_record(found: Document) -> EventRecord:
    """Return the record of a document of the collection `events`."""
    return EventRecord(**{name: found[name] for name in _NAMES if name in found})

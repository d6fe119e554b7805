"""Encode incoming events as documents, each by itself.

One that BSON cannot encode must not stop its batch.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

import bson
from bson.binary import Binary
from bson.errors import BSONError
from bson.int64 import Int64
from bson.raw_bson import RawBSONDocument

from broker_bridge.contract.errors import EVENT_INVALID, IMAGE_INVALID, ContractError
from broker_bridge.contract.messages import Event, Rejection
from broker_bridge.contract.wire import decode_image
from broker_bridge.registry.mongo.client import Document

from .model import IncomingEvent
from .positions import POSITION

_NO_POSITION = Int64(0)
# An int64 and the end of the document.
_POSITION_BYTES = 8 + 1


@dataclass
class EncodedBatch:
    """Encoded events and images by key, and rejections by place in the batch.

    `documents` are BSON; `with_position` completes them. `events` has their events by key: the first one of
    each key in the batch.
    """

    events: dict[str, Event] = field(default_factory=dict)
    documents: dict[str, bytes] = field(default_factory=dict)
    images: dict[str, RawBSONDocument] = field(default_factory=dict)
    rejected: dict[int, Rejection] = field(default_factory=dict)


def encode_batch(batch: Sequence[IncomingEvent]) -> EncodedBatch:
    """Return each event encoded by itself, or its rejection; a repeated key once."""
    encoded = EncodedBatch()
    for place, item in enumerate(batch):
        if item.key in encoded.documents:
            continue
        image, image_error = _image_of(item.event)
        try:
            encoded.documents[item.key] = bson.encode(_document(item, image is not None, image_error))
            encoded.events[item.key] = item.event
        except (BSONError, OverflowError, ValueError) as error:
            detail = f"the event cannot be stored: {error}"[:1000]
            encoded.rejected[place] = Rejection(
                event_id=item.event.event_id, code=EVENT_INVALID, detail=detail
            )
            continue
        if image is not None:
            document = {"_id": item.key, "jpeg": Binary(image), "stored_at": item.received_at}
            encoded.images[item.key] = RawBSONDocument(bson.encode(document))
    return encoded


def with_position(encoded: bytes, position: int) -> RawBSONDocument:
    """Return an encoded event with its position, which is its last field.

    The position is known only in the transaction, which may be repeated; the event is encoded once.
    """
    return RawBSONDocument(encoded[:-_POSITION_BYTES] + struct.pack("<q", position) + b"\0")


def _image_of(event: Event) -> tuple[bytes | None, str | None]:
    """Return the JPEG, or the error code of an invalid one.

    The event itself is recorded all the same.
    """
    if event.image is None:
        return None, None
    try:
        return decode_image(event.image), None
    except ContractError:
        return None, IMAGE_INVALID


def _document(item: IncomingEvent, has_image: bool, image_error: str | None) -> Document:
    event = item.event
    document: Document = {
        "_id": item.key,
        "device_id": event.device_id,
        "event_id": event.event_id,
        "site_id": item.site_id,
        "user_id": event.user_id,
        "event_type": event.event_type,
        "timestamp": event.timestamp,
        "received_at": item.received_at,
        "confidence": event.confidence,
        "metadata": event.metadata,
        "has_image": has_image,
    }
    if event.emotion_code:
        document["emotion_code"] = event.emotion_code
    if image_error:
        document["image_error"] = image_error
    document[POSITION] = _NO_POSITION
    return document

"""Encode incoming events as documents, each by itself.

One that BSON cannot encode must not stop its batch.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

import bson
from bson.binary import Binary
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument

from broker_bridge.contract.errors import EVENT_INVALID, IMAGE_INVALID, ContractError
from broker_bridge.contract.messages import Event, Rejection
from broker_bridge.contract.wire import decode_image
from broker_bridge.registry.mongo.client import Document

from .model import IncomingEvent
from .positions import POSITION


@dataclass
class EncodedBatch:
    """Encoded events and images by key, and rejections by place in the batch.

    `events` has the events of `documents` by key: the first one of each key in the batch.
    """

    events: dict[str, Event] = field(default_factory=dict)
    documents: dict[str, RawBSONDocument] = field(default_factory=dict)
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
            encoded.documents[item.key] = _encode(_document(item, image is not None, image_error))
            encoded.events[item.key] = item.event
        except (BSONError, OverflowError, ValueError) as error:
            detail = f"the event cannot be stored: {error}"[:1000]
            encoded.rejected[place] = Rejection(
                event_id=item.event.event_id, code=EVENT_INVALID, detail=detail
            )
            continue
        if image is not None:
            document = {"_id": item.key, "jpeg": Binary(image), "stored_at": item.received_at}
            encoded.images[item.key] = _encode(document)
    return encoded


def _encode(document: Document) -> RawBSONDocument:
    return RawBSONDocument(bson.encode(document, check_keys=False))


def with_position(document: RawBSONDocument, position: int) -> RawBSONDocument:
    """Return an encoded event with its position as its last field.

    The position is known only in the transaction, which may be repeated; the rest is encoded once.
    """
    element = b"\x12" + POSITION.encode() + b"\0" + struct.pack("<q", position)
    body = bytes(document.raw)[4:-1] + element + b"\0"
    return RawBSONDocument(struct.pack("<i", 4 + len(body)) + body)


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
    return document

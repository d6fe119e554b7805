"""Encode incoming events as documents, each by itself.

One that BSON cannot encode must not stop its batch.
"""

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


@dataclass
class EncodedBatch:
    """Encoded events, encoded images, and rejections, each by the key of the event."""

    documents: dict[str, RawBSONDocument] = field(default_factory=dict)
    images: dict[str, RawBSONDocument] = field(default_factory=dict)
    rejected: dict[str, Rejection] = field(default_factory=dict)


def encode_batch(batch: Sequence[IncomingEvent]) -> EncodedBatch:
    """Return each event encoded by itself, or its rejection."""
    encoded = EncodedBatch()
    for item in batch:
        image, image_error = _image_of(item.event)
        try:
            encoded.documents[item.key] = _encode(_document(item, image is not None, image_error))
        except (BSONError, OverflowError, ValueError) as error:
            detail = f"the event cannot be stored: {error}"[:1000]
            encoded.rejected[item.key] = Rejection(
                event_id=item.event.event_id, code=EVENT_INVALID, detail=detail
            )
            continue
        if image is not None:
            document = {"_id": item.key, "jpeg": Binary(image), "stored_at": item.received_at}
            encoded.images[item.key] = _encode(document)
    return encoded


def _encode(document: Document) -> RawBSONDocument:
    return RawBSONDocument(bson.encode(document, check_keys=False))


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

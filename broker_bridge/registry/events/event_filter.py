"""Criteria for a list of events, and their MongoDB query."""

from dataclasses import dataclass
from datetime import datetime

from broker_bridge.registry.mongo.client import Document

from .admission import MAX_AHEAD


@dataclass(frozen=True)
class EventFilter:
    """Filter for a page of events; `None` disables a criterion.

    `since` and `until` (exclusive) bound the time of recognition by the device's clock, `received_after`
    (exclusive) the time of receipt by the backend's.
    """

    user_id: str | None = None
    device_id: str | None = None
    event_type: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    received_after: datetime | None = None

    def to_query(self) -> Document:
        """Return the MongoDB query.

        `since` also bounds the time of receipt, which has the index.
        """
        ids = {"user_id": self.user_id, "device_id": self.device_id, "event_type": self.event_type}
        query: Document = {key: value for key, value in ids.items() if value is not None}
        period: dict[str, datetime] = {}
        receipt: dict[str, datetime] = {}
        if self.since is not None:
            period["$gte"] = self.since
            receipt["$gte"] = self.since - MAX_AHEAD
        if self.received_after is not None:
            receipt["$gt"] = self.received_after
        if self.until is not None:
            period["$lt"] = self.until
        if receipt:
            query["received_at"] = receipt
        return query | ({"timestamp": period} if period else {})

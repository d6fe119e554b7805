"""Turn reports of devices into updates of their documents."""

from dataclasses import dataclass
from datetime import datetime

import bson
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument
from pymongo import UpdateOne

from broker_bridge.contract.errors import PAYLOAD_INVALID, ContractError
from broker_bridge.registry.mongo.client import Document


@dataclass(frozen=True)
class DeviceReport:
    """One report of a device, as an update of its document."""

    update: UpdateOne

    @classmethod
    def status(
        cls, device_id: str, state: str, session: str, at: datetime, received_at: datetime
    ) -> "DeviceReport":
        """Return the update for a status.

        One of an older session than the recorded one changes nothing.
        """
        number = int(session, 16) & (2**63 - 1)
        change = {
            "status": {"state": state, "session": session, "at": at, "received_at": received_at},
            "session_number": number,
        }
        newest = {"$or": [{"session_number": {"$lte": number}}, {"session_number": {"$exists": False}}]}
        return cls(UpdateOne({"_id": device_id} | newest, {"$set": change}))

    @classmethod
    def latest(cls, device_id: str, kind: str, fields: Document, received_at: datetime) -> "DeviceReport":
        """Return the update that replaces the last report of a kind.

        The kinds are `info`, `heartbeat`, `applied` and `reported`.

        Raises ContractError(`payload-invalid`) for `fields` that BSON cannot encode: in a batch they would
        stop the other reports.
        """
        try:
            document = RawBSONDocument(bson.encode({**fields, "received_at": received_at}))
        except (BSONError, OverflowError, ValueError) as error:
            raise ContractError(PAYLOAD_INVALID, f"the {kind} cannot be encoded as BSON") from error
        return cls(UpdateOne({"_id": device_id}, {"$set": {kind: document, "last_seen": received_at}}))

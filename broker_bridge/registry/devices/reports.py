"""Turn reports of devices into updates of their documents."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import bson
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument
from pymongo import UpdateOne

from broker_bridge.contract.errors import PAYLOAD_INVALID, ContractError
from broker_bridge.registry.mongo.client import Document

# The number of sessions of a device that are remembered, to know a repeated `online`.
_MAX_SESSIONS = 32
# A write of a bridge that has just ceased to lead may arrive after one of its successor.
_OVERTAKES_WITHIN = timedelta(seconds=60)


@dataclass(frozen=True)
class DeviceReport:
    """One report of a device, as an update of its document."""

    update: UpdateOne

    @classmethod
    def status(
        cls,
        device_id: str,
        state: str,
        session: str,
        at: datetime,
        received_at: datetime,
        *,
        stored: bool = False,
    ) -> "DeviceReport":
        """Return the update for a status.

        Sessions are told apart by their id and ordered by the arrival of their first `online`, never by
        number or by the device's clock: a new disk or a dead clock battery sets both back. An `online` begins
        a session unless it was recorded before: the same number at another time `at` is another session. An
        end (`stopped` or `lost`) counts for the current session only, so that a late last will of an
        older one changes nothing.

        `stored`: the broker kept the status from before the subscription. Then the end of an unknown session
        counts too: that session began while no bridge was connected.
        """
        status = {"state": state, "session": session, "at": at, "received_at": received_at}
        known = {"sessions": {"$elemMatch": {"session": session, "at": at}}}
        is_current = {"status.session": session, "status.state": "online"}
        begun: Document = {"sessions": {"$each": [{"session": session, "at": at}], "$slice": -_MAX_SESSIONS}}
        change: Document = {"$set": {"status": status}, "$unset": {"session_number": 1}}
        if state == "online":
            query: Document = {"$nor": [known, is_current]}
            return cls(UpdateOne(_known(device_id) | query, change | {"$push": begun}))
        ends: list[Document] = [{"status": {"$exists": False}}, is_current]
        if stored:
            ends.append({"sessions.session": {"$ne": session}, "status.session": {"$ne": session}})
        return cls(UpdateOne(_known(device_id) | {"$or": ends}, change))

    @classmethod
    def heartbeat_session(
        cls, device_id: str, session: str, at: datetime, received_at: datetime
    ) -> "DeviceReport":
        """Return the update for the session of a heartbeat.

        A heartbeat shows that its session is alive. It repairs a status that was missed, that a late last
        will has replaced in the broker, or that was deleted when the device was decommissioned. The session
        of a heartbeat is the current one or a new one; an older one changes nothing.
        """
        status = {"state": "online", "session": session, "at": at, "received_at": received_at}
        query: Document = {
            "$or": [
                {"status": {"$exists": False}},
                {"status.session": session, "status.state": "lost"},
                {"status.session": {"$ne": session}, "sessions.session": {"$ne": session}},
            ],
        }
        begun: Document = {"sessions": {"$each": [{"session": session, "at": at}], "$slice": -_MAX_SESSIONS}}
        return cls(UpdateOne(_known(device_id) | query, {"$set": {"status": status}, "$push": begun}))

    @classmethod
    def duplicate(cls, device_id: str, addresses: Sequence[str], received_at: datetime) -> "DeviceReport":
        """Return the update that notes two devices with one id, at the known addresses."""
        change: Document = {"duplicate.at": received_at}
        if addresses:
            change["duplicate.addresses"] = list(addresses)
        return cls(UpdateOne(_known(device_id), {"$set": change}))

    @classmethod
    def latest(cls, device_id: str, kind: str, fields: Document, received_at: datetime) -> "DeviceReport":
        """Return the update that replaces the last report of a kind.

        The kinds are `info`, `heartbeat`, `applied` and `reported`. A report that was overtaken on its way
        changes nothing.

        Raises ContractError(`payload-invalid`) for `fields` that BSON cannot encode: in a batch they would
        stop the other reports.
        """
        try:
            document = RawBSONDocument(bson.encode({**fields, "received_at": received_at}))
        except (BSONError, OverflowError, ValueError) as error:
            raise ContractError(PAYLOAD_INVALID, f"the {kind} cannot be encoded as BSON") from error
        overtaken = _overtaken(kind, fields, received_at)
        query = _known(device_id) | {"$nor": overtaken}
        if kind == "applied":
            # A device that was moved and still has its old site in its settings confirms another gallery.
            of_its_site = {"$expr": {"$eq": ["$info.site_id", "$site_id"]}}
            query["$or"] = [{"site_id": None}, {"info.site_id": {"$exists": False}}, of_its_site]
        return cls(UpdateOne(query, {"$set": {kind: document, "last_seen": received_at}}))


def _known(device_id: str) -> Document:
    """Return the query for a device unless it is decommissioned."""
    return {"_id": device_id, "decommissioned_at": None}


def _overtaken(kind: str, fields: Document, received_at: datetime) -> list[Document]:
    """Return the conditions under which the recorded report is newer than this one.

    Within an epoch the versions decide, else the time of receipt. A recorded time far ahead is that of a
    bridge whose clock was wrong; it holds nothing up.
    """
    newer: Document = {f"{kind}.received_at": {"$gt": received_at, "$lt": received_at + _OVERTAKES_WITHIN}}
    if kind != "applied":
        return [newer]
    epoch, version = fields.get("epoch"), fields.get("version")
    return [
        {"applied.epoch": epoch, "applied.version": {"$gt": version}},
        newer | {"$nor": [{"applied.epoch": epoch, "applied.version": {"$lt": version}}]},
    ]

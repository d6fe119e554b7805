"""Store commands for devices and their results."""

from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from operator import itemgetter
from typing import Any, Literal

from broker_bridge.contract.commands import OPEN_STATES, UNANSWERED_STATES, CommandAnswer, CommandState
from broker_bridge.registry.audit import Audit, AuditEntry
from broker_bridge.registry.mongo.client import Document, Mongo
from broker_bridge.registry.mongo.paging import newest_first


@dataclass(frozen=True)
class CommandRecord:
    """A command for a device and its state. The command's name defines `args`."""

    command_id: str
    device_id: str
    name: str
    args: Document
    created_at: datetime
    expires_at: datetime
    requested_by: str
    state: CommandState = "waiting"
    detail: str | None = None
    sent_at: datetime | None = None
    answered_at: datetime | None = None


class CommandQueue:
    """Collection `commands`; a document expires after 90 days, its audit entry stays."""

    def __init__(self, mongo: Mongo, audit: Audit) -> None:
        self._mongo = mongo
        self._commands = mongo.db.commands
        self._audit = audit

    async def enqueue(self, command: CommandRecord) -> None:
        """Store a command with its audit entry; the leading bridge publishes it."""

        async def work(session: Any) -> None:
            document = asdict(command)
            await self._commands.insert_one({"_id": document.pop("command_id"), **document}, session=session)
            entry = AuditEntry(
                who=command.requested_by,
                what=f"command.{command.name}",
                subject=command.device_id,
                at=command.created_at,
                after={"command_id": command.command_id, "args": command.args},
            )
            await self._audit.record(entry, session)

        await self._mongo.transact(work)

    async def get(self, command_id: str) -> CommandRecord | None:
        """Return the command, or None."""
        found = await self._commands.find_one({"_id": command_id})
        return found and _to_record(found)

    async def page(
        self,
        *,
        device_id: str | None = None,
        before: tuple[datetime, str] | None = None,
        limit: int = 100,
    ) -> list[CommandRecord]:
        """Return up to `limit` commands (of one device), newest first.

        `before` is the creation time and id of the last command of the previous page.
        """
        query: Document = {"device_id": device_id} if device_id else {}
        commands = newest_first(self._commands, query, "created_at", before=before, limit=limit)
        return [_to_record(found) async for found in commands]

    def watch(self) -> AbstractAsyncContextManager[Any]:
        """Return a change stream of new commands."""
        return self._mongo.watch([{"$match": {"operationType": "insert"}}], "commands")

    async def list_open(self, now: datetime) -> dict[str, str]:
        """Return the device ids of open commands by command id, oldest first.

        Open commands have not expired and have no final answer.

        Arguments may be large, so they are loaded later, for the commands that can be published now.
        """
        query = {"state": {"$in": list(OPEN_STATES)}, "expires_at": {"$gt": now}}
        # A sort in the query would make MongoDB scan the time index over all 90 days.
        found = [document async for document in self._commands.find(query, {"device_id": 1, "created_at": 1})]
        found.sort(key=itemgetter("created_at", "_id"))
        return {document["_id"]: document["device_id"] for document in found}

    async def expire(self, now: datetime) -> int:
        """Set unanswered commands past their expiry to `expired` and return their number."""
        closed = 0
        for state, detail in (
            ("waiting", "the device was not online in time"),
            ("sent", "the device did not answer in time"),
        ):
            change = {"$set": {"state": "expired", "detail": detail}}
            done = await self._commands.update_many({"state": state, "expires_at": {"$lte": now}}, change)
            closed += done.modified_count
        return closed

    async def mark_sent(self, command_id: str, at: datetime) -> None:
        """Record that a command was published."""
        await self._commands.update_one(
            {"_id": command_id, "state": "waiting"}, {"$set": {"state": "sent", "sent_at": at}}
        )

    async def record_result(
        self, command_id: str, device_id: str, state: CommandAnswer, detail: str | None, at: datetime
    ) -> Literal["noted", "repeated", "unknown"]:
        """Record a device's answer to its own command; the first final answer stands.

        A late final answer replaces the `expired` that `expire` wrote.
        """
        own = {"_id": command_id, "device_id": device_id}
        # A device that answers `expired` sets `answered_at`; `expire` does not.
        expired_here = {"state": "expired", "answered_at": None}
        before = UNANSWERED_STATES if state == "accepted" else OPEN_STATES
        updated = await self._commands.update_one(
            own | {"$or": [{"state": {"$in": list(before)}}, expired_here]},
            {"$set": {"state": state, "detail": detail, "answered_at": at}},
        )
        if updated.matched_count:
            return "noted"
        known = await self._commands.find_one(own, {"_id": 1})
        return "repeated" if known else "unknown"


def _to_record(found: Document) -> CommandRecord:
    names = {field.name for field in fields(CommandRecord)} - {"command_id"}
    return CommandRecord(command_id=found["_id"], **{name: found[name] for name in names})

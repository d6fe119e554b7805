"""Commands to devices and what became of each."""

from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from operator import itemgetter
from typing import Any, Literal

from broker_bridge.registry.audit import Audit, AuditEntry
from broker_bridge.registry.mongo.client import Document, Mongo
from broker_bridge.registry.mongo.paging import newest_first

Answer = Literal["accepted", "done", "failed", "expired", "unknown"]
"""What a device says of a command."""
State = Literal["waiting", "sent", "accepted", "done", "failed", "expired", "unknown"]
"""`waiting`: not published yet, as its device is away; `sent`: published, and not answered yet."""

_UNANSWERED = ["waiting", "sent"]
_OPEN = [*_UNANSWERED, "accepted"]


@dataclass(frozen=True)
class CommandRecord:
    """An order to a device. `args` is as the named command says."""

    command_id: str
    device_id: str
    name: str
    args: Document
    created_at: datetime
    expires_at: datetime
    requested_by: str
    state: State = "waiting"
    detail: str | None = None
    sent_at: datetime | None = None
    answered_at: datetime | None = None


class CommandQueue:
    """Collection `commands`; commands are forgotten 90 days after they were given (the audit keeps them)."""

    def __init__(self, mongo: Mongo, audit: Audit) -> None:
        self._mongo = mongo
        self._commands = mongo.db.commands
        self._audit = audit

    async def enqueue(self, command: CommandRecord) -> None:
        """Record a command with its audit entry; the bridge that leads sends it."""

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
        """The command, or None."""
        found = await self._commands.find_one({"_id": command_id})
        return found and _command(found)

    async def page(
        self,
        *,
        device_id: str | None = None,
        before: tuple[datetime, str] | None = None,
        limit: int = 100,
    ) -> list[CommandRecord]:
        """Up to `limit` commands (to one device), newest first, past the `before` cursor of time and id."""
        query: Document = {"device_id": device_id} if device_id else {}
        commands = newest_first(self._commands, query, "created_at", before=before, limit=limit)
        return [_command(found) async for found in commands]

    def watch(self) -> AbstractAsyncContextManager[Any]:
        """Return a change stream of new commands."""
        return self._mongo.watch([{"$match": {"ns.coll": "commands", "operationType": "insert"}}])

    async def list_open(self, now: datetime) -> dict[str, str]:
        """The device by command id, oldest first, where no final answer came and it is not too late for one.

        Not the commands: their arguments may be large, and are wanted of the few that can be sent now.
        """
        query = {"state": {"$in": _OPEN}, "expires_at": {"$gt": now}}
        # Sorted here: for MongoDB it would be a reason to go through all 90 days in order of time.
        found = [one async for one in self._commands.find(query, {"device_id": 1, "created_at": 1})]
        found.sort(key=itemgetter("created_at", "_id"))
        return {one["_id"]: one["device_id"] for one in found}

    async def expire(self, now: datetime) -> int:
        """Close unanswered commands whose time is over; how many there were."""
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
        """Note that a command was published."""
        await self._commands.update_one(
            {"_id": command_id, "state": "waiting"}, {"$set": {"state": "sent", "sent_at": at}}
        )

    async def record_result(
        self, command_id: str, device_id: str, state: Answer, detail: str | None, at: datetime
    ) -> Literal["noted", "repeated", "unknown"]:
        """Note what a device says of its own command; its first final word stands.

        That word also takes the place of `expired`, when it comes after we have given up.
        """
        ours = {"_id": command_id, "device_id": device_id}
        # Only what we wrote ourselves is `expired` without an answer.
        given_up = {"state": "expired", "answered_at": None}
        before = _UNANSWERED if state == "accepted" else _OPEN
        noted = await self._commands.update_one(
            ours | {"$or": [{"state": {"$in": before}}, given_up]},
            {"$set": {"state": state, "detail": detail, "answered_at": at}},
        )
        if noted.matched_count:
            return "noted"
        known = await self._commands.find_one(ours, {"_id": 1})
        return "repeated" if known else "unknown"


def _command(found: Document) -> CommandRecord:
    known = {one.name for one in fields(CommandRecord)} - {"command_id"}
    return CommandRecord(command_id=found["_id"], **{name: found[name] for name in known})

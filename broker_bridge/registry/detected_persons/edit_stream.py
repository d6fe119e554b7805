"""Watch what other programs change about detected persons."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from broker_bridge.registry.mongo.client import Document, Mongo

# The API writes these fields and the tracker reads them; the tracker itself writes `user_id` too.
_EDITED_FIELDS = ("merged_into", "user_id", "not_users")
_EDITS: Document = {
    "$or": [
        {"operationType": {"$in": ["delete", "drop", "rename", "invalidate"]}},
        *({f"updateDescription.updatedFields.{name}": {"$exists": True}} for name in _EDITED_FIELDS),
    ]
}


@dataclass(frozen=True)
class DetectedPersonEdit:
    """One change of a detected person; `collection-replaced` has no `global_id` and concerns all of them.

    `updated_fields` has the new value of each field that an update has set.
    """

    kind: Literal["deleted", "updated", "collection-replaced"]
    global_id: int = 0
    updated_fields: Mapping[str, Any] = field(default_factory=dict)


@asynccontextmanager
async def watch_edits(mongo: Mongo) -> AsyncIterator[AsyncIterator[DetectedPersonEdit]]:
    """Open a change stream of edits of detected persons. Raises RegistryError when it breaks."""
    async with mongo.watch([{"$match": _EDITS}], "persons") as stream:
        yield (_to_edit(change) async for change in stream)


def _to_edit(change: Document) -> DetectedPersonEdit:
    if change["operationType"] == "delete":
        return DetectedPersonEdit("deleted", change["documentKey"]["_id"])
    if change["operationType"] == "update":
        updated_fields = change["updateDescription"]["updatedFields"]
        return DetectedPersonEdit("updated", change["documentKey"]["_id"], updated_fields)
    return DetectedPersonEdit("collection-replaced")

"""Watch the edits of detected persons that concern the tracker."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

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
    """One edit of a detected person.

    `merged` has `merged_into`; `linked` has the new `user_id` (None: no link); `edited` is a change of the
    rejected links, with or without one of the link. `collection-replaced` concerns all persons and has no
    `global_id`.
    """

    kind: Literal["deleted", "merged", "unmerged", "linked", "edited", "collection-replaced"]
    global_id: int = 0
    merged_into: int = 0
    user_id: str | None = None


@asynccontextmanager
async def watch_edits(mongo: Mongo) -> AsyncIterator[AsyncIterator[DetectedPersonEdit]]:
    """Open a change stream of edits of detected persons.

    Raises RegistryError when it breaks.
    """
    async with mongo.watch([{"$match": _EDITS}], "persons") as stream:
        yield (_to_edit(change) async for change in stream)


def _to_edit(change: Document) -> DetectedPersonEdit:
    kind = change["operationType"]
    if kind not in ("delete", "update"):
        return DetectedPersonEdit("collection-replaced")
    global_id = change["documentKey"]["_id"]
    if kind == "delete":
        return DetectedPersonEdit("deleted", global_id)
    updated = change["updateDescription"]["updatedFields"]
    if "merged_into" in updated:
        into = updated["merged_into"]
        return DetectedPersonEdit("merged" if into else "unmerged", global_id, merged_into=into or 0)
    if "not_users" in updated:
        return DetectedPersonEdit("edited", global_id)
    return DetectedPersonEdit("linked", global_id, user_id=updated.get("user_id"))

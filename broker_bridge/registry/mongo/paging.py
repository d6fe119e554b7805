"""Page through a collection, newest first, after a cursor of time and id."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, TypeVar

from .client import Document

Key = TypeVar("Key", str, int)


def newest_first(
    collection: Any, query: Document, time_field: str, *, before: tuple[datetime, Key] | None, limit: int
) -> AsyncIterator[Document]:
    """Return the cursor over up to `limit` matches of `query`, newest first.

    They are ordered by `time_field`, then `_id`. `before` is the time and `_id` of the last document of the
    previous page. An index on `(time_field, _id)`, both descending, makes a page as cheap as its length.
    """
    if before:
        at, key = before
        # The first bound is implied by the others; the index is entered by it.
        older = {
            time_field: {"$lte": at},
            "$or": [{time_field: {"$lt": at}}, {time_field: at, "_id": {"$lt": key}}],
        }
        query = {"$and": [query, older]} if query else older
    matches: AsyncIterator[Document] = (
        collection.find(query).sort([(time_field, -1), ("_id", -1)]).limit(limit)
    )
    return matches

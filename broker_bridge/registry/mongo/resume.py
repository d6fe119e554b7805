"""Check whether a change stream can resume at a token that a client kept.

A token is the hex of a key that begins with the time of the change, so tokens compare as text.
"""

import re
import time
from collections.abc import AsyncIterator, Callable

from .change_stream import ChangeStream
from .client import Document, Mongo
from .errors import StreamEndedError

# Of a stream that is read up to a point: it need not wait for further changes.
BRIEF_WAIT_MS = 10
_ENDINGS = ("drop", "rename", "dropDatabase", "invalidate")
_CHECK_SECONDS = 20.0
# Tokens of several programs: an idle MongoDB advances its clock every ten seconds.
_AHEAD_SECONDS = 60
_TIMED = re.compile(r"82([0-9A-F]{8})")


async def check_unbroken(
    mongo: Mongo, collection: str, after: str, until: str, clock: Callable[[], float] = time.monotonic
) -> None:
    """Check that `collection` was not replaced between `after` and `until`.

    A stream that resumes before a drop or a rename would begin well and end at it. Raises StreamEndedError,
    also for a token of the future and after 20 s, and any RegistryError of a token that the server rejects.
    """
    if _seconds(after) > _seconds(until) + _AHEAD_SECONDS:
        raise StreamEndedError("the resume token is of a later time than the newest change")
    pipeline = [{"$match": {"operationType": {"$in": list(_ENDINGS)}}}]
    options = {"resume_after": {"_data": after}, "max_await_time_ms": BRIEF_WAIT_MS}
    give_up = clock() + _CHECK_SECONDS
    async with mongo.watch(pipeline, collection, **options) as stream:
        async for change in changes_until(stream, until):
            if change is not None:
                raise StreamEndedError(f"{collection} was dropped, renamed or replaced after the token")
            if clock() > give_up:
                raise StreamEndedError("the resume token is too old to be checked in time")


async def changes_until(stream: ChangeStream, until: str) -> AsyncIterator[Document | None]:
    """Yield changes up to the token `until`, and None for each answer without one.

    A stream may stand below `until` while it has everything: by the time of the newest write in MongoDB, and
    below the newest event. An answer without progress therefore ends it too.
    """
    while (token := stream.resume_token["_data"]) < until:
        change = await stream.try_next()
        yield change
        if change is None and stream.resume_token["_data"] == token:
            return


def _seconds(token: str) -> int:
    """Return the time of a token in seconds since 1970, 0 for one that has none."""
    found = _TIMED.match(token)
    return int(found[1], 16) if found else 0

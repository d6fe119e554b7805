"""Decide what a delta or a head means for the gallery.

The functions are pure; their input is the gallery's cursor.
"""

from collections.abc import Mapping
from enum import Enum

from broker_bridge.contract.messages import SpaceDigest, SpaceHead, SyncDelta, SyncHead
from device.store.cursor import SyncCursor

_EMPTY_SPACE = SpaceHead(count=0, digest="0" * 16)


class DeltaDecision(Enum):
    APPLY = "apply"
    IGNORE = "ignore"
    REQUEST = "request"


class HeadDecision(Enum):
    CURRENT = "current"
    REQUEST = "request"
    DRIFT = "drift"


def decide_on_delta(cursor: SyncCursor, delta: SyncDelta, *, with_names: bool = False) -> DeltaDecision:
    """Return APPLY if the delta has everything that the device lacks.

    This is all of `(prev_version, version]`. A device that keeps names (`with_names`) requests a page
    instead: only pages carry names.
    """
    if delta.epoch != cursor.epoch:
        return DeltaDecision.REQUEST
    if delta.version <= cursor.version:
        return DeltaDecision.IGNORE
    if with_names and delta.upserts:
        return DeltaDecision.REQUEST
    return DeltaDecision.APPLY if delta.prev_version <= cursor.version else DeltaDecision.REQUEST


def decide_on_head(cursor: SyncCursor, digests: Mapping[str, SpaceDigest], head: SyncHead) -> HeadDecision:
    """Return DRIFT if the version is the head's and the templates are not.

    `digests` has one entry per space of the device; other spaces of the head do not count.
    """
    if head.epoch != cursor.epoch or head.version != cursor.version:
        return HeadDecision.REQUEST
    wanted = {space: head.spaces.get(space, _EMPTY_SPACE) for space in digests}
    is_same = all(
        (wanted[space].count, wanted[space].digest) == (digest.count, digest.digest)
        for space, digest in digests.items()
    )
    return HeadDecision.CURRENT if is_same else HeadDecision.DRIFT

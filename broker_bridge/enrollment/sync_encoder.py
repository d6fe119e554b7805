"""Encode identity changes for pages and deltas, byte for byte as the models do."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pydantic_core import to_json

from broker_bridge.contract.identity_json import encode_removal, encode_upsert
from broker_bridge.contract.wire import WireModel
from broker_bridge.registry.identities.model import IdentityDelta

# A page or a delta beside its entries takes less than this.
_FRAME_BYTES = 512


class EncodedMessage(WireModel):
    """A SyncPage or SyncDelta that is JSON already."""

    payload: bytes

    def to_json(self) -> bytes:
        return self.payload


class SyncEntry(NamedTuple):
    """One change of a site as JSON: an Upsert, or a Removal with `is_removal`.

    A tuple, since a cold sync makes 100,000 of them: a frozen dataclass takes three times as long.
    """

    version: int
    payload: bytes
    is_removal: bool


def encode_entry(delta: IdentityDelta, site_id: str, *, with_names: bool) -> SyncEntry:
    """Return an Upsert if the identity belongs to the site, else a Removal."""
    identity = delta.identity
    if not identity.belongs_to(site_id):
        return SyncEntry(
            identity.version, encode_removal(identity.user_id, identity.version), is_removal=True
        )
    upsert = encode_upsert(
        identity.user_id,
        identity.version,
        flag=identity.flag,
        display_name=identity.display_name if with_names else None,
        templates=delta.templates,
    )
    return SyncEntry(identity.version, upsert, False)


def group_entries(
    entries: Sequence[SyncEntry], max_bytes: int, limit: int | None = None
) -> Iterator[Sequence[SyncEntry]]:
    """Yield runs of at most `limit` entries whose message has at most `max_bytes`.

    An entry that is larger than `max_bytes` stands alone. The last run may be empty, if `entries` is.
    """
    start, size = 0, _FRAME_BYTES
    for position, entry in enumerate(entries):
        own = len(entry.payload) + 1
        is_full = size + own > max_bytes or position - start == limit
        if position > start and is_full:
            yield entries[start:position]
            start, size = position, _FRAME_BYTES
        size += own
    yield entries[start:]


def encode_entries(entries: Sequence[SyncEntry]) -> bytes:
    """Return the JSON fields `removals` and `upserts` of a message."""
    upserts = b",".join(entry.payload for entry in entries if not entry.is_removal)
    removals = b",".join(entry.payload for entry in entries if entry.is_removal)
    return b'"removals":[' + removals + b'],"upserts":[' + upserts + b"]"


def encode_delta(epoch: str, prev_version: int, entries: Sequence[SyncEntry]) -> EncodedMessage:
    """Return a SyncDelta from `prev_version` to the version of the last of `entries`."""
    frame = {"epoch": epoch, "prev_version": prev_version, "version": entries[-1].version}
    return EncodedMessage(payload=to_json(frame)[:-1] + b"," + encode_entries(entries) + b"}")

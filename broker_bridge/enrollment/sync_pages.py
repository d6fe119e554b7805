"""Cut the changes of a site into encoded sync pages that devices share.

A page is the same for every device of a site at the same position, except for its request id.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from pydantic_core import to_json

from broker_bridge.contract.wire import MAX_PAGE_BYTES, format_time
from broker_bridge.registry.identities.model import DeltaPage
from broker_bridge.registry.mongo.versions import History

from .sync_encoder import EncodedMessage, encode_entries, encode_entry, group_entries

_STARTS = 0


@dataclass(frozen=True)
class PagePosition:
    """The position of a device in the history of its site.

    `reset_head` is None outside of a snapshot sync, 0 at its start, then the head of its first page: two
    snapshot syncs that started at different heads need different tombstones.
    """

    site_id: str
    spaces: tuple[str, ...]
    limit: int
    with_names: bool
    since: int
    reset_head: int | None

    @classmethod
    def start(cls, site_id: str, spaces: Sequence[str], limit: int, *, with_names: bool) -> "PagePosition":
        """Return the position at which a snapshot sync starts."""
        return cls(site_id, tuple(spaces), limit, with_names, 0, _STARTS)

    @property
    def starts_snapshot(self) -> bool:
        """Return whether a snapshot sync starts here."""
        return self.reset_head == _STARTS

    def after(self, version: int, head_version: int) -> "PagePosition":
        """Return the position of the device after it has applied `version`."""
        return replace(
            self, since=version, reset_head=head_version if self.starts_snapshot else self.reset_head
        )


@dataclass(frozen=True)
class PageContent:
    """A page without its request id.

    `entries` is the JSON of its `upserts` and `removals`. `block_end` is the version after which the next
    block begins, None at the head.
    """

    history: History
    from_version: int
    to_version: int
    head_version: int
    reset: bool
    done: bool
    entries: bytes
    block_end: int | None


def cut_pages(
    position: PagePosition, block: DeltaPage, max_bytes: int = MAX_PAGE_BYTES
) -> Iterator[PageContent]:
    """Yield the pages of a block, each within `max_bytes` or with one identity."""
    encoded = [
        encode_entry(delta, position.site_id, with_names=position.with_names) for delta in block.deltas
    ]
    from_version, remaining = position.since, len(encoded)
    for entries in group_entries(encoded, max_bytes, position.limit):
        remaining -= len(entries)
        is_last = not remaining
        to_version = block.to_version if is_last else entries[-1].version
        yield PageContent(
            history=block.history,
            from_version=from_version,
            to_version=to_version,
            head_version=block.head_version,
            reset=position.starts_snapshot and from_version == 0,
            done=is_last and block.done,
            entries=encode_entries(entries),
            block_end=None if block.done else block.to_version,
        )
        from_version = to_version


def encode_page(
    page: PageContent, request_id: str, at: datetime | None = None, *, more: bool = False
) -> EncodedMessage:
    """Return the page as the SyncPage that answers a request at `at`.

    A page that follows another one has no `at`.
    """
    frame = {
        "request_id": request_id,
        "epoch": page.history.epoch,
        "from_version": page.from_version,
        "to_version": page.to_version,
        "head_version": page.head_version,
        "reset": page.reset,
        "done": page.done,
        **({"more": True} if more else {}),
        **({"at": format_time(at)} if at else {}),
    }
    return EncodedMessage(payload=to_json(frame)[:-1] + b"," + page.entries + b"}")

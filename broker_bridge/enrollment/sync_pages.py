"""Pages of enrollment sync, encoded ahead: read in blocks, kept while nothing changes, shared by devices.

A page says the same to every device of a site that stands at the same place, but for its request id. So a
fleet that starts over costs one reading, and a device that asks for the next page finds it encoded.
"""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic_core import to_json

from broker_bridge.contract.embeddings import to_base64
from broker_bridge.contract.wire import MAX_PAGE_BYTES, WireModel
from broker_bridge.registry import RegistryError
from broker_bridge.registry.identities.model import DeltaPage, IdentityDelta
from broker_bridge.registry.mongo.versions import History
from broker_bridge.registry.sync.changes import DeltaQueries
from broker_bridge.tasks import cancel_and_wait

# A block is at most so many people and about so many bytes: a dozen pages, some 20 ms of reading.
_BLOCK_PEOPLE = 1000
_BLOCK_BYTES = 3 * 1024 * 1024
_MOST_KEPT_BYTES = 32 * 1024 * 1024
_MOST_READ_AHEAD = 2
# What a page has beside its people.
_FRAME_BYTES = 512
_STARTS = 0
# Nobody has asked for so long: no faces are kept for nothing.
_KEPT_SECONDS = 20.0


@dataclass(frozen=True)
class PagePosition:
    """Where a device stands. `reset_head` is None outside of a reset, 0 where one begins, then the head that
    its first page had: two resets that began at different heads have to hear of different tombstones."""

    site_id: str
    spaces: tuple[str, ...]
    limit: int
    with_names: bool
    since: int
    reset_head: int | None

    @classmethod
    def start(cls, site_id: str, spaces: Sequence[str], limit: int, *, with_names: bool) -> "PagePosition":
        return cls(site_id, tuple(spaces), limit, with_names, 0, _STARTS)

    @property
    def begins(self) -> bool:
        return self.reset_head == _STARTS

    def after(self, version: int, head_version: int) -> "PagePosition":
        """Where whoever was here stands once it is told all up to `version`."""
        return replace(self, since=version, reset_head=head_version if self.begins else self.reset_head)


@dataclass(frozen=True)
class PageContent:
    """All that is told of `(from_version, to_version]`; `told` is JSON of its `upserts` and `removals`.

    `block_ends` is where the next block begins, None at the head.
    """

    history: History
    from_version: int
    to_version: int
    head_version: int
    reset: bool
    done: bool
    told: bytes
    block_ends: int | None


class EncodedPage(WireModel):
    """A SyncPage that is JSON already."""

    payload: bytes

    def to_json(self) -> bytes:
        return self.payload


def answer(page: PageContent, request_id: str) -> EncodedPage:
    """The page as the answer to a request: byte for byte the JSON of a SyncPage."""
    frame = {
        "request_id": request_id,
        "epoch": page.history.epoch,
        "from_version": page.from_version,
        "to_version": page.to_version,
        "head_version": page.head_version,
        "reset": page.reset,
    }
    done = b"true" if page.done else b"false"
    return EncodedPage(payload=to_json(frame)[:-1] + b"," + page.told + b',"done":' + done + b"}")


def encode(change: IdentityDelta, site_id: str, *, with_names: bool) -> tuple[bytes | None, bytes | None]:
    """A change as a site hears of it, as JSON: an upsert of who belongs, or a removal of who does not."""
    person = change.identity
    told: dict[str, Any] = {"user_id": person.user_id, "version": person.version}
    if not person.belongs_to(site_id):
        return None, to_json(told)
    if person.flag is not None:
        told["flag"] = person.flag
    if with_names and person.display_name is not None:
        told["display_name"] = person.display_name
    templates = []
    for one in change.templates:
        template = {
            "template_id": one.template_id,
            "space": one.space,
            "vector": to_base64(one.vector),
            "quality": one.quality,
        }
        if one.quality is None:
            del template["quality"]
        templates.append(template)
    told["templates"] = templates
    return to_json(told), None


def cut_pages(
    place: PagePosition, changes: DeltaPage, max_bytes: int = MAX_PAGE_BYTES
) -> Iterator[PageContent]:
    """The pages of one reading, each within `max_bytes` unless a single person takes more."""
    encoded = [encode(one, place.site_id, with_names=place.with_names) for one in changes.deltas]
    begins, size, since = 0, _FRAME_BYTES, place.since

    def page(ends: int, last: bool) -> PageContent:
        upserts = b",".join(upsert for upsert, _ in encoded[begins:ends] if upsert is not None)
        removals = b",".join(removal for _, removal in encoded[begins:ends] if removal is not None)
        return PageContent(
            history=changes.history,
            from_version=since,
            to_version=changes.to_version if last else changes.deltas[ends - 1].identity.version,
            head_version=changes.head_version,
            reset=place.begins and since == 0,
            done=last and changes.done,
            told=b'"upserts":[' + upserts + b'],"removals":[' + removals + b"]",
            block_ends=None if changes.done else changes.to_version,
        )

    for number, (upsert, removal) in enumerate(encoded):
        own = len(upsert or removal or b"") + 1
        if number > begins and (size + own > max_bytes or number - begins >= place.limit):
            cut = page(number, last=False)
            yield cut
            begins, size, since = number, _FRAME_BYTES, cut.to_version
        size += own
    yield page(len(encoded), last=True)


class SyncPages:
    """Pages by place. `counters` has `blocks_read`, `pages_found` and `read_ahead_failed`."""

    def __init__(
        self, changes: DeltaQueries, counters: Counter[str], *, kept_seconds: float = _KEPT_SECONDS
    ) -> None:
        self._changes = changes
        self._counters = counters
        self._kept_seconds = kept_seconds
        self._history: History | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._kept: OrderedDict[PagePosition, PageContent] = OrderedDict()
        self._kept_bytes = 0
        self._reading: dict[PagePosition, asyncio.Task[PageContent]] = {}
        self._ahead: set[asyncio.Task[None]] = set()

    async def find(self, place: PagePosition, history: History) -> PageContent:
        """What a device at `place` is told, at `history` or later. Raises RegistryError."""
        if history != self._history:
            # Somebody has changed or gone: what was kept may still show them.
            self._forget()
            self._history = history
        self._keep_a_while()
        if self.keeps(place, history):
            page = self._kept[place]
            self._kept.move_to_end(place)
            self._counters["pages_found"] += 1
        else:
            page = await self._read_once(place)
        if page.block_ends is not None:
            self._read_ahead(place.after(page.block_ends, page.head_version), page.history)
        return page

    def keeps(self, place: PagePosition, history: History) -> bool:
        """Whether what a device at `place` is told, at `history`, is at hand."""
        page = self._kept.get(place)
        return page is not None and page.history == history

    async def close(self) -> None:
        """End what is being read."""
        self._forget()
        await cancel_and_wait([*self._ahead, *self._reading.values()])

    def _forget(self) -> None:
        self._kept.clear()
        self._kept_bytes = 0
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None

    def _keep_a_while(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        self._expiry = asyncio.get_running_loop().call_later(self._kept_seconds, self._forget)

    async def _read_once(self, place: PagePosition) -> PageContent:
        """However many devices stand at `place`, one reading serves those who come while it lasts."""
        task = self._reading.get(place)
        if task is None:
            task = self._reading[place] = asyncio.create_task(self._read(place))
            task.add_done_callback(lambda _: self._reading.pop(place, None))
        return await asyncio.shield(task)

    def _read_ahead(self, place: PagePosition, history: History) -> None:
        if self.keeps(place, history) or place in self._reading:
            return
        if len(self._ahead) < _MOST_READ_AHEAD:
            task = asyncio.create_task(self._try_to_read(place))
            self._ahead.add(task)
            task.add_done_callback(self._ahead.discard)

    async def _try_to_read(self, place: PagePosition) -> None:
        try:
            await self._read_once(place)
        except RegistryError:
            # Whoever asks for it reads it again, and hears what is wrong.
            self._counters["read_ahead_failed"] += 1

    async def _read(self, place: PagePosition) -> PageContent:
        people = max(_BLOCK_PEOPLE, place.limit)
        changes = await self._changes.site_deltas(
            place.site_id, place.since, place.spaces, people, _BLOCK_BYTES, snapshot=place.begins
        )
        self._counters["blocks_read"] += 1
        pages = list(cut_pages(place, changes))
        for page in pages:
            at = place if page is pages[0] else place.after(page.from_version, page.head_version)
            self._keep(at, page)
        return pages[0]

    def _keep(self, place: PagePosition, page: PageContent) -> None:
        replaced = self._kept.pop(place, None)
        self._kept[place] = page
        self._kept_bytes += len(page.told) - (len(replaced.told) if replaced else 0)
        while self._kept_bytes > _MOST_KEPT_BYTES:
            _, dropped = self._kept.popitem(last=False)
            self._kept_bytes -= len(dropped.told)

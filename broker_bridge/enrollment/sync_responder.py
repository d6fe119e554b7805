"""Answers devices that ask what has changed. Any bridge worker can: the only state is the registry."""

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from broker_bridge.contract import channels
from broker_bridge.contract.channels import Decoded
from broker_bridge.contract.errors import DEVICE_UNKNOWN, SITE_MISMATCH
from broker_bridge.contract.messages import Removal, SyncPage, SyncRequest, Upsert, WireError, WireTemplate
from broker_bridge.contract.wire import WireModel
from broker_bridge.link import Publish
from broker_bridge.registry import Registry, RegistryError
from broker_bridge.registry.devices.devices import is_reserved
from broker_bridge.registry.devices.model import Device
from broker_bridge.registry.identities.model import IdentityDelta
from broker_bridge.registry.mongo.versions import History
from broker_bridge.settings import BridgeSettings

from .sync_pages import PagePosition, SyncPages
from .sync_pages import answer as encode_answer

_log = logging.getLogger(__name__)

_REQUESTS_WAITING = 5000
_ANSWERS_AT_ONCE = 4
# So long a device that takes page after page is told of one state of the registry: what happens meanwhile has
# a higher version, and comes after.
_CHECKED_SECONDS = 0.5


@dataclass(frozen=True)
class _Next:
    """Where a device will ask next, what it was told of, and when it was last looked up."""

    place: PagePosition
    history: History
    checked_at: float

    def fits(self, request: SyncRequest) -> bool:
        place = self.place
        return (
            request.site_id in (None, place.site_id)
            and (request.epoch, request.since_version) == (self.history.epoch, place.since)
            and (request.limit, request.reset_head_version) == (place.limit, place.reset_head)
            and request.spaces == list(place.spaces)
        )


class SyncResponder:
    """Answers SyncRequests with pages. The next request says where its device stands; kept are only pages."""

    def __init__(self, registry: Registry, publish: Publish, settings: BridgeSettings) -> None:
        self._registry = registry
        self._publish = publish
        self._settings = settings
        # By device: of several requests only the last matters, and a fleet cannot queue without bound.
        self._waiting: dict[str, SyncRequest] = {}
        self._wake = asyncio.Semaphore(0)
        self.counters: Counter[str] = Counter()
        self._next: dict[str, _Next] = {}
        self._pages = SyncPages(registry.deltas, self.counters)

    def accept(self, decoded: Decoded[SyncRequest], _payload: bytes) -> None:
        """Queue a request; past the bound it is dropped and counted, and its device asks again."""
        device_id = decoded.ids["device_id"]
        if device_id not in self._waiting:
            if len(self._waiting) >= _REQUESTS_WAITING:
                self.counters["dropped_queue_full"] += 1
                return
            self._wake.release()
        self._waiting[device_id] = decoded.message

    async def run(self) -> None:
        """Answer until cancelled, a few at a time: a thousand devices that come back wait their turn."""
        try:
            await asyncio.gather(*(self._work() for _ in range(_ANSWERS_AT_ONCE)))
        finally:
            await self._pages.close()

    async def _work(self) -> None:
        while True:
            await self._wake.acquire()
            device_id = next(iter(self._waiting))
            request = self._waiting.pop(device_id)
            try:
                page = await self.answer(device_id, request)
            except RegistryError as error:
                self.counters["failed"] += 1
                _log.warning("no answer to %s, it will ask again: %s", device_id, type(error).__name__)
                continue
            await self._publish(channels.SYNC_PAGE, page, device_id=device_id)
            self.counters["pages"] += 1

    async def answer(self, device_id: str, request: SyncRequest) -> WireModel:
        """The page that `device_id` needs next: in JSON it is a SyncPage."""
        expected = self._next.pop(device_id, None)
        if expected and expected.fits(request) and self._pages.keeps(expected.place, expected.history):
            oldest = asyncio.get_running_loop().time() - _CHECKED_SECONDS
            if expected.checked_at > oldest:
                return await self._page(
                    device_id, request, expected.place, expected.history, expected.checked_at
                )
        device = await self._device(device_id, request)
        history = await self._registry.versions.read()
        if device is None:
            return _refused(request, history, DEVICE_UNKNOWN, f"{device_id} is not registered")
        if request.site_id not in (None, device.site_id):
            detail = f"{device_id} belongs to site {device.site_id}, not {request.site_id}"
            return _refused(request, history, SITE_MISMATCH, detail)
        spaces = request.spaces
        if spaces is None:
            spaces = sorted(await self._registry.spaces.dimensions())
        place = PagePosition.start(device.site_id, spaces, request.limit, with_names=device.dev_mode)
        if not needs_snapshot(request, history, device.site_id):
            place = replace(place, since=request.since_version, reset_head=request.reset_head_version)
        return await self._page(device_id, request, place, history, asyncio.get_running_loop().time())

    async def _page(
        self, device_id: str, request: SyncRequest, place: PagePosition, history: History, checked_at: float
    ) -> WireModel:
        page = await self._pages.find(place, history)
        if not place.begins and needs_snapshot(request, page.history, place.site_id):
            # It was read after that was decided; removals that the device needs were purged in between.
            place = PagePosition.start(place.site_id, place.spaces, place.limit, with_names=place.with_names)
            page = await self._pages.find(place, page.history)
        if not page.done:
            while len(self._next) >= _REQUESTS_WAITING:
                del self._next[next(iter(self._next))]
            following = place.after(page.to_version, page.head_version)
            self._next[device_id] = _Next(following, page.history, checked_at)
        return encode_answer(page, request.request_id)

    async def _device(self, device_id: str, request: SyncRequest) -> Device | None:
        device = (await self._registry.devices.registered([device_id])).get(device_id)
        if device is None and request.site_id and self._may_register(device_id):
            device = await self._registry.devices.register(device_id, request.site_id)
        return device

    def _may_register(self, device_id: str) -> bool:
        return self._settings.auto_register and not is_reserved(device_id)


def needs_snapshot(request: SyncRequest, history: History, site_id: str) -> bool:
    """Whether a device needs a full snapshot: its history is another one, or cannot tell it the rest."""
    return request.epoch != history.epoch or not history.tells_since(
        site_id, request.since_version, request.reset_head_version
    )


def told(
    changed: Sequence[IdentityDelta], site_id: str, *, with_names: bool
) -> tuple[list[Upsert], list[Removal]]:
    """Changes as a site hears of them: whole states of those who belong, removals of those who do not."""
    upserts, removals = [], []
    for change in changed:
        person = change.identity
        if not person.belongs_to(site_id):
            removals.append(Removal(user_id=person.user_id, version=person.version))
            continue
        templates = [
            WireTemplate(template_id=t.template_id, space=t.space, vector=t.vector, quality=t.quality)
            for t in change.templates
        ]
        name = person.display_name if with_names else None
        upserts.append(
            Upsert(
                user_id=person.user_id,
                version=person.version,
                flag=person.flag,
                display_name=name,
                templates=templates,
            )
        )
    return upserts, removals


def _refused(request: SyncRequest, history: History, code: str, detail: str) -> SyncPage:
    return SyncPage(
        request_id=request.request_id,
        epoch=history.epoch,
        from_version=request.since_version,
        to_version=request.since_version,
        head_version=request.since_version,
        done=True,
        error=WireError(code=code, detail=detail),
    )

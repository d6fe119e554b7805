"""Answers devices that ask what has changed. Any bridge worker can: the only state is the registry."""

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence

from .contract import channels
from .contract.channels import Decoded
from .contract.errors import DEVICE_UNKNOWN, SITE_MISMATCH
from .contract.messages import (
    Removal,
    SyncPage,
    SyncRequest,
    Upsert,
    WireError,
    WireTemplate,
)
from .contract.wire import MAX_PAGE_BYTES
from .link import Publish
from .registry import Registry, RegistryError
from .registry.devices import Device, is_reserved
from .registry.people import Changed
from .registry.versions import History
from .settings import BridgeSettings

_log = logging.getLogger(__name__)

_REQUESTS_WAITING = 5000
_ANSWERS_AT_ONCE = 4


class Answers:
    """Answers SyncRequests with pages. No state: the next request says where its device stands."""

    def __init__(self, registry: Registry, publish: Publish, settings: BridgeSettings) -> None:
        self._registry = registry
        self._publish = publish
        self._settings = settings
        # By device: of several requests only the last matters, and a fleet cannot queue without bound.
        self._waiting: dict[str, SyncRequest] = {}
        self._wake = asyncio.Semaphore(0)
        self.counters: Counter[str] = Counter()

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
        await asyncio.gather(*(self._work() for _ in range(_ANSWERS_AT_ONCE)))

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

    async def answer(self, device_id: str, request: SyncRequest) -> SyncPage:
        """The page that `device_id` needs next."""
        device = await self._device(device_id, request)
        history = await self._registry.versions.read()
        if device is None:
            return _refused(request, history, DEVICE_UNKNOWN, f"{device_id} is not registered")
        if request.site_id not in (None, device.site_id):
            detail = f"{device_id} belongs to site {device.site_id}, not {request.site_id}"
            return _refused(request, history, SITE_MISMATCH, detail)
        reset = starts_over(request, history, device.site_id)
        since = 0 if reset else request.since_version
        spaces = request.spaces
        if spaces is None:
            spaces = sorted(await self._registry.spaces.dimensions())
        changes = await self._registry.changes.since_at_site(
            device.site_id, since, spaces, request.limit, MAX_PAGE_BYTES, snapshot=reset
        )
        upserts, removals = told(changes.changed, device.site_id, with_names=device.dev_mode)
        return SyncPage(
            request_id=request.request_id,
            epoch=changes.history.epoch,
            from_version=since,
            to_version=changes.to_version,
            head_version=changes.head_version,
            reset=reset,
            upserts=upserts,
            removals=removals,
            done=changes.done,
        )

    async def _device(self, device_id: str, request: SyncRequest) -> Device | None:
        device = (await self._registry.devices.known([device_id])).get(device_id)
        if device is None and request.site_id and self._may_register(device_id):
            device = await self._registry.devices.register(device_id, request.site_id)
        return device

    def _may_register(self, device_id: str) -> bool:
        return self._settings.auto_register and not is_reserved(device_id)


def starts_over(request: SyncRequest, history: History, site_id: str) -> bool:
    """Whether a device needs a full snapshot: another history, nothing yet, or unseen tombstones purged.

    A reset that goes on is not begun again unless a tombstone younger than its start has been purged.
    """
    if (
        request.epoch != history.epoch
        or request.since_version == 0
        or request.since_version > history.version
    ):
        return True
    horizon = history.horizon_at(site_id)
    if request.since_version >= horizon:
        return False
    return request.reset_head_version is None or request.reset_head_version < horizon


def told(changed: Sequence[Changed], site_id: str, *, with_names: bool) -> tuple[list[Upsert], list[Removal]]:
    """Changes as a site hears of them: whole states of those who belong, removals of those who do not."""
    upserts, removals = [], []
    for change in changed:
        person = change.person
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

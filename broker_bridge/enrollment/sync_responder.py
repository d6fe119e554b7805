"""Answer sync requests of devices with pages.

Any bridge worker can answer any request.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from broker_bridge.common.clock import utc_now
from broker_bridge.contract import channels
from broker_bridge.contract.channels import Decoded
from broker_bridge.contract.errors import DEVICE_UNKNOWN, SITE_MISMATCH, ContractError
from broker_bridge.contract.messages import SyncPage, SyncRequest, WireError
from broker_bridge.contract.wire import WireModel
from broker_bridge.link import Publish
from broker_bridge.registry import Registry, RegistryError
from broker_bridge.registry.devices.devices import is_reserved
from broker_bridge.registry.devices.model import Device
from broker_bridge.registry.mongo.versions import History
from broker_bridge.settings import BridgeSettings

from .page_reader import PageReader
from .sync_pages import PageContent, PagePosition, encode_page

_log = logging.getLogger(__name__)

_MAX_WAITING_REQUESTS = 5000
_CONCURRENT_ANSWERS = 4
# A device that requests page after page gets pages of one history for this long; later changes have higher
# versions and follow.
_CHECKED_SECONDS = 0.5


@dataclass(frozen=True)
class _ExpectedRequest:
    """The next request of a device during a sync; `checked_at` dates its registration."""

    position: PagePosition
    history: History
    checked_at: float

    def matches(self, request: SyncRequest) -> bool:
        position = self.position
        return (
            request.site_id in (None, position.site_id)
            and (request.epoch, request.since_version) == (self.history.epoch, position.since)
            and (request.limit, request.reset_head_version) == (position.limit, position.reset_head)
            and request.spaces == list(position.spaces)
        )

    def continue_request(self, request: SyncRequest) -> SyncRequest:
        """Return `request` as the device would send it for the next page."""
        position = {
            "epoch": self.history.epoch,
            "since_version": self.position.since,
            "reset_head_version": self.position.reset_head,
            "spaces": list(self.position.spaces),
        }
        return request.model_copy(update=position)


class SyncResponder:
    """Answers SyncRequests with pages.

    Each request carries the position of its device; the responder stores only pages and expected requests.
    """

    def __init__(
        self,
        registry: Registry,
        publish: Publish,
        settings: BridgeSettings,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._registry = registry
        self._publish = publish
        self._now = now
        self._settings = settings
        # By device: only the last request of a device counts, which bounds the queue by the fleet.
        self._waiting: dict[str, SyncRequest] = {}
        self._wake = asyncio.Semaphore(0)
        self.counters: Counter[str] = Counter()
        self._expected: dict[str, _ExpectedRequest] = {}
        self._pages = PageReader(registry.deltas, self.counters)

    def accept_request(self, decoded: Decoded[SyncRequest], _payload: bytes) -> None:
        """Queue a request; drop and count it if the queue is full.

        The device repeats a request without an answer.
        """
        device_id = decoded.ids["device_id"]
        if device_id not in self._waiting:
            if len(self._waiting) >= _MAX_WAITING_REQUESTS:
                self.counters["dropped_queue_full"] += 1
                return
            self._wake.release()
        self._waiting[device_id] = decoded.message

    async def answer_requests(self) -> None:
        """Answer queued requests until cancelled, four at a time."""
        try:
            await asyncio.gather(*(self._answer_in_turn() for _ in range(_CONCURRENT_ANSWERS)))
        finally:
            await self._pages.close()

    async def _answer_in_turn(self) -> None:
        while True:
            await self._wake.acquire()
            device_id = next(iter(self._waiting))
            request = self._waiting.pop(device_id)
            try:
                await self._answer_with_pages(device_id, request)
            except RegistryError as error:
                self.counters["failed"] += 1
                _log.warning(
                    "sync request not answered; the device repeats it device=%s error=%s",
                    device_id,
                    type(error).__name__,
                )

    async def _answer_with_pages(self, device_id: str, request: SyncRequest) -> None:
        """Publish as many pages as `request` permits, the last without `more`.

        A page that fails ends the answer, and so does a newer request of the device.
        """
        pages = request.pages or 1
        for number in range(1, pages + 1):
            if device_id in self._waiting:
                return
            page = await self.answer(device_id, request, follows=number > 1, more=number < pages)
            if not await self._publish(channels.SYNC_PAGE, page, device_id=device_id):
                return
            self.counters["pages"] += 1
            following = self._expected.get(device_id)
            if following is None:
                return
            request = following.continue_request(request)

    async def answer(
        self, device_id: str, request: SyncRequest, *, follows: bool = False, more: bool = False
    ) -> WireModel:
        """Return a page of the answer to `request`, as the JSON of a SyncPage.

        A page that `follows` another has no time. With `more` a further page follows, unless this one reaches
        the head. Raises RegistryError.
        """
        page = await self._find_page(device_id, request)
        if not isinstance(page, PageContent):
            return page
        at = None if follows else self._now()
        return encode_page(page, request.request_id, at, more=more and not page.done)

    async def _find_page(self, device_id: str, request: SyncRequest) -> PageContent | SyncPage:
        """Return the page, or the SyncPage that rejects `request`."""
        expected = self._expected.pop(device_id, None)
        now = asyncio.get_running_loop().time()
        if (
            expected
            and expected.matches(request)
            and self._pages.has(expected.position, expected.history)
            and expected.checked_at > now - _CHECKED_SECONDS
        ):
            return await self._answer_from(
                device_id, request, expected.position, expected.history, expected.checked_at
            )
        device = await self._find_or_register(device_id, request)
        history = await self._registry.versions.read()
        if device is None:
            return self._reject(request, history, DEVICE_UNKNOWN, f"device {device_id} is not registered")
        if request.site_id not in (None, device.site_id):
            detail = f"{device_id} belongs to site {device.site_id}, not {request.site_id}"
            return self._reject(request, history, SITE_MISMATCH, detail)
        spaces = request.spaces
        if spaces is None:
            spaces = sorted(await self._registry.spaces.dimensions())
        position = PagePosition.start(device.site_id, spaces, request.limit, with_names=device.dev_mode)
        if not needs_snapshot(request, history, device.site_id):
            position = replace(position, since=request.since_version, reset_head=request.reset_head_version)
        return await self._answer_from(
            device_id, request, position, history, asyncio.get_running_loop().time()
        )

    async def _answer_from(
        self,
        device_id: str,
        request: SyncRequest,
        position: PagePosition,
        history: History,
        checked_at: float,
    ) -> PageContent:
        page = await self._pages.read_page(position, history)
        if not position.starts_snapshot and needs_snapshot(request, page.history, position.site_id):
            # The page was read after that decision; removals that the device needs were purged in between.
            position = PagePosition.start(
                position.site_id, position.spaces, position.limit, with_names=position.with_names
            )
            page = await self._pages.read_page(position, page.history)
        if not page.done:
            while len(self._expected) >= _MAX_WAITING_REQUESTS:
                del self._expected[next(iter(self._expected))]
            following = position.after(page.to_version, page.head_version)
            self._expected[device_id] = _ExpectedRequest(following, page.history, checked_at)
        return page

    async def _find_or_register(self, device_id: str, request: SyncRequest) -> Device | None:
        device = (await self._registry.devices.registered([device_id])).get(device_id)
        if device is None and request.site_id and self._may_register(device_id):
            try:
                device = await self._registry.devices.register(device_id, request.site_id)
            except ContractError:
                self.counters["decommissioned"] += 1
        return device

    def _reject(self, request: SyncRequest, history: History, code: str, detail: str) -> SyncPage:
        return SyncPage(
            request_id=request.request_id,
            epoch=history.epoch,
            from_version=request.since_version,
            to_version=request.since_version,
            head_version=request.since_version,
            done=True,
            error=WireError(code=code, detail=detail),
            at=self._now(),
        )

    def _may_register(self, device_id: str) -> bool:
        return self._settings.auto_register and not is_reserved(device_id)


def needs_snapshot(request: SyncRequest, history: History, site_id: str) -> bool:
    """Return whether a device needs a snapshot sync.

    It does if it follows another history, or if removals that it needs were purged.
    """
    return request.epoch != history.epoch or not history.tells_since(
        site_id, request.since_version, request.reset_head_version
    )

"""Answer registration requests of cameras for faces that they do not know."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from datetime import datetime

from broker_bridge.common.clock import utc_now
from broker_bridge.contract import channels
from broker_bridge.contract.channels import Decoded
from broker_bridge.contract.messages import Registered, RegisterIdentity
from broker_bridge.link import Publish
from broker_bridge.registry import Registry, RegistryError
from broker_bridge.registry.edge_registration.visitors import new_visitor_id

_log = logging.getLogger(__name__)

_REQUESTS_WAITING = 2000
# One camera must not delay the requests of others.
_WAITING_PER_DEVICE = 50


class RegistrationHandler:
    """Decide RegisterIdentity requests and publish Registered; any worker can."""

    def __init__(
        self,
        registry: Registry,
        publish: Publish,
        *,
        now: Callable[[], datetime] = utc_now,
        new_user_id: Callable[[], str] = new_visitor_id,
    ) -> None:
        self._registry = registry
        self._publish = publish
        self._now = now
        self._new_user_id = new_user_id
        self._waiting: dict[tuple[str, str], RegisterIdentity] = {}
        self._per_device: Counter[str] = Counter()
        self._wake = asyncio.Semaphore(0)
        self.counters: Counter[str] = Counter()

    def accept_request(self, decoded: Decoded[RegisterIdentity], _payload: bytes) -> None:
        """Queue a request.

        Past the bound it is dropped and counted, and its device repeats it.
        """
        device_id, request = decoded.ids["device_id"], decoded.message
        if (device_id, request.request_id) in self._waiting:
            return
        full = len(self._waiting) >= _REQUESTS_WAITING
        if full or self._per_device[device_id] >= _WAITING_PER_DEVICE:
            self.counters["dropped_queue_full"] += 1
            return
        self._waiting[device_id, request.request_id] = request
        self._per_device[device_id] += 1
        self._wake.release()

    async def answer_requests(self) -> None:
        """Decide and answer until cancelled, one request after the other.

        Each decision depends on those before.
        """
        while True:
            await self._wake.acquire()
            (device_id, request_id), request = next(iter(self._waiting.items()))
            try:
                answer = await self.decide_registration(device_id, request)
            except RegistryError as error:
                self.counters["failed"] += 1
                _log.warning(
                    "registration cannot be decided; the device repeats device=%s error=%s",
                    device_id,
                    type(error).__name__,
                )
            else:
                await self._reply(device_id, answer)
            finally:
                del self._waiting[device_id, request_id]
                self._per_device -= Counter([device_id])

    async def _reply(self, device_id: str, answer: Registered | None) -> None:
        if answer is None:
            self.counters["contested"] += 1
            _log.warning("registration contested; the device repeats device=%s", device_id)
            return
        self.counters[answer.result] += 1
        await self._publish(channels.REGISTERED, answer, device_id=device_id)

    async def decide_registration(self, device_id: str, request: RegisterIdentity) -> Registered | None:
        """Return the answer to a request; see EdgeRegistration.decide_registration."""
        return await self._registry.edge_registration.decide_registration(
            device_id, request, at=self._now(), new_user_id=self._new_user_id
        )

"""Registration at the edge: a camera met somebody whom it does not know; the registry says who that is now.

The first device wins. Two workers that meet the same face at the same moment cannot both make a person: one
is made only while the registry still stands where it was searched, else the search is done again.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timezone

from .contract import channels
from .contract.channels import Decoded
from .contract.embeddings import EmbeddingSpace, normalise, to_array
from .contract.errors import DEVICE_UNKNOWN, ENROLLMENT_CLOSED, MODEL_DIFFERS, ContractError
from .contract.messages import Registered, RegisterIdentity, WireError
from .link import Publish
from .people_index import PeopleIndex
from .registry import Registry, RegistryError
from .registry.devices import declared_models
from .registry.events import Incoming
from .registry.mongo import Document
from .registry.registrations import Decision
from .settings import BridgeSettings
from .visitors import answer_of, decide, new_visitor_id, order_of, visit_of

_log = logging.getLogger(__name__)

_REQUESTS_WAITING = 2000
# A camera that asks without end must not keep the others waiting.
_WAITING_PER_DEVICE = 50
# Somebody else's change came in between so often in a row: people are being imported in bulk.
_ATTEMPTS = 20


class Registrar:
    """Decides about RegisterIdentity and answers with Registered; any worker can."""

    def __init__(
        self,
        registry: Registry,
        publish: Publish,
        settings: BridgeSettings,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
        new_user_id: Callable[[], str] = new_visitor_id,
    ) -> None:
        self._registry = registry
        self._publish = publish
        self._settings = settings
        self._now = now
        self._new_user_id = new_user_id
        self._indexes: dict[str, PeopleIndex] = {}
        self._waiting: dict[tuple[str, str], RegisterIdentity] = {}
        self._per_device: Counter[str] = Counter()
        self._wake = asyncio.Semaphore(0)
        self.counters: Counter[str] = Counter()

    def accept(self, decoded: Decoded[RegisterIdentity], _payload: bytes) -> None:
        """Queue a request; past the bound it is dropped and counted, and its device asks again."""
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

    async def run(self) -> None:
        """Decide and answer until cancelled, one after the other: each decision rests on those before."""
        while True:
            await self._wake.acquire()
            (device_id, request_id), request = next(iter(self._waiting.items()))
            try:
                answer = await self.answer(device_id, request)
            except RegistryError as error:
                self.counters["failed"] += 1
                _log.warning("no answer to %s, it will ask again: %s", device_id, type(error).__name__)
            else:
                await self._reply(device_id, answer)
            finally:
                del self._waiting[device_id, request_id]
                self._per_device -= Counter([device_id])

    async def _reply(self, device_id: str, answer: Registered | None) -> None:
        if answer is None:
            self.counters["contested"] += 1
            _log.warning("no answer to %s, it will ask again: too much changed meanwhile", device_id)
            return
        self.counters[answer.result] += 1
        await self._publish(channels.REGISTERED, answer, device_id=device_id)

    async def answer(self, device_id: str, request: RegisterIdentity) -> Registered | None:
        """The answer to a request, the same as before to one that was decided.

        None while the registry changes too fast to decide anything. Raises RegistryError.
        """
        try:
            decision = await self._decide(device_id, request)
        except ContractError as error:
            # It may name all spaces that there are: cut to what a sentence on the wire may have.
            why = WireError(code=error.code, detail=error.detail[:1000])
            return Registered(request_id=request.request_id, result="rejected", error=why)
        if decision is None:
            return None
        if decision.result == "exists":
            # Also for a repeat: the worker that decided may have died before it recorded the visit.
            visit = Incoming(visit_of(decision, request.space), decision.site_id, decision.at)
            await self._registry.events.record([visit], expect_repeats=True)
        return answer_of(decision)

    async def _decide(self, device_id: str, request: RegisterIdentity) -> Decision | None:
        """What was decided before or is now; ContractError for what is refused as things are today."""
        registrations = self._registry.registrations
        earlier = await registrations.find(device_id, request.request_id)
        if earlier:
            return earlier
        site_id, space = await self._admit(device_id, request)
        vector = normalise(to_array(request.vector), space.dimension)
        index = self._index(space)
        limits = self._settings.similarities_in(space.id)
        for _ in range(_ATTEMPTS):
            history, nearest = await index.find(vector, limits.floor)
            user_id = self._new_user_id()
            decision = decide(
                request, device_id, site_id, nearest, limits, at=self._now(), new_user_id=user_id
            )
            if decision.result != "created":
                return await registrations.keep(decision)
            order = order_of(request, user_id, site_id, vector)
            if await registrations.create(decision, order, history):
                return decision
            self.counters["decided_again"] += 1
            earlier = await registrations.find(device_id, request.request_id)
            if earlier:
                return earlier
        return None

    def _index(self, space: EmbeddingSpace) -> PeopleIndex:
        if space.id not in self._indexes:
            self._indexes[space.id] = PeopleIndex(self._registry.identities, space)
        return self._indexes[space.id]

    async def _admit(self, device_id: str, request: RegisterIdentity) -> tuple[str, EmbeddingSpace]:
        """Site and space of a request that may be decided; raises ContractError that says why it may not."""
        found = await self._registry.devices.get(device_id)
        if found is None or not found.get("site_id"):
            raise ContractError(DEVICE_UNKNOWN, f"{device_id} is not registered")
        if request.kind != "visitor":
            raise ContractError(ENROLLMENT_CLOSED, "employees are enrolled in the registry, not by a camera")
        site_id: str = found["site_id"]
        await self._registry.sites.check_open(site_id)
        space = await self._registry.spaces.get(request.space)
        _check_model(found, space)
        return site_id, space


def _check_model(device: Document, space: EmbeddingSpace) -> None:
    declared = declared_models(device).get(space.id)
    if declared and space.model_sha256 and declared != space.model_sha256:
        raise ContractError(
            MODEL_DIFFERS,
            f"{device['_id']} embeds into {space.id} with the model {declared[:12]}..., on record is "
            f"{space.model_sha256[:12]}...",
        )

"""Who somebody is whom a camera met: the registry decides, whichever way the camera asks.

The first device wins. Two workers that meet the same face at the same moment cannot both make a person: one
is made only while the registry still stands where it was searched, else the search is done again.
"""

from collections import Counter
from collections.abc import Callable
from datetime import datetime

from broker_bridge.contract.embeddings import EmbeddingSpace, normalise, to_array
from broker_bridge.contract.errors import DEVICE_UNKNOWN, ENROLLMENT_CLOSED, MODEL_DIFFERS, ContractError
from broker_bridge.contract.messages import Registered, RegisterIdentity, WireError

from .devices import Devices, declared_models
from .events import Events, Incoming
from .mongo import Document
from .people_index import PeopleIndexes
from .registrations import Decision, Registrations
from .settings import RegistrySettings
from .sites import Sites
from .spaces import Spaces
from .visitors import answer_of, decide, order_of, visit_of

# Somebody else's change came in between so often in a row: people are being imported in bulk.
_ATTEMPTS = 20


class Admissions:
    """Answers RegisterIdentity, the same to a request that comes again. `counters` has `decided_again`."""

    def __init__(
        self,
        *,
        registrations: Registrations,
        indexes: PeopleIndexes,
        devices: Devices,
        sites: Sites,
        spaces: Spaces,
        events: Events,
        settings: RegistrySettings,
    ) -> None:
        self._registrations = registrations
        self._indexes = indexes
        self._devices = devices
        self._sites = sites
        self._spaces = spaces
        self._events = events
        self._settings = settings
        self.counters: Counter[str] = Counter()

    async def answer(
        self, device_id: str, request: RegisterIdentity, *, at: datetime, new_user_id: Callable[[], str]
    ) -> Registered | None:
        """The answer to a request, the same as before to one that was decided.

        None while the registry changes too fast to decide anything. Raises RegistryError.
        """
        try:
            decision = await self._decide(device_id, request, at, new_user_id)
        except ContractError as error:
            # It may name all spaces that there are: cut to what a sentence on the wire may have.
            why = WireError(code=error.code, detail=error.detail[:1000])
            return Registered(request_id=request.request_id, result="rejected", error=why)
        if decision is None:
            return None
        if decision.result == "exists":
            # Also for a repeat: the worker that decided may have died before it recorded the visit.
            visit = Incoming(visit_of(decision, request.space), decision.site_id, decision.at)
            await self._events.record([visit], expect_repeats=True)
        return answer_of(decision)

    async def _decide(
        self, device_id: str, request: RegisterIdentity, at: datetime, new_user_id: Callable[[], str]
    ) -> Decision | None:
        """What was decided before or is now; ContractError for what is refused as things are today."""
        earlier = await self._registrations.find(device_id, request.request_id)
        if earlier:
            return earlier
        site_id, space = await self._admit(device_id, request)
        vector = normalise(to_array(request.vector), space.dimension)
        index = self._indexes.of(space)
        limits = self._settings.similarities_in(space.id)
        for _ in range(_ATTEMPTS):
            history, nearest = await index.find(vector, limits.floor)
            user_id = new_user_id()
            decision = decide(request, device_id, site_id, nearest, limits, at=at, new_user_id=user_id)
            if decision.result != "created":
                return await self._registrations.keep(decision)
            order = order_of(request, device_id, user_id, site_id, vector)
            if await self._registrations.create(decision, order, history):
                return decision
            self.counters["decided_again"] += 1
            earlier = await self._registrations.find(device_id, request.request_id)
            if earlier:
                return earlier
        return None

    async def _admit(self, device_id: str, request: RegisterIdentity) -> tuple[str, EmbeddingSpace]:
        """Site and space of a request that may be decided; raises ContractError that says why it may not."""
        found = await self._devices.get(device_id)
        if found is None or not found.get("site_id"):
            raise ContractError(DEVICE_UNKNOWN, f"{device_id} is not registered")
        if request.kind != "visitor":
            raise ContractError(ENROLLMENT_CLOSED, "employees are enrolled in the registry, not by a camera")
        site_id: str = found["site_id"]
        await self._sites.check_open(site_id)
        space = await self._spaces.get(request.space)
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

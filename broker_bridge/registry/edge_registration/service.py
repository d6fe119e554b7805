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
from broker_bridge.registry.devices.devices import DeviceRegistry
from broker_bridge.registry.devices.model import DeviceRecord
from broker_bridge.registry.devices.sites import Sites
from broker_bridge.registry.events.events import EventStore, IncomingEvent
from broker_bridge.registry.identities.model import EnrollIdentity
from broker_bridge.registry.identities.rules import add_templates
from broker_bridge.registry.identities.store import IdentityStore
from broker_bridge.registry.matching.identity_index import IdentityIndexes
from broker_bridge.registry.settings import RegistrySettings
from broker_bridge.registry.spaces import SpaceRegistry
from broker_bridge.vectors.index import Nearest

from . import employees, visitors
from .decisions import RegistrationDecision, RegistrationDecisions, RegistrationRequest

# Somebody else's change came in between so often in a row: people are being imported in bulk.
_ATTEMPTS = 20


class EdgeRegistration:
    """Answers RegisterIdentity, the same to a request that comes again. `counters` has `decided_again`."""

    def __init__(
        self,
        *,
        registrations: RegistrationDecisions,
        people: IdentityStore,
        indexes: IdentityIndexes,
        devices: DeviceRegistry,
        sites: Sites,
        spaces: SpaceRegistry,
        events: EventStore,
        settings: RegistrySettings,
    ) -> None:
        self._registrations = registrations
        self._people = people
        self._indexes = indexes
        self._devices = devices
        self._sites = sites
        self._spaces = spaces
        self._events = events
        self._settings = settings
        self.counters: Counter[str] = Counter()

    async def decide_registration(
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
        if decision.result == "exists" and request.kind == "visitor":
            # Also for a repeat: the worker that decided may have died before it recorded the visit.
            visit = IncomingEvent(visitors.visit_of(decision, request.space), decision.site_id, decision.at)
            await self._events.record([visit], expect_repeats=True)
        return visitors.answer_of(decision)

    async def _decide(
        self, device_id: str, request: RegisterIdentity, at: datetime, new_user_id: Callable[[], str]
    ) -> RegistrationDecision | None:
        """What was decided before or is now; ContractError for what is refused as things are today."""
        earlier = await self._registrations.find(device_id, request.request_id)
        if earlier:
            return earlier
        site_id, space = await self._admit(device_id, request)
        vector = normalise(to_array(request.vector), space.dimension)
        asked = RegistrationRequest(request, device_id, site_id, vector, at)
        index = self._indexes.for_space(space)
        floor = self._settings.similarities_in(space.id).floor
        for _ in range(_ATTEMPTS):
            history, nearest = await index.find(vector, floor)
            if request.kind == "employee":
                decision, order = await self._judge_employee(asked, nearest)
            else:
                decision, order = self._judge_visitor(asked, nearest, new_user_id())
            if order is None:
                return await self._registrations.keep(decision)
            if await self._registrations.create(decision, order, history, request.kind):
                return decision
            self.counters["decided_again"] += 1
            earlier = await self._registrations.find(device_id, request.request_id)
            if earlier:
                return earlier
        return None

    def _judge_visitor(
        self, asked: RegistrationRequest, nearest: Nearest | None, new_user_id: str
    ) -> tuple[RegistrationDecision, EnrollIdentity | None]:
        """The decision about a visitor, with the order that it takes, if any."""
        limits = self._settings.similarities_in(asked.request.space)
        decision = visitors.decide(asked, nearest, limits, new_user_id)
        is_new = decision.result == "created"
        return decision, visitors.order_of(asked, new_user_id) if is_new else None

    async def _judge_employee(
        self, asked: RegistrationRequest, nearest: Nearest | None
    ) -> tuple[RegistrationDecision, EnrollIdentity | None]:
        """The decision about an employee, with the order that it takes, if any; raises ContractError."""
        user_id = employees.named(asked.request)
        held = (await self._people.read_records(None, [user_id]))[user_id]
        employees.check_enrollable(user_id, held.identity, asked.site_id)
        limits = self._settings.similarities_in(asked.request.space)
        decision = employees.decide(asked, held, nearest, limits)
        if decision.user_id != user_id:
            return decision, None
        order = employees.order_of(asked, held)
        templates = held.templates or ()
        if held.live and add_templates(templates, order, self._settings.rules) == templates:
            # Held already, or no better than those that are.
            return decision, None
        return decision, order

    async def _admit(self, device_id: str, request: RegisterIdentity) -> tuple[str, EmbeddingSpace]:
        """Site and space of a request that may be decided; raises ContractError that says why it may not."""
        found = await self._devices.get(device_id)
        if found is None or found.site_id is None:
            raise ContractError(DEVICE_UNKNOWN, f"{device_id} is not registered")
        site_id = found.site_id
        await self._sites.check_open(site_id, request.kind)
        if request.kind == "visitor" and self._settings.consent == "required":
            # Kept back, the face would be in no index, and somebody else's at each meeting.
            detail = "consent is required here (registry.consent), and a camera cannot ask a visitor for it"
            raise ContractError(ENROLLMENT_CLOSED, detail)
        space = await self._spaces.get(request.space)
        _check_model(found, space)
        return site_id, space


def _check_model(device: DeviceRecord, space: EmbeddingSpace) -> None:
    declared = device.declared_models.get(space.id)
    if declared and space.model_sha256 and declared != space.model_sha256:
        raise ContractError(
            MODEL_DIFFERS,
            f"{device.device_id} embeds into {space.id} with the model {declared[:12]}..., on record is "
            f"{space.model_sha256[:12]}...",
        )

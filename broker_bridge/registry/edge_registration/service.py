"""Decide registrations of cameras, however they arrive.

The first device wins. Two workers that decide about the same face at the same time cannot both create an
identity: a creation commits only if the registry is unchanged since the search, which is repeated otherwise.
"""

import logging
from collections import Counter
from collections.abc import Callable
from datetime import datetime

from broker_bridge.contract.embeddings import normalise, to_array
from broker_bridge.contract.errors import DEVICE_UNKNOWN, ENROLLMENT_CLOSED, MODEL_DIFFERS, ContractError
from broker_bridge.contract.messages import Registered, RegisterIdentity, WireError
from broker_bridge.contract.spaces import SpaceLimits, SpaceRecord
from broker_bridge.registry.devices.devices import DeviceRegistry
from broker_bridge.registry.devices.model import DeviceRecord
from broker_bridge.registry.devices.sites import Sites
from broker_bridge.registry.events.admission import EventAdmission, check_visitor
from broker_bridge.registry.events.events import EventStore
from broker_bridge.registry.events.model import IncomingEvent
from broker_bridge.registry.identities.model import EnrollIdentity
from broker_bridge.registry.identities.rules import add_templates
from broker_bridge.registry.identities.store import IdentityStore
from broker_bridge.registry.matching.identity_index import IdentityIndexes
from broker_bridge.registry.settings import RegistrySettings
from broker_bridge.registry.spaces import SpaceRegistry, limits_of
from broker_bridge.vectors.index import Nearest

from . import employees, visitors
from .decisions import RegistrationDecision, RegistrationDecisions, RegistrationRequest

_log = logging.getLogger(__name__)

# So many concurrent changes in a row mean a bulk import.
_ATTEMPTS = 20


class EdgeRegistration:
    """Answer RegisterIdentity; a repeated request gets the same answer.

    `counters` has `decided_again`, and `visits_rejected` for visits that may not be recorded.
    """

    def __init__(
        self,
        *,
        registrations: RegistrationDecisions,
        identity_store: IdentityStore,
        indexes: IdentityIndexes,
        devices: DeviceRegistry,
        sites: Sites,
        spaces: SpaceRegistry,
        events: EventStore,
        admission: EventAdmission,
        settings: RegistrySettings,
    ) -> None:
        self._registrations = registrations
        self._identity_store = identity_store
        self._indexes = indexes
        self._devices = devices
        self._sites = sites
        self._spaces = spaces
        self._events = events
        self._admission = admission
        self._settings = settings
        self.counters: Counter[str] = Counter()

    async def decide_registration(
        self, device_id: str, request: RegisterIdentity, *, at: datetime, new_user_id: Callable[[], str]
    ) -> Registered | None:
        """Return the answer to a request, the previous one if it was decided before.

        None while the registry changes too fast to decide. Raises RegistryError.
        """
        try:
            decision = await self._decide(device_id, request, at, new_user_id)
        except ContractError as error:
            # The detail may list every space; a sentence on the wire has 1000 characters.
            wire_error = WireError(code=error.code, detail=error.detail[:1000])
            return Registered(request_id=request.request_id, result="rejected", error=wire_error)
        if decision is None:
            return None
        if decision.result == "exists" and request.kind == "visitor":
            # Also for a repeat: the worker that decided may have ended before it recorded the visit.
            await self._record_visit(decision, request.space, at)
        return visitors.answer_of(decision)

    async def _record_visit(self, decision: RegistrationDecision, space: str, now: datetime) -> None:
        """Record the visit of a known identity under the same rules as a reported one."""
        visit = visitors.visit_of(decision, space)
        user_id = visit.user_id or ""
        devices = await self._devices.registered([decision.device_id])
        identities = await self._identity_store.find_by_id(None, [user_id])
        try:
            self._admission.check_event(visit, devices.get(decision.device_id), now)
            # Not the site: the registry itself matched the face, which may belong to another site.
            check_visitor(identities, user_id, visit.timestamp)
        except ContractError as error:
            self.counters["visits_rejected"] += 1
            _log.info(
                "registration visit not recorded device=%s event=%s code=%s",
                decision.device_id,
                visit.event_id,
                error.code,
            )
            return
        incoming = IncomingEvent(visit, decision.site_id, decision.at)
        await self._events.record([incoming])

    async def _decide(
        self, device_id: str, request: RegisterIdentity, at: datetime, new_user_id: Callable[[], str]
    ) -> RegistrationDecision | None:
        """Return the earlier or a new decision.

        Raises ContractError for an inadmissible request.
        """
        earlier = await self._registrations.find(device_id, request.request_id)
        if earlier:
            return earlier
        site_id, record = await self._check_admissible(device_id, request)
        space, limits = record.embedding_space, limits_of(record)
        vector = normalise(to_array(request.vector), space.dimension)
        registration = RegistrationRequest(request, device_id, site_id, vector, at)
        index = self._indexes.for_space(space)
        for _ in range(_ATTEMPTS):
            history, nearest = await index.find_nearest(vector, limits.enrollment_floor)
            if request.kind == "employee":
                decision, change = await self._decide_employee(registration, nearest, limits)
            else:
                decision, change = self._decide_visitor(registration, nearest, limits, new_user_id())
            if change is None:
                return await self._registrations.keep(decision)
            if await self._registrations.create(decision, change, history, request.kind):
                return decision
            self.counters["decided_again"] += 1
            earlier = await self._registrations.find(device_id, request.request_id)
            if earlier:
                return earlier
        return None

    def _decide_visitor(
        self,
        registration: RegistrationRequest,
        nearest: Nearest | None,
        limits: SpaceLimits,
        new_user_id: str,
    ) -> tuple[RegistrationDecision, EnrollIdentity | None]:
        """Return the decision about a visitor and the change that it needs, if any."""
        decision = visitors.decide_visitor(registration, nearest, limits, new_user_id)
        is_new = decision.result == "created"
        return decision, visitors.enrollment_of(registration, new_user_id) if is_new else None

    async def _decide_employee(
        self, registration: RegistrationRequest, nearest: Nearest | None, limits: SpaceLimits
    ) -> tuple[RegistrationDecision, EnrollIdentity | None]:
        """Return the decision about an employee and the change that it needs.

        Raises ContractError.
        """
        user_id = employees.requested_user_id(registration.request)
        record = (await self._identity_store.read_records(None, [user_id]))[user_id]
        employees.check_enrollable(user_id, record.identity, registration.site_id)
        decision = employees.decide_employee(registration, record, nearest, limits)
        if decision.user_id != user_id:
            return decision, None
        change = employees.enrollment_of(registration, record)
        templates = record.templates or ()
        if record.live and add_templates(templates, change, self._settings.rules) == templates:
            # The template is stored already, or no better than the stored ones.
            return decision, None
        return decision, change

    async def _check_admissible(self, device_id: str, request: RegisterIdentity) -> tuple[str, SpaceRecord]:
        """Return site and space of an admissible request.

        Raises ContractError with the reason otherwise.
        """
        device = await self._devices.get(device_id)
        if device is None or device.site_id is None:
            raise ContractError(DEVICE_UNKNOWN, f"{device_id} is not registered")
        await self._sites.check_open(device.site_id, request.kind)
        if request.kind == "visitor" and self._settings.consent == "required":
            # Without consent the face would be in no index, and a new visitor at each meeting.
            detail = "consent is required (registry.consent), and a camera cannot obtain it from a visitor"
            raise ContractError(ENROLLMENT_CLOSED, detail)
        space = await self._spaces.record(request.space)
        _check_model(device, space)
        return device.site_id, space


def _check_model(device: DeviceRecord, space: SpaceRecord) -> None:
    declared = device.declared_models.get(space.space)
    if declared and space.model_sha256 and declared != space.model_sha256:
        raise ContractError(
            MODEL_DIFFERS,
            f"{device.device_id} embeds into {space.space} with the model {declared[:12]}..., on record is "
            f"{space.model_sha256[:12]}...",
        )

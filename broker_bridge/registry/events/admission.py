"""Decide whether an event may be recorded.

The rules hold for every way in: MQTT, HTTP and registrations.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from broker_bridge.contract.errors import DEVICE_UNKNOWN, EVENT_TIME_IMPLAUSIBLE, ContractError
from broker_bridge.contract.messages import Event
from broker_bridge.contract.wire import format_time
from broker_bridge.registry.devices.model import Device
from broker_bridge.registry.identities.model import EVERY_SITE, PERSON_MERGED, Identity
from broker_bridge.registry.identities.rules import identity_unknown

MAX_AGE_DAYS: Final = 366.0
"""Default age up to which an event is recorded; a device may be offline for a year."""
MAX_AHEAD: Final = timedelta(days=1)
"""How far the time of an event may be ahead of the backend's clock."""


@dataclass(frozen=True)
class EventAdmission:
    """The rules about device and clock.

    Programs with the same `max_age` accept the same events.
    """

    max_age: timedelta = timedelta(days=MAX_AGE_DAYS)

    def check_event(
        self, event: Event, device: Device | None, received_at: datetime, *, auto_register: bool = False
    ) -> None:
        """Raise ContractError for an event that may not be recorded.

        `device-unknown`: its device is not registered, unless devices register themselves.
        `event-time-implausible`: the device's clock is wrong.
        """
        if device is None and not auto_register:
            detail = f"{event.device_id} is not registered; register it under /api/v1/devices"
            raise ContractError(DEVICE_UNKNOWN, detail)
        if not received_at - self.max_age <= event.timestamp <= received_at + MAX_AHEAD:
            detail = (
                f"the event has the time {format_time(event.timestamp)}, the backend "
                f"{format_time(received_at)}: check the device's clock"
            )
            raise ContractError(EVENT_TIME_IMPLAUSIBLE, detail)


def check_visitor(identities: Mapping[str, Identity], user_id: str, at: datetime) -> None:
    """Raise ContractError unless the identity existed at `at`.

    The codes are `person-unknown` and `person-merged`.

    An offline device may report visits from before a deletion; those are admissible.
    """
    identity = identities.get(user_id)
    if identity is None or identity.erased:
        raise identity_unknown(user_id)
    if identity.merge:
        raise ContractError(PERSON_MERGED, f"{user_id} was merged into {identity.merge.into}: report that id")
    if identity.deleted_at is not None and at > identity.deleted_at:
        raise identity_unknown(user_id)


def check_reported_visitor(
    identities: Mapping[str, Identity], user_id: str, site_id: str, at: datetime
) -> None:
    """Raise ContractError unless the identity existed and its site matches.

    A site that never had the identity cannot report its visit.

    The code is `person-unknown`, so that a device learns nothing about other sites; see also check_visitor.
    """
    identity = identities.get(user_id)
    if identity is None or not {site_id, EVERY_SITE} & set(identity.synced_sites):
        raise identity_unknown(user_id)
    check_visitor(identities, user_id, at)

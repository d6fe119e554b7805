"""Query parameters that filter a list of events."""

from datetime import datetime
from typing import Annotated

from fastapi import Depends, Query
from pydantic import AfterValidator, WithJsonSchema

from broker_bridge.contract.ids import DeviceId, EventType
from broker_bridge.registry.events.event_filter import EventFilter
from dashboard_api.http.base_models import UserId, WrittenTime

# Neither a UTC offset nor the margin of the filter (a day) may lead out of the years that a datetime has.
_FIRST_YEAR, _LAST_YEAR = 1970, 9998


def _check_year(at: datetime) -> datetime:
    if not _FIRST_YEAR <= at.year <= _LAST_YEAR:
        raise ValueError(f"the year of an event lies within {_FIRST_YEAR}..{_LAST_YEAR}")
    return at


_YEARS = "^(19[7-9][0-9]|[2-8][0-9]{3}|9[0-8][0-9]{2}|99[0-8][0-9]|999[0-8])-"
Moment = Annotated[
    WrittenTime,
    AfterValidator(_check_year),
    WithJsonSchema({"type": "string", "format": "date-time", "pattern": _YEARS}),
]


def to_filter(
    *,
    user_id: Annotated[UserId | None, Query()] = None,
    device_id: Annotated[DeviceId | None, Query()] = None,
    event_type: Annotated[EventType | None, Query()] = None,
    since: Annotated[Moment | None, Query(description="Recognised at this time or later")] = None,
    until: Annotated[Moment | None, Query(description="Recognised before this time")] = None,
    received_after: Annotated[
        Moment | None, Query(description="Recorded by the backend after this time")
    ] = None,
) -> EventFilter:
    """Return the filter that the query parameters describe."""
    return EventFilter(user_id, device_id, event_type, since, until, received_after)


EventFilterDep = Annotated[EventFilter, Depends(to_filter)]

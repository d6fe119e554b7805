"""The times in a query, as RFC 3339 allows them."""

from datetime import datetime, timezone

import pytest
from pydantic import TypeAdapter, ValidationError

from dashboard_api.events.filters import Moment
from dashboard_api.keys.views import KeyBody

MOMENT: TypeAdapter[datetime] = TypeAdapter(Moment)
TEN = datetime(2026, 1, 15, 10, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-15T10:00:00Z",
        "2026-01-15t10:00:00z",
        "2026-01-15T09:59:60Z",
        "2026-01-15t11:00:00.0000000000+01:00",
        "2026-01-15 10:00:00Z",
    ],
)
def test_a_time_in_any_form_of_rfc_3339_is_the_same_moment(text: str) -> None:
    """Query and body read it alike."""
    assert MOMENT.validate_python(text) == TEN
    assert KeyBody.model_validate({"name": "a", "expires_at": text}).expires_at == TEN


@pytest.mark.parametrize(
    "text",
    [
        *("2026-01-15T10:00:61Z", "2026-01-15T10:00:00", "9999-12-31T23:59:60Z", "now"),
        *("0", "0.5", " 1768471200 ", "-1", "+5", "1_0", "1e9", "1969-12-31T23:59:59Z"),
    ],
)
def test_a_time_that_does_not_exist_is_refused(text: str) -> None:
    """A missing offset, a 61st second and a bare number are mistakes of the caller."""
    with pytest.raises(ValidationError):
        MOMENT.validate_python(text)


@pytest.mark.parametrize("time", [4102444800, 4102444800.5, "4102444800", True])
def test_an_expiry_is_not_a_number(time: object) -> None:
    """Seconds and milliseconds since 1970 look alike."""
    with pytest.raises(ValidationError, match="expires_at"):
        KeyBody.model_validate({"name": "a", "expires_at": time})

"""A wrong clock in the heartbeat of any firmware."""

from typing import Any

import pytest

from broker_bridge.contract.messages import Heartbeat, WireError
from broker_bridge.devices.presence import add_clock_offset
from tests.device_samples import NOON


def reported(offset: float, *problems: WireError) -> dict[str, Any]:
    beat = Heartbeat(at=NOON, uptime_s=1.0, problems=list(problems), state="ok")
    fields = beat.model_dump(exclude_none=True)
    add_clock_offset(fields, offset)
    return fields


@pytest.mark.parametrize(
    ("offset", "codes"),
    [(0.0, []), (59.0, []), (-59.0, []), (61.0, ["clock-wrong"]), (-3600.0, ["clock-wrong"])],
)
def test_a_clock_off_by_more_than_a_minute_is_a_problem(offset: float, codes: list[str]) -> None:
    """The device is degraded then, also if its firmware does not know the offset."""
    fields = reported(offset)
    assert [problem["code"] for problem in fields["problems"]] == codes
    assert fields["state"] == ("degraded" if codes else "ok")
    assert fields["clock_offset_ms"] == offset * 1000


def test_the_devices_own_sentence_about_its_clock_stays() -> None:
    """The problem is named once."""
    own = WireError(code="clock-wrong", detail="ahead")
    assert reported(3600.0, own)["problems"] == [{"code": "clock-wrong", "detail": "ahead"}]

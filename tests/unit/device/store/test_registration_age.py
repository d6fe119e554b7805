"""The age of pending registrations when the clock is set."""

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from broker_bridge.contract.messages import RegisterIdentity
from device.store.connection import StoreConnection
from device.store.registrations import RegistrationStore
from tests.device_samples import NOON, SPACE, vector

START = datetime(1970, 1, 1, tzinfo=timezone.utc)


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[StoreConnection]:
    connection = StoreConnection(tmp_path / "device.db")
    connection.open()
    yield connection
    connection.close()


@pytest.mark.parametrize(
    "wrong",
    [datetime(1970, 1, 1, tzinfo=timezone.utc), NOON + timedelta(hours=1), NOON + timedelta(days=9000)],
)
def test_a_clock_that_is_set_expires_no_registration(connection: StoreConnection, wrong: datetime) -> None:
    """Its age counts from the first look at the right clock, and ends a day later."""
    now = [wrong]
    store = RegistrationStore(connection, utc_now=lambda: now[0])
    store.put(RegisterIdentity(request_id="r-1", space=SPACE, vector=vector(1), kind="visitor"))
    now[0] = NOON
    assert store.expire() == 0
    now[0] = NOON + timedelta(hours=23)
    assert store.expire() == 0
    now[0] = NOON + timedelta(hours=25)
    assert store.expire() == 1

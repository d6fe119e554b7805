from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local.fleet import LocalFleet
from tests.faults.scene import DEVICES, Scene


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """Yield the whole product with two simulated cameras, a process each."""
    with LocalFleet(tmp_path, DEVICES, bridge={"poll_seconds": 0.5, "lease_seconds": 2}) as fleet:
        fleet.start_servers()
        fleet.start_backend()
        yield Scene(fleet, tmp_path)

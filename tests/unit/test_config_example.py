import json
import re

import pytest

from broker_bridge.common.settings import SECTIONS, Settings, load_settings
from broker_bridge.settings import BridgeProgram
from dashboard_api.settings import ApiProgram
from deploy.local.stack import ROOT
from device.embedding.settings import WorkerSettings
from device.settings import DeviceSettings
from fleet.settings import FleetSettings

EXAMPLE = ROOT / "config_example.json"


@pytest.mark.parametrize(
    "program", [BridgeProgram, ApiProgram, DeviceSettings, WorkerSettings, FleetSettings]
)
def test_every_program_reads_the_example(program: type[Settings]) -> None:
    """One file serves all; keys come from the environment."""
    keys = {"WFM_WORKER__BACKEND_KEY": "a-key", "WFM_FLEET__API_KEY": "a-key"}
    assert isinstance(load_settings(program, EXAMPLE, keys), program)


def test_the_example_has_every_section_and_no_secret() -> None:
    """The example has every section, and no secret that could be left in."""
    document = json.loads(EXAMPLE.read_text())
    assert set(document) == set(SECTIONS)
    assert not re.search(r"password|secret|bootstrap_key|//[^/@\"]+:[^/@\"]+@", EXAMPLE.read_text())

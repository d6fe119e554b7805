from pathlib import Path
from typing import Any

import pytest

from broker_bridge.common.settings import MqttSettings, SettingsError
from broker_bridge.link import BrokerLink


def ignore(*_: Any) -> None:
    """Nothing comes in these tests."""


def test_certificates_that_cannot_be_read_are_one_sentence(tmp_path: Path) -> None:
    """It names the files; the bridge does not start and try for ever."""
    settings = MqttSettings(ca_file=tmp_path / "absent.pem")
    with pytest.raises(SettingsError, match=r"certificates cannot be read .*absent\.pem"):
        BrokerLink(settings, client_id="b", subscriptions=(), handle=ignore, refuse=ignore, share_group="g")

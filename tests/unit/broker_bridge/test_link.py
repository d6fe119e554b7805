from pathlib import Path
from typing import Any

import pytest

from broker_bridge.common.settings import MqttSettings, SettingsError
from broker_bridge.link import BrokerLink


def ignore(*_: Any) -> None:
    """Accept any call; no message arrives in these tests."""


def test_unreadable_certificates_raise_one_sentence(tmp_path: Path) -> None:
    """The error names the files, and the bridge does not start."""
    settings = MqttSettings(ca_file=tmp_path / "absent.pem")
    with pytest.raises(SettingsError, match=r"certificates cannot be read .*absent\.pem"):
        BrokerLink(settings, client_id="b", subscriptions=(), handle=ignore, reject=ignore, share_group="g")

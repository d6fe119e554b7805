"""What `IoTClient` needs to know."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from broker_bridge.contract.messages import SpaceInfo
from broker_bridge.contract.settings import MqttSettings

from .backoff import Backoff

_SCHEMES = {"mqtt": 1883, "mqtts": 8883}


@dataclass(frozen=True)
class IoTClientConfig:
    """One device and its broker. Times in seconds."""

    device_id: str
    site_id: str
    mqtt: MqttSettings
    spaces: Mapping[str, SpaceInfo]
    software: str = "wfm-fleet"
    hardware: str | None = None
    dev_mode: bool = False
    reconnect: Backoff = field(default_factory=lambda: Backoff(base=1.0, cap=60.0))
    connect_timeout: float = 3.0
    drain_seconds: float = 3.0


def mqtt_settings(broker_url: str, ca_file: Path | None = None) -> MqttSettings:
    """Settings for `mqtt://[user:password@]host[:port]`, or `mqtts://` with the authority's `ca_file`.

    Raises ValueError with a sentence for anything else.
    """
    url = urlsplit(broker_url)
    if url.scheme not in _SCHEMES or not url.hostname:
        raise ValueError("a broker URL is mqtt://host:port or mqtts://host:port")
    if (url.scheme == "mqtts") != (ca_file is not None):
        raise ValueError(
            "mqtts:// needs ca_file, the authority that the broker is checked against; mqtt:// none"
        )
    return MqttSettings.model_validate(
        {
            "host": url.hostname,
            "port": url.port or _SCHEMES[url.scheme],
            "username": unquote(url.username) if url.username else None,
            "password": unquote(url.password) if url.password else None,
            "ca_file": ca_file,
        }
    )

"""What `IoTClient` needs to know."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from broker_bridge.contract.messages import SpaceInfo
from broker_bridge.contract.settings import MqttSettings, SettingsError

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


def check_tls_files(settings: MqttSettings) -> None:
    """Raise SettingsError unless the files that `settings` names can be used; without any, do nothing."""
    if settings.ca_file is None:
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(settings.ca_file)
    except OSError as error:
        raise SettingsError(
            [f"mqtt.ca_file: {settings.ca_file} cannot be used ({_reason(error)})"]
        ) from error
    if settings.cert_file is None:
        return
    try:
        # An empty password: a key that has one is refused here, where OpenSSL would ask the terminal for it.
        context.load_cert_chain(settings.cert_file, settings.key_file, password="")
    except OSError as error:
        names = f"{settings.cert_file} and {settings.key_file}"
        raise SettingsError(
            [f"mqtt.cert_file, mqtt.key_file: {names} cannot be used ({_reason(error)})"]
        ) from error


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"not a PEM file, or a key with a password or of another certificate: {error.reason}"
    return error.strerror or str(error)


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

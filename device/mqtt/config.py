"""The configuration of `IoTClient`."""

import ssl
from collections.abc import Mapping
from dataclasses import KW_ONLY, InitVar, dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from broker_bridge.common.masking import ENCODING_HINT
from broker_bridge.common.retry import Backoff
from broker_bridge.common.settings import MqttSettings, SettingsError
from broker_bridge.contract.default_space import DEFAULT_FACE_SPACE
from broker_bridge.contract.ids import DEVICE_ID
from broker_bridge.contract.messages import SpaceInfo

DEFAULT_SITE = "default"
_SCHEMES = {"mqtt": 1883, "mqtts": 8883}
_URL = f"a broker URL is mqtt://[user:password@]host[:port], or mqtts:// for TLS; {ENCODING_HINT}"
# For systems where OpenSSL's default names no file: Debian, Ubuntu, and so JetPack.
_SYSTEM_AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")


def default_spaces() -> dict[str, SpaceInfo]:
    """Return the space that the API enrolls faces in by default."""
    return {DEFAULT_FACE_SPACE.space: SpaceInfo(dimension=DEFAULT_FACE_SPACE.dimension)}


@dataclass(frozen=True)
class IoTClientConfig:
    """One device and its broker (seed 003). Times are in seconds.

    The broker is given as `mqtt`, or as `broker_url` with `api_key`, the broker's password for this
    device. The user name is then the device id, unless the URL has a login of its own. The certificate of
    `mqtts://` is checked against `ca_file`, or against the system's authorities without one. Both forms
    become `mqtt`; its representation shows no secret. `db_path` is the database of a client that opens
    its own.

    Raises ValueError for an id or a URL that cannot be used.
    """

    device_id: str
    _: KW_ONLY
    broker_url: InitVar[str | None] = None
    api_key: InitVar[str | None] = None
    ca_file: InitVar[str | Path | None] = None
    site_id: str = DEFAULT_SITE
    mqtt: MqttSettings = field(default_factory=MqttSettings)
    spaces: Mapping[str, SpaceInfo] = field(default_factory=default_spaces)
    db_path: Path = Path("device.db")
    software: str = "wfm-fleet"
    hardware: str | None = None
    dev_mode: bool = False
    reconnect: Backoff = field(default_factory=lambda: Backoff(base=1.0, cap=60.0))
    connect_timeout: float = 3.0
    drain_seconds: float = 3.0

    def __post_init__(self, broker_url: str | None, api_key: str | None, ca_file: str | Path | None) -> None:
        for name, value in (("device_id", self.device_id), ("site_id", self.site_id)):
            if not DEVICE_ID.match(value):
                raise ValueError(
                    f"{name} {value!r}: expected up to 63 of a-z, 0-9 and -, not starting with -"
                )
        if broker_url is not None:
            if self.mqtt != MqttSettings():
                raise ValueError("expected the broker as broker_url or as mqtt, got both")
            object.__setattr__(self, "mqtt", mqtt_settings(broker_url, ca_file, self.device_id, api_key))
        elif api_key is not None or ca_file is not None:
            raise ValueError("api_key and ca_file need broker_url; mqtt has fields of its own for them")


def check_tls_files(settings: MqttSettings) -> None:
    """Raise SettingsError if a certificate or key in `settings` is unusable."""
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
        # An empty password: for a key that has one, OpenSSL would otherwise ask on the terminal.
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


def mqtt_settings(
    broker_url: str,
    ca_file: str | Path | None = None,
    device_id: str | None = None,
    api_key: str | None = None,
) -> MqttSettings:
    """Return the settings for the broker's URL, with `ca_file` for `mqtts://`.

    The URL is `mqtt://[user:password@]host[:port]` or `mqtts://`. A missing user name is `device_id`, a
    missing password `api_key`. Raises ValueError with a sentence that quotes nothing of the URL, which
    may contain a password.
    """
    try:
        url = urlsplit(broker_url)
        host, port = url.hostname, url.port
    except ValueError:
        # The parser's sentence may quote a part of the password.
        raise ValueError(_URL) from None
    if url.scheme not in _SCHEMES or not host or url.path not in ("", "/") or url.query or url.fragment:
        raise ValueError(_URL)
    if url.scheme == "mqtt" and ca_file is not None:
        raise ValueError("ca_file needs mqtts://; mqtt:// is not encrypted")
    password = unquote(url.password) if url.password else api_key
    return MqttSettings(
        host=host,
        port=port or _SCHEMES[url.scheme],
        username=unquote(url.username) if url.username else device_id if password else None,
        password=SecretStr(password) if password else None,
        ca_file=(Path(ca_file) if ca_file else _system_authorities()) if url.scheme == "mqtts" else None,
    )


def _system_authorities() -> Path:
    named = ssl.get_default_verify_paths().cafile
    file = Path(named) if named else _SYSTEM_AUTHORITIES
    if not file.is_file():
        raise ValueError("mqtts:// needs ca_file: this system has no file of trusted authorities")
    return file

"""Broker settings from firmware's parameters, without secrets when printed."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from broker_bridge.common.settings import MqttSettings
from broker_bridge.contract.default_space import DEFAULT_FACE_SPACE
from dashboard_api.settings import ApiSettings
from device.mqtt.config import IoTClientConfig, mqtt_settings


def login(settings: MqttSettings) -> tuple[str | None, str | None]:
    return settings.username, settings.password.get_secret_value() if settings.password else None


@pytest.mark.parametrize(
    ("url", "api_key", "expected"),
    [
        ("mqtt://broker", None, (None, None)),
        ("mqtt://broker", "key", ("cam-001", "key")),
        ("mqtt://gate@broker", "key", ("gate", "key")),
        ("mqtt://gate:p%40ss@broker", None, ("gate", "p@ss")),
        ("mqtt://gate:p%40ss@broker", "key", ("gate", "p@ss")),
        ("mqtt://:p%40ss@broker", None, ("cam-001", "p@ss")),
    ],
)
def test_the_key_is_the_password_of_the_device_unless_the_url_has_a_login(
    url: str, api_key: str | None, expected: tuple[str | None, str | None]
) -> None:
    """A login in the URL is percent-decoded."""
    config = IoTClientConfig(device_id="cam-001", broker_url=url, api_key=api_key)
    assert login(config.mqtt) == expected


def test_the_default_port_follows_the_scheme() -> None:
    """The ports are 1883 for `mqtt` and 8883 for `mqtts`."""
    authority = Path("/etc/wfm/ca.pem")
    plain, tls = mqtt_settings("mqtt://broker/"), mqtt_settings("mqtts://broker", authority)
    assert (plain.host, plain.port, plain.ca_file) == ("broker", 1883, None)
    assert (tls.host, tls.port, tls.ca_file) == ("broker", 8883, authority)
    assert mqtt_settings("mqtt://broker:2883").port == 2883


def test_tls_without_a_ca_file_uses_the_systems_authorities(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TLS without any authority would give no protection."""
    bundle = tmp_path / "authorities.pem"
    bundle.touch()
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    assert mqtt_settings("mqtts://broker").ca_file == bundle


@pytest.mark.parametrize(
    "url",
    [
        "https://broker", "mqtt://", "broker:1883", "mqtt://broker/path", "mqtt://broker?tls=1", "mqtt://broker:99999",
        "mqtt://cam-001:se/cret@broker", "mqtt://cam-001:secret@[broker",
    ],
)  # fmt: skip
def test_an_unusable_broker_url_is_refused(url: str) -> None:
    """The sentence quotes nothing of the URL, which may contain a password."""
    with pytest.raises(ValueError, match="a broker URL is mqtt://") as refused:
        mqtt_settings(url)
    assert "cret" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_a_ca_file_for_an_unencrypted_connection_is_a_mistake() -> None:
    """The error says that the connection is not encrypted."""
    with pytest.raises(ValueError, match="mqtt:// is not encrypted"):
        mqtt_settings("mqtt://broker", Path("ca.pem"))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"device_id": "Cam 1"}, "device_id 'Cam 1': expected"),
        ({"device_id": "cam-001", "site_id": "lobby/#"}, "site_id 'lobby/#': expected"),
        ({"device_id": "cam-001", "api_key": "key"}, "need broker_url"),
        (
            {"device_id": "cam-001", "broker_url": "mqtt://a", "mqtt": MqttSettings(host="b")},
            "got both",
        ),
    ],
)
def test_a_mistake_is_one_sentence(fields: dict, sentence: str) -> None:
    """Ids must fit a topic, and the broker is given once and completely."""
    with pytest.raises(ValueError, match=sentence):
        IoTClientConfig(**fields)


def test_no_secret_is_shown() -> None:
    """The representation has neither the key nor a password of the URL."""
    for config in (
        IoTClientConfig(device_id="cam-001", broker_url="mqtt://broker", api_key="sample-key"),
        IoTClientConfig(device_id="cam-001", broker_url="mqtt://cam-001:sample-key@broker"),
        IoTClientConfig(device_id="cam-001", mqtt=MqttSettings(password=SecretStr("sample-key"))),
    ):
        assert "sample-key" not in f"{config!r} {config} {vars(config)}"


def test_defaults_fit_the_firmware_examples() -> None:
    """They are the space of the API, a site and a file in the working folder."""
    config = IoTClientConfig(device_id="cam-001", broker_url="mqtt://broker")
    assert list(config.spaces) == [DEFAULT_FACE_SPACE.space] == [ApiSettings().default_spaces["face"]]
    assert config.spaces[DEFAULT_FACE_SPACE.space].dimension == DEFAULT_FACE_SPACE.dimension
    assert (config.site_id, config.db_path, config.dev_mode) == ("default", Path("device.db"), False)

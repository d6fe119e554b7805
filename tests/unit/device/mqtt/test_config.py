"""What firmware tells of its broker, settled into settings that show no secret."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from broker_bridge.common.settings import MqttSettings
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
    """Percent-encoded in the URL where needed."""
    config = IoTClientConfig(device_id="cam-001", broker_url=url, api_key=api_key)
    assert login(config.mqtt) == expected


def test_ports_are_those_of_the_scheme_unless_named() -> None:
    """1883 in the clear, 8883 with TLS."""
    authority = Path("/etc/wfm/ca.pem")
    plain, tls = mqtt_settings("mqtt://broker/"), mqtt_settings("mqtts://broker", authority)
    assert (plain.host, plain.port, plain.ca_file) == ("broker", 1883, None)
    assert (tls.host, tls.port, tls.ca_file) == ("broker", 8883, authority)
    assert mqtt_settings("mqtt://broker:2883").port == 2883


def test_tls_without_an_authority_of_ones_own_trusts_the_systems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TLS without an authority would be no protection."""
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
def test_a_broker_url_that_cannot_be_used_is_refused_with_a_sentence(url: str) -> None:
    """Which quotes nothing of it: it may hold a password."""
    with pytest.raises(ValueError, match="a broker URL is mqtt://") as refused:
        mqtt_settings(url)
    assert "cret" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_an_authority_for_an_unencrypted_line_is_a_mistake() -> None:
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
def test_a_mistake_is_said_in_one_sentence(fields: dict, sentence: str) -> None:
    """Ids that no topic can hold, and a broker that is given twice or by half."""
    with pytest.raises(ValueError, match=sentence):
        IoTClientConfig(**fields)


def test_no_secret_is_shown() -> None:
    """Neither the key nor a password of the URL, however the configuration is printed."""
    for config in (
        IoTClientConfig(device_id="cam-001", broker_url="mqtt://broker", api_key="sample-key"),
        IoTClientConfig(device_id="cam-001", broker_url="mqtt://cam-001:sample-key@broker"),
        IoTClientConfig(device_id="cam-001", mqtt=MqttSettings(password=SecretStr("sample-key"))),
    ):
        assert "sample-key" not in f"{config!r} {config} {vars(config)}"


def test_what_is_left_out_suits_the_examples_of_firmware() -> None:
    """ArcFace's space, a site, and a file in the working directory."""
    config = IoTClientConfig(device_id="cam-001", broker_url="mqtt://broker")
    assert {space: info.dimension for space, info in config.spaces.items()} == {"face:arcface": 512}
    assert (config.site_id, config.db_path, config.dev_mode) == ("default", Path("device.db"), False)

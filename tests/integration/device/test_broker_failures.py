"""What a device says about each failure of a real broker."""

import getpass
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from broker_bridge.common.retry import Backoff
from broker_bridge.common.settings import MqttSettings
from deploy.local.mosquitto import find_mosquitto
from deploy.local.stack import Mosquitto, Program, free_port
from device.client.iot_client import IoTClient
from device.doctor.broker_probe import BrokerError, probe_broker
from device.mqtt.config import IoTClientConfig
from tests.waiting import wait_until

PASSWORD = "correct-horse"
KEY = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
CA = """\
[ca]
default_ca=own
[own]
database=index.txt
new_certs_dir=.
rand_serial=yes
default_md=sha256
policy=any
[any]
commonName=supplied
"""


def openssl(folder: Path, command: str) -> None:
    subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two authorities and three certificates of the first one."""
    folder = tmp_path_factory.mktemp("certificates")
    for authority in ("ca", "other"):
        openssl(
            folder,
            f"req -x509 {KEY} -keyout {authority}.key -out {authority}.crt -subj /CN={authority} -days 2",
        )
    (folder / "index.txt").touch()
    (folder / "index.txt.attr").write_text("unique_subject = no\n")
    (folder / "ca.cnf").write_text(CA)
    for name, address, days in (
        ("good", "IP:127.0.0.1", "-days 2"),
        ("elsewhere", "DNS:broker.example", "-days 2"),
        ("expired", "IP:127.0.0.1", "-startdate 20200101000000Z -enddate 20200201000000Z"),
        ("future", "IP:127.0.0.1", "-startdate 20900101000000Z -enddate 20910201000000Z"),
    ):
        (folder / f"{name}.ext").write_text(f"subjectAltName={address}\n")
        openssl(folder, f"req {KEY} -keyout {name}.key -out {name}.csr -subj /CN={name}")
        openssl(
            folder,
            f"ca -batch -notext -config ca.cnf -keyfile ca.key -cert ca.crt -in {name}.csr -out {name}.crt "
            f"-extfile {name}.ext {days}",
        )
    return folder


@pytest.fixture(scope="module")
def ports(certificates: Path) -> Iterator[dict[str, int]]:
    """Start a broker with a listener per certificate; yield their ports by name."""
    lines = [f"user {getpass.getuser()}", "per_listener_settings true"]
    ports = {}
    for name in ("good", "elsewhere", "expired", "future", "mutual"):
        ports[name] = free_port()
        own = "good" if name == "mutual" else name
        lines += [
            f"listener {ports[name]} 127.0.0.1",
            "allow_anonymous true",
            f"cafile {certificates}/ca.crt",
            f"certfile {certificates}/{own}.crt",
            f"keyfile {certificates}/{own}.key",
            f"require_certificate {'true' if name == 'mutual' else 'false'}",
        ]
    (certificates / "mosquitto.conf").write_text("\n".join([*lines, ""]))
    broker = Program(
        [find_mosquitto(), "-c", certificates / "mosquitto.conf"], certificates / "log", name="mosquitto"
    )
    broker.start()
    broker.wait_for_line("mosquitto version .* running")
    yield ports
    broker.kill()


CASES: dict[str, tuple[dict[str, Any], str, str]] = {
    # name: settings, code, a part of the advice
    "a plain client at a TLS port": ({"port": "good"}, "broker-connection-ended", "wants TLS"),
    "a TLS client at a plain port": ({"port": "plain", "ca_file": "ca.crt"}, "tls-not-spoken", "8883"),
    "an expired certificate": ({"port": "expired", "ca_file": "ca.crt"}, "tls-expired", "renew it"),
    "a certificate of the future": ({"port": "future", "ca_file": "ca.crt"}, "tls-not-yet-valid", "clock"),
    "an unknown authority": ({"port": "good", "ca_file": "other.crt"}, "tls-authority", "CA_FILE"),
    "another name": ({"port": "elsewhere", "ca_file": "ca.crt"}, "tls-hostname", "WFM_MQTT__HOST"),
    "a missing client certificate": (
        {"port": "mutual", "ca_file": "ca.crt"}, "broker-connection-ended", "client certificate"
    ),
    "a wrong password": (
        {"port": "plain", "username": "cam-001", "password": PASSWORD}, "broker-denied", "WFM_MQTT__PASSWORD"
    ),
    "an unknown user": (
        {"port": "plain", "username": "stranger", "password": PASSWORD}, "broker-denied", "WFM_MQTT__USERNAME"
    ),
    "no login": ({"port": "plain"}, "broker-denied", "WFM_MQTT__USERNAME"),
    "a closed port": ({"port": "closed"}, "broker-refused-tcp", "that the broker runs"),
    "an unknown name": ({"host": "broker.invalid"}, "broker-name", "DNS"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_failure_has_a_sentence_of_its_own(
    case: str,
    ports: dict[str, int],
    certificates: Path,
    mosquitto: Mosquitto,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The log says what happened and what to do, and no secret; the doctor agrees."""
    changes, code, advice = CASES[case]
    known = {**ports, "plain": mosquitto.port, "closed": free_port()}
    fields: dict[str, Any] = {"host": "127.0.0.1", **changes, "port": known[changes.get("port", "plain")]}
    if "ca_file" in changes:
        fields["ca_file"] = certificates / changes["ca_file"]
    if "password" in changes:
        fields["password"] = SecretStr(PASSWORD)
    settings = MqttSettings(**fields)
    config = IoTClientConfig(
        "cam-001", mqtt=settings, db_path=tmp_path / "device.db", reconnect=Backoff(60.0, 60.0)
    )
    client = IoTClient(config)
    client.start()

    def sentences() -> list[str]:
        lines = [record.getMessage() for record in caplog.records]
        return [line for line in lines if line.startswith("broker connection down")]

    wait_until(sentences, "a sentence", 20.0)
    client.stop()
    [sentence] = sentences()
    assert f"({code})" in sentence
    assert advice in sentence
    assert PASSWORD not in caplog.text
    assert "Unspecified" not in caplog.text
    assert "Traceback" not in caplog.text

    with pytest.raises(BrokerError) as found:
        probe_broker(settings, "cam-001", login=True, seconds=5.0)
    if case != "a missing client certificate":
        # There the doctor waits for the broker's alert and says more.
        assert f"({code})" in str(found.value)
        assert found.value.advice in sentence

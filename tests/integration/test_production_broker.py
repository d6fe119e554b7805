"""deploy/mosquitto/mosquitto.conf on a real broker with certificates of the test."""

import getpass
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from deploy.local.mosquitto import TEMPLATES, find_mosquitto
from deploy.local.stack import Mongod, Program, free_port
from tests.conftest import StartProgram

SUBJECTS = ["broker", "bridge", "cam-001", "cam-002"]
Connect = Callable[..., AbstractAsyncContextManager[aiomqtt.Client]]


def openssl(folder: Path, command: str) -> None:
    subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with an authority, its empty CRL and a key pair per subject."""
    folder = tmp_path_factory.mktemp("certs")
    key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
    openssl(folder, f"req -x509 {key} -keyout ca.key -out ca.crt -subj /CN=fleet -days 2")
    for name in SUBJECTS:
        openssl(folder, f"req {key} -keyout {name}.key -out {name}.csr -subj /CN={name}")
        extension = folder / f"{name}.ext"
        extension.write_text(
            "subjectAltName=IP:127.0.0.1\n" if name == "broker" else "basicConstraints=CA:FALSE\n"
        )
        openssl(
            folder,
            f"x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out {name}.crt -days 2 "
            f"-extfile {extension.name}",
        )
    (folder / "index.txt").touch()
    (folder / "ca.cnf").write_text("[ca]\ndefault_ca=own\n[own]\ndatabase=index.txt\ndefault_md=sha256\n")
    openssl(folder, "ca -config ca.cnf -gencrl -keyfile ca.key -cert ca.crt -crldays 2 -out ca.crl")
    return folder


@pytest.fixture
def port(tmp_path: Path, certificates: Path) -> Iterator[int]:
    """Start a broker with the production files and other paths; yield its port."""
    port = free_port(8883)
    text = (TEMPLATES / "mosquitto.conf").read_text(encoding="utf-8")
    for line, local in {
        "listener 8883": f"user {getpass.getuser()}\nlistener {port} 127.0.0.1",
        "/etc/mosquitto/certs": str(certificates),
        "/etc/mosquitto/common": str(TEMPLATES / "common"),
        "/etc/mosquitto/acl": str(TEMPLATES / "acl"),
        "/var/lib/mosquitto": str(tmp_path),
        "log_dest syslog": "log_dest stderr",
    }.items():
        assert line in text
        text = text.replace(line, local)
    (tmp_path / "mosquitto.conf").write_text(text, encoding="utf-8")
    broker = Program(
        [find_mosquitto(), "-c", tmp_path / "mosquitto.conf"], tmp_path / "broker.log", name="mosquitto"
    )
    broker.start()
    broker.wait_for_line("mosquitto version .* running")
    yield port
    broker.kill()


@pytest.fixture
def connect(port: int, certificates: Path) -> Connect:
    """Connects with the certificate of `name`."""

    @asynccontextmanager
    async def open_client(name: str, **options: Any) -> AsyncIterator[aiomqtt.Client]:
        context = ssl.create_default_context(cafile=str(certificates / "ca.crt"))
        context.load_cert_chain(certificates / f"{name}.crt", certificates / f"{name}.key")
        # The same client id for all: the broker is to put the certificate's name in its place.
        options = {"identifier": "same", "protocol": aiomqtt.ProtocolVersion.V5, "timeout": 5, **options}
        async with aiomqtt.Client("127.0.0.1", port, tls_context=context, **options) as client:
            yield client

    return open_client


async def test_the_certificate_is_the_identity(connect: Connect) -> None:
    """cam-001 stays cam-001, whatever user name and client id it claims."""
    mine, other = "wfm/v1/device/cam-001/up/status", "wfm/v1/device/cam-002/up/status"
    async with connect("bridge") as bridge, connect("cam-001", username="cam-002") as device:
        await bridge.subscribe("wfm/v1/device/+/up/#", qos=1)
        await device.publish(other, b"{}", qos=1)
        await device.publish(mine, b"{}", qos=1)
        first = await anext(aiter(bridge.messages))
    assert str(first.topic) == mine


def test_bridge_and_camera_meet_over_tls(
    port: int,
    certificates: Path,
    mongod: Mongod,
    mongo_database: str,
    start_program: StartProgram,
    tmp_path: Path,
) -> None:
    """Events of a camera with a certificate come back receipted from the bridge."""

    def mqtt(name: str) -> dict[str, str]:
        files = {"CA_FILE": "ca.crt", "CERT_FILE": f"{name}.crt", "KEY_FILE": f"{name}.key"}
        paths = {f"WFM_MQTT__{key}": str(certificates / file) for key, file in files.items()}
        return {"WFM_MQTT__HOST": "127.0.0.1", "WFM_MQTT__PORT": str(port), **paths}

    mongo = {"WFM_MONGO__URI": mongod.uri, "WFM_MONGO__DATABASE": mongo_database}
    environment = {**mqtt("bridge"), **mongo, "WFM_BRIDGE__AUTO_REGISTER": "true"}
    bridge = start_program([sys.executable, "-m", "broker_bridge"], environment, "bridge")
    bridge.wait_for_line("connected to the broker")
    options = ["--prefix", "cam", "--count", "5", "--rate", "0", "--data-dir", str(tmp_path / "camera")]
    camera = start_program([sys.executable, "-m", "device", "simulate", *options], mqtt("cam-001"), "camera")
    assert camera.wait(30) == 0, camera.output()
    assert '"stored": 5' in camera.output()


def test_a_client_without_a_certificate_is_refused(port: int, certificates: Path) -> None:
    """The broker ends the handshake of a client without a certificate of the fleet."""
    context = ssl.create_default_context(cafile=str(certificates / "ca.crt"))
    with (
        pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"),
        socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secured,
    ):
        # In TLS 1.3 the client's part of the handshake ends first; the refusal comes with the first read.
        secured.recv(1)

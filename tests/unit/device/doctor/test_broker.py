"""The doctor's broker check: unreachable, silent or foreign servers, certificates."""

import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from broker_bridge.common.settings import MqttSettings
from deploy.local.stack import free_port
from device.bootstrap import sole_owner
from device.doctor.broker import check_broker
from device.doctor.broker_probe import BrokerError, probe_broker
from device.doctor.certificates import certificate_ends
from tests.device_samples import NOON

SECRET = "correct horse battery staple"
CONNACK = b"\x20\x03\x00\x00\x00"


@contextmanager
def server(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """Listen on a free port; pass its first connection to `talk`."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                talk(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        thread.join(5)


def mqtt(port: int, **changes) -> MqttSettings:
    return MqttSettings.model_validate({"port": port, "username": "cam-001", "password": SECRET, **changes})


def answering(reply: bytes, packets: list[bytes] | None = None) -> Callable[[socket.socket], None]:
    def talk(connection: socket.socket) -> None:
        packet = connection.recv(4096)
        connection.sendall(reply)
        if packets is not None:
            packets.extend([packet, connection.recv(4096)])

    return talk


def failure(settings: MqttSettings, seconds: float = 5.0) -> BrokerError:
    with pytest.raises(BrokerError) as caught:
        probe_broker(settings, "cam-001", login=True, seconds=seconds)
    assert SECRET not in f"{caught.value} {caught.value.advice}"
    return caught.value


def test_a_login_is_one_connect_and_one_disconnect() -> None:
    """The login uses MQTT 5, the device's id, a clean start and no last will."""
    packets: list[bytes] = []
    with server(answering(CONNACK, packets)) as port:
        contact = probe_broker(mqtt(port), "cam-001", login=True, seconds=5)
    assert contact.login_ms is not None
    assert contact.tls is None
    body = b"\0\4MQTT\5\xc2\0\x3c\0" + b"\0\7cam-001" * 2 + b"\0\x1c" + SECRET.encode()
    assert packets == [b"\x10" + bytes([len(body)]) + body, b"\xe0\0"]


def test_a_long_password_makes_a_long_packet() -> None:
    """A length past 127 takes two bytes."""
    packets: list[bytes] = []
    with server(answering(CONNACK, packets)) as port:
        probe_broker(mqtt(port, password="x" * 300), "cam-001", login=True, seconds=5)
    length = (packets[0][1] & 0x7F) | packets[0][2] << 7
    assert length == len(packets[0]) - 3


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (b"\x20\x03\x00\x86\x00", "refused the user name or password"),
        (b"\x20\x03\x00\x87\x00", "does not authorize this client"),
        (b"\x20\x02\x00\x01", "does not speak MQTT 5"),
        (b"\x20\x03\x00\x97\x00", "a quota of the broker is exceeded"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n" + b"x" * 200, "does not answer with MQTT"),
        (b"", "the connection ended"),
        (b"\x20", "the connection ended"),
    ],
)
def test_a_rejection_by_the_broker_is_one_sentence(reply: bytes, expected: str) -> None:
    """The error has advice and never contains the password."""
    with server(answering(reply)) as port:
        error = failure(mqtt(port))
    assert expected in str(error)
    assert error.advice
    assert "\n" not in str(error)


def test_a_closed_port_is_reported() -> None:
    """The error names host and port."""
    sentence = str(failure(mqtt(free_port())))
    assert sentence.startswith("127.0.0.1:")
    assert "nothing listens" in sentence


@pytest.mark.parametrize("host", ["a" * 64, "broker..invalid", ".invalid", "x y", ""])
def test_a_name_that_dns_cannot_have_is_refused(host: str) -> None:
    """The resolver would raise an error of its own kind at every attempt."""
    with pytest.raises(ValueError, match="host"):
        mqtt(1883, host=host)


@pytest.mark.parametrize("host", ["broker.invalid", "\u00fc" * 62])
def test_an_unknown_host_is_reported(host: str) -> None:
    """No resolver knows the domain `.invalid` (RFC 6761) or such a label."""
    assert "is unknown" in str(failure(mqtt(1883, host=host)))


def test_a_silent_server_is_reported() -> None:
    """The advice names TLS, for which the server may be waiting."""
    done = threading.Event()
    with server(lambda _connection: done.wait(5) and None) as port:
        error = failure(mqtt(port), seconds=0.2)
        done.set()
    assert "sent nothing" in str(error)
    assert "WFM_MQTT__CA_FILE" in error.advice


def test_tls_to_a_plain_broker_is_reported(authority: Path) -> None:
    """The server's answer is not TLS."""
    with server(answering(b"\x20\x02\x00\x01\x00\x00\x00\x00")) as port:
        error = failure(mqtt(port, ca_file=authority))
    assert "does not speak TLS" in str(error)


def openssl(command: str, folder: Path) -> str:
    done = subprocess.run(
        ["openssl", *command.split()], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a self-signed certificate for 127.0.0.1, valid for a day, with its key."""
    folder = tmp_path_factory.mktemp("certificates")
    openssl(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout own.key -out own.crt "
        "-subj /CN=here -days 1 -addext subjectAltName=IP:127.0.0.1",
        folder,
    )
    return folder / "own.crt"


@contextmanager
def tls_server(certificate: Path) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))

    def talk(connection: socket.socket) -> None:
        try:
            with context.wrap_socket(connection, server_side=True) as secured:
                answering(CONNACK)(secured)
        except OSError:
            # A client that does not trust the certificate leaves.
            return

    with server(talk) as port:
        yield port


def test_a_certificate_that_ends_soon_is_a_warning(authority: Path, tmp_path: Path) -> None:
    """The check reports the last day and the TLS version."""
    with tls_server(authority) as port:
        now = datetime.now(timezone.utc)
        check = check_broker(mqtt(port, ca_file=authority), "cam-001", tmp_path, now)
    assert check.state == "warning"
    assert check.values["tls_version"] == "TLSv1.3"
    ends = certificate_ends(authority)
    assert ends is not None
    assert f"lasts until {ends:%Y-%m-%d}" in check.detail
    assert "within 30 days" in str(check.advice)


def test_a_broker_with_another_name_than_its_certificate_is_a_fault(authority: Path, tmp_path: Path) -> None:
    """A certificate for 127.0.0.1 does not cover `localhost`."""
    with tls_server(authority) as port:
        settings = mqtt(port, ca_file=authority, host="localhost")
        check = check_broker(settings, "cam-001", tmp_path, datetime.now(timezone.utc))
    assert check.state == "fault"
    assert "is for another name" in check.detail


def test_an_unusable_certificate_file_is_a_fault(tmp_path: Path) -> None:
    """The check names the file, and the other checks still run."""
    file = tmp_path / "ca.crt"
    file.write_text("no certificate")
    check = check_broker(mqtt(1, ca_file=file), "cam-001", tmp_path, NOON)
    assert check.state == "fault"
    assert str(file) in check.detail


def test_an_expired_certificate_of_the_device_is_a_fault(authority: Path, tmp_path: Path) -> None:
    """The doctor does not connect: brokers report only `handshake failure`."""
    settings = mqtt(1, ca_file=authority, cert_file=authority, key_file=authority.with_suffix(".key"))
    ends = certificate_ends(authority)
    assert ends is not None
    check = check_broker(settings, "cam-001", tmp_path, ends + timedelta(seconds=1))
    assert check.state == "fault"
    assert "expired" in check.detail


def test_no_login_is_tried_while_a_device_runs_on_the_folder(tmp_path: Path) -> None:
    """A second login would end the running device's session."""
    packets: list[bytes] = []
    with sole_owner(tmp_path), server(lambda connection: packets.append(connection.recv(1))) as port:
        check = check_broker(mqtt(port), "cam-001", tmp_path, NOON)
    assert check.state == "ok"
    assert "login not tried: a device runs" in check.detail
    assert packets == [b""]


def test_no_login_is_tried_if_the_folder_cannot_be_locked(tmp_path: Path) -> None:
    """A device may be running on the folder."""
    folder = tmp_path / "data"
    folder.touch()
    with server(lambda connection: connection.recv(1) and None) as port:
        check = check_broker(mqtt(port), "cam-001", folder, NOON)
    assert "cannot be locked" in check.detail


@pytest.mark.parametrize("days", [1, 36500])
def test_the_expiry_of_a_certificate_equals_openssl(tmp_path: Path, days: int) -> None:
    """Years past 2049 have four digits in X.509."""
    openssl(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout k -out c -subj /CN=x "
        f"-days {days}",
        tmp_path,
    )
    end_date = openssl("x509 -in c -noout -enddate", tmp_path)
    ends = certificate_ends(tmp_path / "c")
    assert ends is not None
    assert ends.timestamp() == ssl.cert_time_to_seconds(end_date.removeprefix("notAfter="))


def test_the_expiry_of_another_file_is_unknown(tmp_path: Path) -> None:
    """A private key has no expiry."""
    (tmp_path / "k").write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    assert certificate_ends(tmp_path / "k") is None

"""Probe the broker step by step and name the step that fails.

The steps are name, TCP, TLS and CONNECT (MQTT 5, section 3.1); a client library separates them less clearly.
"""

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone

from broker_bridge.common.broker_failures import BrokerFailure, of_error, of_reason
from broker_bridge.common.settings import MqttSettings

_CONNACK = 0x20
_DISCONNECT = b"\xe0\x00"
_KEEPALIVE = (60).to_bytes(2, "big")
_CLEAN_START, _PASSWORD, _USERNAME = 0x02, 0x40, 0x80
_REFUSAL_SECONDS = 0.5
_LONGEST_PACKET = 1 << 20


class BrokerError(Exception):
    """A failed step, with advice."""

    def __init__(self, detail: str, advice: str) -> None:
        super().__init__(detail)
        self.advice = advice


@dataclass(frozen=True)
class BrokerContact:
    """A successful connection: the times of TCP with TLS and of CONNECT.

    None if not tried.
    """

    connect_ms: float
    tls: str | None = None
    ends: datetime | None = None
    """The expiry of the broker's certificate."""
    login_ms: float | None = None


def probe_broker(settings: MqttSettings, client_id: str, *, login: bool, seconds: float) -> BrokerContact:
    """Connect as the device `client_id`, log in if `login`, and disconnect.

    Raises BrokerError with one sentence for the step that fails, at the latest after `seconds` per step.
    """
    where = f"{settings.host}:{settings.port}"
    start = time.perf_counter()
    with (
        _tcp(settings, where, seconds) as plain,
        _explain_errors(where, seconds, tls=settings.ca_file is not None),
    ):
        context = _context(settings)
        if context is None:
            connected = _since(start)
            return BrokerContact(
                connected, login_ms=_login(plain, settings, client_id, where) if login else None
            )
        with context.wrap_socket(plain, server_hostname=settings.host) as secured:
            connected = _since(start)
            with _after_handshake(where, settings):
                _await_refusal(secured)
                secured.settimeout(seconds)
                login_ms = _login(secured, settings, client_id, where) if login else None
            return BrokerContact(connected, secured.version(), _ends(secured.getpeercert()), login_ms)


def _broker_error(where: str, failure: BrokerFailure) -> BrokerError:
    return BrokerError(f"{where}: {failure.what} ({failure.code})", failure.advice)


def _tcp(settings: MqttSettings, where: str, seconds: float) -> socket.socket:
    try:
        return socket.create_connection((settings.host, settings.port), seconds)
    except (OSError, UnicodeError) as error:
        raise _broker_error(where, of_error(error)) from error


@contextmanager
def _explain_errors(where: str, seconds: float, *, tls: bool) -> Iterator[None]:
    """Turn the errors after the TCP connection into sentences."""
    try:
        yield
    except TimeoutError as error:
        raise BrokerError(
            f"{where} accepted the connection and sent nothing for {seconds:.0f} s",
            "check that it is an MQTT broker, and whether it expects TLS (WFM_MQTT__CA_FILE)",
        ) from error
    except OSError as error:
        raise _broker_error(where, of_error(error, tls=tls)) from error


@contextmanager
def _after_handshake(where: str, settings: MqttSettings) -> Iterator[None]:
    """Turn an error after the TLS handshake into a rejection of this client."""
    try:
        yield
    except (ssl.SSLError, ConnectionError) as error:
        if settings.cert_file is not None:
            raise BrokerError(f"{where} rejects this device's certificate", _RENEW) from error
        raise BrokerError(f"{where} rejects a client without a certificate", _NO_CERTIFICATE) from error


_RENEW = "renew it, or check that the broker trusts its authority and has not revoked it"
_NO_CERTIFICATE = "set WFM_MQTT__CERT_FILE and WFM_MQTT__KEY_FILE, if it needs client certificates"


def _context(settings: MqttSettings) -> ssl.SSLContext | None:
    if settings.ca_file is None:
        return None
    context = ssl.create_default_context(cafile=str(settings.ca_file))
    if settings.cert_file is not None:
        context.load_cert_chain(settings.cert_file, settings.key_file)
    return context


def _await_refusal(secured: ssl.SSLSocket) -> None:
    """Wait briefly for the broker to reject the certificate.

    Raises ConnectionResetError.
    With TLS 1.3 the client finishes before the server has checked its certificate: the next read reports the
    rejection, and an early write may lose it. A broker that accepts sends nothing.
    """
    secured.settimeout(_REFUSAL_SECONDS)
    try:
        if not secured.recv(1):
            raise ConnectionResetError(None, "the connection ended")
    except TimeoutError:
        return


def _login(connection: socket.socket, settings: MqttSettings, client_id: str, where: str) -> float:
    """Log in and return the milliseconds from CONNECT to CONNACK; raises BrokerError."""
    start = time.perf_counter()
    connection.sendall(_connect_packet(settings, client_id))
    kind, body = _read_packet(connection)
    if kind != _CONNACK or len(body) < 2:
        raise BrokerError(f"{where} does not answer with MQTT", "check WFM_MQTT__HOST and WFM_MQTT__PORT")
    reason = body[1]
    if reason:
        raise _broker_error(where, of_reason(reason))
    took = _since(start)
    connection.sendall(_DISCONNECT)
    return took


def _connect_packet(settings: MqttSettings, client_id: str) -> bytes:
    """Return a CONNECT packet (section 3.1) without last will and session."""
    flags = _CLEAN_START
    payload = _text(client_id.encode())
    if settings.username is not None:
        flags |= _USERNAME
        payload += _text(settings.username.encode())
        if settings.password is not None:
            flags |= _PASSWORD
            payload += _text(settings.password.get_secret_value().encode())
    body = _text(b"MQTT") + bytes([5, flags]) + _KEEPALIVE + b"\0" + payload
    return b"\x10" + _varint(len(body)) + body


def _text(value: bytes) -> bytes:
    return len(value).to_bytes(2, "big") + value


def _varint(value: int) -> bytes:
    """Encode a variable byte integer (section 1.5.5)."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _read_packet(connection: socket.socket) -> tuple[int, bytes]:
    """Return type (with flags) and body of the next packet; raises OSError at the end."""
    kind = _read_bytes(connection, 1)[0]
    length, shift = 0, 0
    while True:
        digit = _read_bytes(connection, 1)[0]
        length |= (digit & 0x7F) << shift
        shift += 7
        if digit < 0x80 or shift > 21:
            break
    return kind, _read_bytes(connection, min(length, _LONGEST_PACKET))


def _read_bytes(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            raise ConnectionResetError(None, "without an answer")
        data += piece
    return data


def _since(start: float) -> float:
    return (time.perf_counter() - start) * 1000


def _ends(certificate: object) -> datetime | None:
    text = certificate.get("notAfter") if isinstance(certificate, dict) else None
    if not isinstance(text, str):
        return None
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(text), timezone.utc)

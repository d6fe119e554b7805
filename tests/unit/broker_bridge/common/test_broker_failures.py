"""Test the meaning of failures of a broker connection."""

import errno
import socket
import ssl

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from broker_bridge.common.broker_failures import SESSION_TAKEN_OVER, of_error, of_reason

# The library's own table of the codes of the standard.
FAILURES = [code for code in ReasonCode(PacketTypes.DISCONNECT).names if code >= 0x80]


@pytest.mark.parametrize("code", FAILURES)
def test_every_reason_code_has_a_sentence(code: int) -> None:
    """It says what happened and what to do, in words of ours."""
    sentence = str(of_reason(code))
    assert ": " in sentence
    assert "Unspecified" not in sentence
    assert "0x" not in sentence


def test_a_takeover_is_a_duplicate_id() -> None:
    """Its code is that of the device's problem."""
    assert of_reason(SESSION_TAKEN_OVER).code == "duplicate-id"


def test_an_end_without_a_reason_and_an_unknown_code_have_a_sentence() -> None:
    """A broker may use a code of its own."""
    assert of_reason(None).code == "broker-connection-ended"
    assert "0xf7" in str(of_reason(0xF7))


def verify_error(code: int) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError("certificate verify failed")
    error.verify_code = code
    return error


def tls_error(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, reason)
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (verify_error(10), "tls-expired"),
        (verify_error(9), "tls-not-yet-valid"),
        (verify_error(62), "tls-hostname"),
        (verify_error(64), "tls-hostname"),
        (verify_error(18), "tls-authority"),
        (verify_error(20), "tls-authority"),
        (tls_error("WRONG_VERSION_NUMBER"), "tls-not-spoken"),
        (tls_error("SSLV3_ALERT_CERTIFICATE_EXPIRED"), "tls-client-certificate"),
        (tls_error("KEY_VALUES_MISMATCH"), "tls-key"),
        (socket.gaierror(-2, "Name or service not known"), "broker-name"),
        (ConnectionRefusedError(), "broker-refused-tcp"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), "broker-refused-tcp"),
        (TimeoutError(), "broker-timeout"),
        (OSError(errno.ENETUNREACH, "unreachable"), "broker-unreachable"),
        (OSError(errno.EHOSTUNREACH, "unreachable"), "broker-unreachable"),
        (OSError(errno.EADDRNOTAVAIL, "unavailable"), "broker-unreachable"),
        (OSError(), "broker-unreachable"),
        (UnicodeError("label too long"), "broker-name"),
        (ConnectionResetError(), "broker-connection-ended"),
        (BrokenPipeError(errno.EPIPE, "broken"), "broker-connection-ended"),
        (RuntimeError("anything"), "broker-connection-ended"),
    ],
)
def test_every_error_of_the_network_has_a_code(error: BaseException, code: str) -> None:
    """TLS, TCP and name resolution are told apart."""
    assert of_error(error).code == code


@pytest.mark.parametrize(
    "error", [ConnectionResetError(errno.ECONNRESET, "reset"), ssl.SSLEOFError(8, "EOF"), BrokenPipeError()]
)
def test_an_end_in_the_handshake_is_a_port_without_tls(error: OSError) -> None:
    """Mosquitto ends a connection whose first packet is not MQTT."""
    assert of_error(error, tls=True).code == "tls-not-spoken"
    assert of_error(error).code in {"broker-connection-ended", "tls-not-spoken"}

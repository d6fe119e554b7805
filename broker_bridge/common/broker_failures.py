"""Say what a failure of a broker connection means: one table for all programs."""

import errno
import socket
import ssl
from dataclasses import dataclass

SESSION_TAKEN_OVER = 0x8E

_LOGIN = "check WFM_MQTT__USERNAME and WFM_MQTT__PASSWORD or the client certificate"
_LATER = "the connection is tried again"
_REPORT = "report it with the broker's name and version"
# MQTT 5, section 2.4; 1 to 5 are the codes of a CONNACK of MQTT 3.1.1.
_REASONS: dict[int, tuple[str, str, str]] = {
    0x01: ("broker-version", "the broker does not speak MQTT 5", "use one that does, such as Mosquitto 2"),
    0x02: ("broker-client-id", "the broker rejects the client id", "check WFM_DEVICE__ID"),
    0x03: ("broker-unavailable", "the broker is not available", _LATER),
    0x04: ("broker-login", "the broker refused the user name or password", _LOGIN),
    0x05: ("broker-login", "the broker does not authorize this client", _LOGIN),
    0x80: ("broker-refused", "the broker ended or refused it without a reason", "look into the broker's log"),
    0x81: ("broker-malformed", "the broker could not parse a packet", _REPORT),
    0x82: ("broker-protocol", "the broker met a protocol error", _REPORT),
    0x83: ("broker-refused", "the broker refused it for a reason of its own", "look into the broker's log"),
    0x84: ("broker-version", "the broker does not speak MQTT 5", "use one that does, such as Mosquitto 2"),
    0x85: ("broker-client-id", "the broker rejects the client id", "check WFM_DEVICE__ID"),
    0x86: ("broker-login", "the broker refused the user name or password", _LOGIN),
    0x87: ("broker-denied", "the broker does not authorize this client", f"{_LOGIN}, and its access rules"),
    0x88: ("broker-unavailable", "the broker is not available", _LATER),
    0x89: ("broker-busy", "the broker is busy", _LATER),
    0x8A: ("broker-banned", "the broker has banned this client", "contact the operator of the broker"),
    0x8B: ("broker-stopping", "the broker is shutting down", _LATER),
    0x8C: ("broker-login", "the broker does not know the authentication method", _LOGIN),
    0x8D: ("broker-keepalive", "the broker heard nothing within the keep-alive", "check the network"),
    0x8E: ("duplicate-id", "another client with the same id took the connection over",
           "give each device an id of its own"),
    0x8F: ("broker-filter", "the broker rejects a topic filter", _REPORT),
    0x90: ("broker-topic", "the broker rejects a topic name", _REPORT),
    0x91: ("broker-protocol", "a packet id was in use", _REPORT),
    0x92: ("broker-protocol", "a packet id was not found", _REPORT),
    0x93: ("broker-protocol", "more messages were on their way than the broker allows", _REPORT),
    0x94: ("broker-protocol", "a topic alias was invalid", _REPORT),
    0x95: ("broker-too-large", "a packet was larger than the broker allows", "raise its max_packet_size"),
    0x96: ("broker-rate", "messages came faster than the broker allows", "raise its limit of messages"),
    0x97: ("broker-quota", "a quota of the broker is exceeded", "raise its limits"),
    0x98: ("broker-administrative", "an operator of the broker ended the connection", _LATER),
    0x99: ("broker-payload", "the broker rejects the format of a payload", _REPORT),
    0x9A: ("broker-retain", "the broker does not support retained messages", "turn them on in its settings"),
    0x9B: ("broker-qos", "the broker does not support QoS 1", "turn it on in its settings"),
    0x9C: ("broker-moved", "the broker names another server", "set WFM_MQTT__HOST to that server"),
    0x9D: ("broker-moved", "the broker has moved", "set WFM_MQTT__HOST to the new server"),
    0x9E: ("broker-shared", "the broker does not support shared subscriptions", "turn them on"),
    0x9F: ("broker-rate", "connections came faster than the broker allows", _LATER),
    0xA0: ("broker-administrative", "the longest time of a connection is over", _LATER),
    0xA1: ("broker-filter", "the broker does not support subscription identifiers", _REPORT),
    0xA2: ("broker-filter", "the broker does not support wildcard subscriptions", "turn them on"),
}  # fmt: skip
_VERIFY = {
    9: ("tls-not-yet-valid", "the broker's certificate is not valid yet", "check the clock of this machine"),
    10: ("tls-expired", "the broker's certificate has expired", "renew it; check the clock of this machine"),
    62: (
        "tls-hostname",
        "the broker's certificate is for another name",
        "WFM_MQTT__HOST must be in it",
    ),
    64: ("tls-hostname", "the broker's certificate is for another address", "WFM_MQTT__HOST must be in it"),
}
_AUTHORITY = (
    "tls-authority", "the broker's certificate is not signed by a trusted authority",
    "WFM_MQTT__CA_FILE must be the authority that signed it",
)  # fmt: skip
_SILENT = (
    "broker-connection-ended", "the connection ended without a reason",
    "check the network, that the broker runs, and if it wants TLS (WFM_MQTT__CA_FILE) or client certificates",
)  # fmt: skip
_HANDSHAKE = (
    "tls-not-spoken", "the connection ended in the TLS handshake",
    "check WFM_MQTT__PORT (8883 is usual for TLS) and the broker's log",
)  # fmt: skip
_UNREACHABLE = ("broker-unreachable", "it cannot be reached", "check WFM_MQTT__HOST and the network")
_OS_ERRORS = {
    errno.ECONNREFUSED: ("broker-refused-tcp", "nothing listens there",
                         "check WFM_MQTT__HOST, WFM_MQTT__PORT and that the broker runs"),
    errno.ENETUNREACH: ("broker-unreachable", "the network is not reachable", "check the network"),
    errno.EHOSTUNREACH: ("broker-unreachable", "the host is not reachable", "check the network"),
    errno.ETIMEDOUT: ("broker-timeout", "it does not answer in time", "check the network and its firewalls"),
}  # fmt: skip


@dataclass(frozen=True)
class BrokerFailure:
    """A stable `code`, what happened, and what to do."""

    code: str
    what: str
    advice: str

    def __str__(self) -> str:
        return f"{self.what}: {self.advice} ({self.code})"


def of_reason(code: int | None) -> BrokerFailure:
    """Return the meaning of a reason code; None is an end without one."""
    if code is None:
        return BrokerFailure(*_SILENT)
    unknown = ("broker-refused", f"the broker answered 0x{code:02x}", "look into the broker's log")
    return BrokerFailure(*_REASONS.get(code, unknown))


def of_error(error: BaseException, *, tls: bool = False) -> BrokerFailure:
    """Return the meaning of an error of TLS, TCP or name resolution.

    `tls` says that it may be one of a TLS handshake: a port without TLS ends the connection then.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return BrokerFailure(*_VERIFY.get(error.verify_code, _AUTHORITY))
    if tls and isinstance(error, ssl.SSLEOFError | ConnectionResetError | BrokenPipeError):
        return BrokerFailure(*_HANDSHAKE)
    if isinstance(error, ssl.SSLError):
        return _of_tls((getattr(error, "reason", None) or "").lower())
    # Python reports a name that no DNS can have as UnicodeError.
    if isinstance(error, socket.gaierror | UnicodeError):
        return BrokerFailure("broker-name", "the host name is unknown", "check WFM_MQTT__HOST and DNS")
    number = errno.ETIMEDOUT if isinstance(error, TimeoutError) else getattr(error, "errno", None)
    if isinstance(error, ConnectionRefusedError):
        number = errno.ECONNREFUSED
    is_end = isinstance(error, ConnectionError) or not isinstance(error, OSError)
    return BrokerFailure(*_OS_ERRORS.get(number or 0, _SILENT if is_end else _UNREACHABLE))


def _of_tls(reason: str) -> BrokerFailure:
    if "alert" in reason:
        return BrokerFailure(
            "tls-client-certificate", "the broker rejects this client's certificate, or needs one",
            "check WFM_MQTT__CERT_FILE and WFM_MQTT__KEY_FILE, its expiry and its authority",
        )  # fmt: skip
    if "key_values_mismatch" in reason:
        return BrokerFailure("tls-key", "the key is not that of the certificate", "check WFM_MQTT__KEY_FILE")
    return BrokerFailure(
        "tls-not-spoken", "the port does not speak TLS", "check WFM_MQTT__PORT: 8883 is usual for TLS"
    )

"""One connection to the broker through paho; no other file imports paho.

Its callbacks run while paho holds its own locks, so they only report.
"""

import logging
import socket
from collections.abc import Callable, Sequence
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from broker_bridge.common.broker_failures import of_reason
from broker_bridge.contract import channels

from .config import IoTClientConfig
from .connection import ConnectionEvent

_log = logging.getLogger(__name__)


class _PahoPublish:
    """A message that paho sends."""

    def __init__(self, info: mqtt.MQTTMessageInfo) -> None:
        self._info = info

    def is_out(self) -> bool:
        try:
            return self._info.is_published()
        except (RuntimeError, ValueError):
            # The connection was lost before it was sent.
            return True

    def wait(self, seconds: float) -> None:
        try:
            self._info.wait_for_publish(seconds)
        except (RuntimeError, ValueError) as error:
            _log.info("broker message not sent before the connection ended error=%r", str(error))


class PahoConnection:
    """One connection and its session, from CONNECT to its end."""

    def __init__(
        self, config: IoTClientConfig, session: str, will: bytes, report: Callable[[ConnectionEvent], None]
    ) -> None:
        self.session = session
        self._config = config
        self._report = report
        settings = config.mqtt
        self._client = client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=config.device_id,
            protocol=mqtt.MQTTv5,
            reconnect_on_failure=False,
        )
        client.connect_timeout = config.connect_timeout
        client.max_inflight_messages = 100
        if settings.username is not None:
            password = settings.password.get_secret_value() if settings.password else None
            client.username_pw_set(settings.username, password)
        if settings.ca_file is not None:
            certificate, key = settings.cert_file, settings.key_file
            client.tls_set(
                str(settings.ca_file),
                certfile=str(certificate) if certificate else None,
                keyfile=str(key) if key else None,
            )
        client.will_set(channels.STATUS.topic(device_id=config.device_id), will, qos=1, retain=True)
        client.on_socket_open = _disable_nagle
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe

    def open(self) -> None:
        """Connect to the broker. Raises OSError when it cannot be reached."""
        settings = self._config.mqtt
        self._client.connect(settings.host, settings.port, settings.keepalive_seconds, clean_start=True)
        self._client.loop_start()

    def subscribe(self, filters: Sequence[tuple[str, int]]) -> None:
        options = [(name, SubscribeOptions(qos=qos)) for name, qos in filters]
        self._client.subscribe(options)

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> _PahoPublish:
        return _PahoPublish(self._client.publish(topic, payload, qos, retain))

    def close(self) -> None:
        """Disconnect; the broker does not publish the last will."""
        self._client.disconnect()
        self._client.loop_stop()

    # Callbacks of paho's thread

    def _on_connect(self, _c: object, _u: object, _f: object, reason: ReasonCode, _p: object) -> None:
        if reason.is_failure:
            self._report(ConnectionEvent(self, "refused", str(of_reason(reason.value)), code=reason.value))
        else:
            self._report(ConnectionEvent(self, "connected", address=self._address()))

    def _on_disconnect(
        self, _c: object, _u: object, flags: mqtt.DisconnectFlags, reason: ReasonCode, _p: object
    ) -> None:
        # Without a packet of the broker paho makes a reason up.
        code = reason.value if flags.is_disconnect_packet_from_server else None
        self._report(ConnectionEvent(self, "lost", str(of_reason(code)), code=code))

    def _address(self) -> str | None:
        opened: Any = self._client.socket()
        try:
            return str(opened.getsockname()[0]) if opened is not None else None
        except OSError:
            return None

    def _on_message(self, _c: object, _u: object, message: mqtt.MQTTMessage) -> None:
        self._report(
            ConnectionEvent(self, "message", "", message.topic, bytes(message.payload), message.retain)
        )

    def _on_publish(self, _c: object, _u: object, _mid: int, reason: ReasonCode, _p: object) -> None:
        if reason.is_failure:
            self._report(ConnectionEvent(self, "denied", f"a publication: {of_reason(reason.value)}"))

    def _on_subscribe(self, _c: object, _u: object, _mid: int, reasons: list[ReasonCode], _p: object) -> None:
        for reason in reasons:
            if reason.is_failure:
                self._report(ConnectionEvent(self, "denied", f"a subscription: {of_reason(reason.value)}"))


def _disable_nagle(_c: object, _u: object, opened: Any) -> None:
    """Set TCP_NODELAY on the connection's socket.

    Without it a small message waits up to 40 ms for an acknowledgement.
    """
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

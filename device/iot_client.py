"""`IoTClient`: events go out through the outbox, and what comes down reaches the parts that follow it.

The only file that knows paho. Its callbacks run while paho holds its own locks, so they report and return.
"""

import logging
import random
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import TimeoutError as ReceiptTimeout
from datetime import datetime
from typing import Any, Literal

import numpy as np
import paho.mqtt.client as mqtt
from numpy.typing import NDArray
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from broker_bridge.contract import channels
from broker_bridge.contract.channels import Channel
from broker_bridge.contract.errors import DEVICE_MISMATCH, ContractError
from broker_bridge.contract.messages import Event

from .clocks import utc_now
from .delivery import Delivery, Outcome
from .iot_config import IoTClientConfig
from .line import Came, Line
from .link import LinkListener, Publication
from .store.db_manager import DatabaseManager
from .store.outbox import Outbox

_log = logging.getLogger(__name__)

Image = NDArray[np.uint8]
EncodeImage = Callable[[Image, Sequence[float] | None], bytes | None]
"""Frame uint8[h,w,3] BGR and face box [x, y, width, height] in pixels -> JPEG within the byte budget."""


class _Sent:
    """A message in paho's hands."""

    def __init__(self, info: mqtt.MQTTMessageInfo) -> None:
        self._info = info

    def is_out(self) -> bool:
        try:
            return self._info.is_published()
        except (RuntimeError, ValueError):
            # It never went onto a connection that is gone.
            return True

    def wait(self, seconds: float) -> None:
        try:
            self._info.wait_for_publish(seconds)
        except (RuntimeError, ValueError) as error:
            _log.info("a last message did not go out: %s", error)


class _PahoConnection:
    """One connection and its session, from CONNECT to its end."""

    def __init__(
        self, config: IoTClientConfig, session: str, will: bytes, report: Callable[[Came], None]
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
        client.on_socket_open = _send_at_once
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe

    def open(self) -> None:
        """Raises OSError when the broker cannot be reached."""
        settings = self._config.mqtt
        self._client.connect(settings.host, settings.port, settings.keepalive_seconds, clean_start=True)
        self._client.loop_start()

    def subscribe(self, filters: Sequence[tuple[str, int]]) -> None:
        options = [(name, SubscribeOptions(qos=qos)) for name, qos in filters]
        self._client.subscribe(options)

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> _Sent:
        return _Sent(self._client.publish(topic, payload, qos, retain))

    def close(self) -> None:
        """End in good order: the broker does not publish the last will."""
        self._client.disconnect()
        self._client.loop_stop()

    # Called by paho's thread, which holds its locks: report and return.

    def _on_connect(self, _c: object, _u: object, _f: object, reason: ReasonCode, _p: object) -> None:
        self._report(Came(self, "refused" if reason.is_failure else "connected", str(reason)))

    def _on_disconnect(self, _c: object, _u: object, _f: object, reason: ReasonCode, _p: object) -> None:
        self._report(Came(self, "lost", str(reason)))

    def _on_message(self, _c: object, _u: object, message: mqtt.MQTTMessage) -> None:
        self._report(Came(self, "message", "", message.topic, bytes(message.payload), message.retain))

    def _on_publish(self, _c: object, _u: object, _mid: int, reason: ReasonCode, _p: object) -> None:
        if reason.is_failure:
            self._report(Came(self, "denied", f"a publication: {reason}"))

    def _on_subscribe(self, _c: object, _u: object, _mid: int, reasons: list[ReasonCode], _p: object) -> None:
        for reason in reasons:
            if reason.is_failure:
                self._report(Came(self, "denied", f"a subscription: {reason}"))


def _send_at_once(_c: object, _u: object, opened: Any) -> None:
    """Without TCP_NODELAY a small message waits up to 40 ms for the acknowledgement of the one before."""
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class IoTClient:
    """One device's line to the broker (seed 003): implements `Link` for the parts that are attached to it.

    `encode_image` turns frames into JPEG; without it, events given with a frame go without an image.
    """

    def __init__(
        self,
        config: IoTClientConfig,
        db: DatabaseManager,
        outbox: Outbox,
        *,
        source: random.Random,
        encode_image: EncodeImage | None = None,
        clock: Callable[[], float] = time.monotonic,
        utc_now: Callable[[], datetime] = utc_now,
    ) -> None:
        self.config = config
        self.outbox = outbox
        self._encode_image = encode_image
        self.line = Line(
            config,
            db,
            lambda session, will, report: _PahoConnection(config, session, will, report),
            drained=lambda: outbox.depth == 0,
            source=source,
            clock=clock,
            utc_now=utc_now,
        )
        self.delivery = Delivery(outbox, self.line)
        self.line.attach(self.delivery)
        self._wake_is_queued = False
        self._request_sync: Callable[[int | None], None] | None = None

    def attach(self, listener: LinkListener) -> None:
        """Add a part that follows the connection; before `start`."""
        self.line.attach(listener)

    def start(self) -> None:
        """Connect, and reconnect for ever, in a thread of its own."""
        self.line.start()

    def stop(self, timeout: float = 8.0) -> None:
        """Send what waits for a few seconds, say `stopped`, disconnect. What has no receipt stays on disk."""
        self.line.stop(timeout)

    @property
    def is_connected(self) -> bool:
        return self.line.is_up

    def publish(self, channel: Channel[Any], payload: bytes, **ids: str) -> Publication | None:
        return self.line.publish(channel, payload, **ids)

    def submit(self, action: Callable[[], None]) -> None:
        self.line.submit(action)

    def send_event(
        self, event: Event, image: bytes | Image | None = None, face_bbox: Sequence[float] | None = None
    ) -> None:
        """Store `event` with its image (JPEG, or a frame to crop round `face_bbox`), then send it at once.

        Returns when it is on disk. Raises ContractError for what could never be stored (`payload-too-large`,
        `device-mismatch`), StoreError if the disk refuses.
        """
        if event.device_id != self.config.device_id:
            raise ContractError(DEVICE_MISMATCH, f"an event of another device than {self.config.device_id}")
        if image is not None and not isinstance(image, bytes):
            image = self._encode_image(image, face_bbox) if self._encode_image else None
        self.outbox.put(event, image)
        if not self._wake_is_queued:
            self._wake_is_queued = True
            self.submit(self._wake)

    def _wake(self) -> None:
        # The delivery's tick, which follows, sends what is due.
        self._wake_is_queued = False

    def send_event_sync(
        self,
        event: Event,
        timeout: float = 5.0,
        image: bytes | Image | None = None,
        face_bbox: Sequence[float] | None = None,
    ) -> Outcome | Literal["pending"]:
        """`send_event`, then wait `timeout` seconds for the bridge's word; `pending` stays in the outbox."""
        receipt = self.delivery.await_receipt(event.event_id)
        try:
            self.send_event(event, image, face_bbox)
            return receipt.result(timeout)
        except ReceiptTimeout:
            return "pending"
        finally:
            self.delivery.give_up(event.event_id)

    def follow_with(self, request_sync: Callable[[int | None], None]) -> None:
        """Who answers `request_sync`: the sync manager's method of that name."""
        self._request_sync = request_sync

    def request_sync(self, since_version: int | None = None) -> None:
        """Ask the registry for changes (seed 003); see `SyncManager.request_sync`. The answer is applied."""
        if self._request_sync is None:
            raise RuntimeError("this client has no sync manager; SyncManagerFactory.create wires one")
        self._request_sync(since_version)

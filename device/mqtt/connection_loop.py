"""The broker connection of a device, kept up by one thread.

The thread connects, receives, calls the listeners, and reconnects. Every connection has a session of its
own: no message of an older connection arrives late or is sent again.
"""

import logging
import queue
import random
import secrets
import threading
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal

from broker_bridge.common.broker_failures import of_error
from broker_bridge.common.retry import Backoff
from broker_bridge.contract import channels
from broker_bridge.contract.channels import Channel, decode
from broker_bridge.contract.errors import ContractError
from broker_bridge.contract.messages import DeviceInfo, DeviceStatus
from device.store.db_manager import DatabaseManager
from device.store.sessions import next_session

from .config import IoTClientConfig
from .connection import Connection, ConnectionEvent, OpenConnection, PendingPublish
from .link import SessionListener
from .listeners import Listeners
from .takeovers import Takeovers

_log = logging.getLogger(__name__)

# After a connection of this length the next failure counts as the first one.
_STABLE_SECONDS = 5.0
_CONNACK_SECONDS = 10.0
_STOPPED_STATUS_SECONDS = 2.0
_MAX_QUEUED_MESSAGES = 10_000
_ERROR_PAUSE = Backoff(base=0.1, cap=5.0)
# The info shows another program that uses this id.
_FOLLOWED = (
    channels.RECEIPT, channels.SYNC_PAGE, channels.SYNC_HEAD, channels.SYNC_DELTA,
    channels.REGISTERED, channels.INFO, channels.COMMAND, channels.ASSIGNED,
)  # fmt: skip


class BrokerSession:
    """The keeper of one connection; implements `Link`.

    The `counts` are `connections`, `refused`, `lost`, `denied`, `ignored_retained`, `undecodable`,
    `overrun` and `errors`. `start`, `stop` and `submit` are for any thread, the rest for the session's
    own `thread`. The session stops early when `is_drained` says that no event waits for a receipt.
    """

    def __init__(
        self,
        config: IoTClientConfig,
        db: DatabaseManager,
        open_connection: OpenConnection,
        *,
        is_drained: Callable[[], bool],
        source: random.Random,
        clock: Callable[[], float],
        utc_now: Callable[[], datetime],
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.session = ""
        self.is_up = False
        self.clock = clock
        self._instance = secrets.token_hex(8)
        self.takeovers = Takeovers(self._instance)
        self._config = config
        self._db = db
        self._open_connection = open_connection
        self._is_drained = is_drained
        self._random = source
        self._utc_now = utc_now
        self._listeners = Listeners(self.counts)
        self._queue: queue.SimpleQueue[ConnectionEvent | Callable[[], None]] = queue.SimpleQueue()
        self._connection: Connection | None = None
        self._attempts = 0
        self._since = 0.0
        self._retry_at = float("-inf")
        self._stop_at: float | None = None
        self.thread: threading.Thread | None = None
        self._ended = threading.Event()

    def attach(self, listener: SessionListener) -> None:
        self._listeners.attach(listener)

    def start(self) -> None:
        self.thread = threading.Thread(
            target=self._run_loop, name=f"broker-{self._config.device_id}", daemon=True
        )
        self.thread.start()

    def stop(self, timeout: float) -> None:
        """Await receipts briefly, publish the status `stopped`, end the thread."""
        if self.thread is None:
            return
        self.submit(self._begin_stop)
        self.thread.join(timeout)
        if self.thread.is_alive():
            _log.warning("broker session did not end in time; it ends with the program seconds=%.0f", timeout)
        self.thread = None

    def submit(self, action: Callable[[], None]) -> None:
        self._queue.put(action)

    def publish(self, channel: Channel[Any], payload: bytes, **ids: str) -> PendingPublish | None:
        if self._connection is None or not self.is_up:
            return None
        topic = channel.topic(device_id=self._config.device_id, **ids)
        return self._connection.publish(topic, payload, channel.qos, channel.retain)

    # The thread

    def _run_loop(self) -> None:
        failures = 0
        while not self._ended.is_set():
            try:
                self._step()
                failures = 0
            except Exception:  # noqa: BLE001
                # The outermost loop: the error is logged and counted, and the session goes on.
                self.counts["errors"] += 1
                failures += 1
                _log.exception("broker session met an unexpected error; it goes on failures=%d", failures)
                self._ended.wait(_ERROR_PAUSE.delay(failures, self._random))

    def _step(self) -> None:
        now = self.clock()
        if self._connection is None and self._stop_at is None and now >= self._retry_at:
            self._connect(now)
        elif self._connection is not None and not self.is_up and now >= self._since + _CONNACK_SECONDS:
            self._drop("the broker did not answer CONNECT in time")
        now = self.clock()
        due_times = [self._listeners.tick(now)]
        if self._stop_at is not None:
            if self._connection is None or now >= self._stop_at or self._is_drained():
                self._finish()
                return
            due_times.append(self._stop_at)
        if not self.is_up:
            due_times.append(self._since + _CONNACK_SECONDS if self._connection else self._retry_at)
        self._handle_queue(min((at for at in due_times if at is not None), default=now + 60.0))

    def _handle_queue(self, until: float) -> None:
        """Wait until `until` for a queued event or action, then handle all queued."""
        try:
            queued = self._queue.get(timeout=max(0.0, until - self.clock()))
            while True:
                if isinstance(queued, ConnectionEvent):
                    self._handle_event(queued)
                else:
                    queued()
                queued = self._queue.get_nowait()
        except queue.Empty:
            return

    def _report(self, event: ConnectionEvent) -> None:
        """Queue an event; drop messages of a flood, which are sent again."""
        if event.kind == "message" and self._queue.qsize() > _MAX_QUEUED_MESSAGES:
            self.counts["overrun"] += 1
        else:
            self._queue.put(event)

    def _connect(self, now: float) -> None:
        self._attempts += 1
        self._since = now
        self.session = next_session(self._db, int(self._utc_now().timestamp()))
        try:
            self._connection = self._open_connection(self.session, self._status("lost"), self._report)
            self._connection.open()
        except (OSError, UnicodeError) as error:
            failure = of_error(error, tls=self._config.mqtt.ca_file is not None)
            self._drop(f"broker unreachable: {failure}")

    def _handle_event(self, event: ConnectionEvent) -> None:
        if event.connection is not self._connection:
            return
        if event.kind == "message":
            self._receive_message(event)
        elif event.kind == "connected":
            self._announce(event.address)
        elif event.kind == "denied":
            self.counts["denied"] += 1
            _log.error("broker denied access; check its access rules for this device what=%r", event.reason)
        elif event.kind == "refused":
            self.counts["refused"] += 1
            self._drop(f"connection refused: {event.reason}")
        else:
            self._drop(f"connection lost: {event.reason}", self.takeovers.note_lost(event.code, self.clock()))

    def _announce(self, address: str | None) -> None:
        """Subscribe, then publish the retained status and info, on every connection."""
        config = self._config
        assert self._connection is not None  # noqa: S101  # `_handle_event` compared it
        self.is_up = True
        self._since = self.clock()
        self.counts["connections"] += 1
        ids = {"device_id": config.device_id, "site_id": config.site_id, "command": "+"}
        self._connection.subscribe([(channel.pattern.format(**ids), channel.qos) for channel in _FOLLOWED])
        self.publish(channels.STATUS, self._status("online"))
        info = DeviceInfo(
            device_id=config.device_id,
            site_id=config.site_id,
            software=config.software,
            hardware=config.hardware,
            spaces=dict(config.spaces),
            dev_mode=config.dev_mode,
            instance=self._instance,
            address=address,
        )
        self.publish(channels.INFO, info.to_json())
        _log.info(
            "broker connected host=%s port=%d session=%s", config.mqtt.host, config.mqtt.port, self.session
        )
        self._listeners.connected(self._since)

    def _receive_message(self, event: ConnectionEvent) -> None:
        if not event.payload:
            # It clears a retained message.
            return
        try:
            decoded = decode(event.topic, event.payload)
        except ContractError as error:
            # The detail stays out of the log: it may quote the payload.
            self.counts["undecodable"] += 1
            _log.warning("broker message ignored: undecodable topic=%s code=%s", event.topic, error.code)
            return
        if event.retained and not decoded.channel.retain:
            self.counts["ignored_retained"] += 1
            _log.warning("broker message ignored: retained by mistake topic=%s", event.topic)
            return
        if isinstance(decoded.message, DeviceInfo):
            self.takeovers.note_info(decoded.message, self.clock())
        else:
            self._listeners.receive_message(decoded)

    def _drop(self, reason: str, pause: float = 0.0) -> None:
        now = self.clock()
        if self.is_up:
            self.counts["lost"] += 1
            if now - self._since >= _STABLE_SECONDS:
                self._attempts = 1
        connection, self._connection = self._connection, None
        self.is_up = False
        delay = pause + self._config.reconnect.delay(max(1, self._attempts), self._random)
        self._retry_at = now + delay
        _log.warning("broker connection down; next attempt follows reason=%r seconds=%.1f", reason, delay)
        self._listeners.disconnected()
        if connection is not None:
            connection.close()

    def _status(self, state: Literal["online", "stopped", "lost"]) -> bytes:
        return DeviceStatus(
            device_id=self._config.device_id, state=state, session=self.session, at=self._utc_now()
        ).to_json()

    def _begin_stop(self) -> None:
        self._stop_at = self.clock() + self._config.drain_seconds

    def _finish(self) -> None:
        self._ended.set()
        pending = self.publish(channels.STATUS, self._status("stopped"))
        if pending is not None:
            pending.wait(_STOPPED_STATUS_SECONDS)
        self.is_up = False
        if self._connection is not None:
            self._connection.close()
            self._connection = None

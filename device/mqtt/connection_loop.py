"""The line to the broker: one thread that connects, listens, lets every part do what is due, and reconnects.

Every connection is new and has a session of its own: nothing of an older one can arrive late or go out again.
"""

import logging
import queue
import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

from broker_bridge.contract import channels
from broker_bridge.contract.channels import Channel, decode
from broker_bridge.contract.errors import ContractError
from broker_bridge.contract.messages import DeviceInfo, DeviceStatus
from device.store.db_manager import DatabaseManager

from .config import IoTClientConfig
from .link import Publication, SessionListener
from .listeners import Listeners

_log = logging.getLogger(__name__)

# A connection that lasted so long was a good one: the next failure is a first one again.
_STABLE_SECONDS = 5.0
_CONNACK_SECONDS = 10.0
_LAST_WORD_SECONDS = 2.0
_MOST_WAITING = 10_000
_DOWN = (
    channels.RECEIPT, channels.SYNC_PAGE, channels.SYNC_HEAD, channels.SYNC_DELTA, channels.REGISTERED,
    channels.COMMAND, channels.ASSIGNED,
)  # fmt: skip
_CREDENTIALS = ("Bad user name or password", "Not authorized")


@dataclass(frozen=True)
class ConnectionEvent:
    """Something that a connection reports of itself, from a thread of its own."""

    connection: "Connection"
    kind: Literal["connected", "refused", "lost", "denied", "message"]
    reason: str = ""
    topic: str = ""
    payload: bytes = b""
    retained: bool = False


class PendingPublish(Publication, Protocol):
    def wait(self, seconds: float) -> None: ...


class Connection(Protocol):
    """One connection to the broker, from CONNECT to its end."""

    def open(self) -> None:
        """Raises OSError when the broker cannot be reached."""
        ...

    def subscribe(self, filters: Sequence[tuple[str, int]]) -> None: ...

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> PendingPublish: ...

    def close(self) -> None: ...


OpenConnection = Callable[[str, bytes, Callable[[ConnectionEvent], None]], Connection]
"""Session, last will and where to report -> a connection that is not open yet."""


class BrokerSession:
    """Keeps one connection up and implements `Link`.

    `counts` has `connections`, `refused`, `lost`, `denied`, `ignored_retained`, `undecodable`, `overrun` and
    `errors`. `start`, `stop` and `submit` are for any thread, all else is for the line's own, `thread`.
    """

    def __init__(
        self,
        config: IoTClientConfig,
        db: DatabaseManager,
        open_connection: OpenConnection,
        *,
        drained: Callable[[], bool],
        source: random.Random,
        clock: Callable[[], float],
        utc_now: Callable[[], datetime],
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.session = ""
        self.is_up = False
        self.clock = clock
        self._config = config
        self._db = db
        self._open_connection = open_connection
        self._drained = drained
        self._random = source
        self._utc_now = utc_now
        self._listeners = Listeners(self.counts)
        self._inbox: queue.SimpleQueue[ConnectionEvent | Callable[[], None]] = queue.SimpleQueue()
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
        self.thread = threading.Thread(target=self._run, name=f"line-{self._config.device_id}", daemon=True)
        self.thread.start()

    def stop(self, timeout: float) -> None:
        """Wait for receipts a few seconds, say `stopped`, disconnect and end."""
        if self.thread is None:
            return
        self.submit(self._begin_stop)
        self.thread.join(timeout)
        if self.thread.is_alive():
            _log.warning("the line did not end within %.0f s; the end of the program ends it", timeout)
        self.thread = None

    def submit(self, action: Callable[[], None]) -> None:
        self._inbox.put(action)

    def publish(self, channel: Channel[Any], payload: bytes, **ids: str) -> PendingPublish | None:
        if self._connection is None or not self.is_up:
            return None
        topic = channel.topic(device_id=self._config.device_id, **ids)
        return self._connection.publish(topic, payload, channel.qos, channel.retain)

    # The thread

    def _run(self) -> None:
        in_a_row = 0
        while not self._ended.is_set():
            try:
                self._step()
                in_a_row = 0
            except Exception:  # noqa: BLE001
                # The outermost loop: what failed is said and counted, and the line stays up.
                self.counts["errors"] += 1
                in_a_row += 1
                _log.exception("the line goes on after an unexpected error")
                self._ended.wait(min(5.0, 0.1 * 2.0 ** min(in_a_row, 10)))

    def _step(self) -> None:
        now = self.clock()
        if self._connection is None and self._stop_at is None and now >= self._retry_at:
            self._connect(now)
        elif self._connection is not None and not self.is_up and now >= self._since + _CONNACK_SECONDS:
            self._drop("the broker did not answer CONNECT")
        now = self.clock()
        wishes = [self._listeners.tick(now)]
        if self._stop_at is not None:
            if self._connection is None or now >= self._stop_at or self._drained():
                self._finish()
                return
            wishes.append(self._stop_at)
        if not self.is_up:
            wishes.append(self._since + _CONNACK_SECONDS if self._connection else self._retry_at)
        self._wait(min((at for at in wishes if at is not None), default=now + 60.0))

    def _wait(self, until: float) -> None:
        """Wait for something to come until then, and take all that has come."""
        try:
            came = self._inbox.get(timeout=max(0.0, until - self.clock()))
            while True:
                if isinstance(came, ConnectionEvent):
                    self._take(came)
                else:
                    came()
                came = self._inbox.get_nowait()
        except queue.Empty:
            return

    def _report(self, came: ConnectionEvent) -> None:
        """Called by the connection. Any message may be lost, so a flood is cut off rather than kept."""
        if came.kind == "message" and self._inbox.qsize() > _MOST_WAITING:
            self.counts["overrun"] += 1
        else:
            self._inbox.put(came)

    # The connection's life

    def _connect(self, now: float) -> None:
        self._attempts += 1
        self._since = now
        self.session = self._db.next_session(int(self._utc_now().timestamp()))
        try:
            self._connection = self._open_connection(self.session, self._status("lost"), self._report)
            self._connection.open()
        except OSError as error:
            self._drop(f"the broker cannot be reached: {error}")

    def _take(self, came: ConnectionEvent) -> None:
        if came.connection is not self._connection:
            return
        if came.kind == "message":
            self._receive(came)
        elif came.kind == "connected":
            self._announce()
        elif came.kind == "denied":
            self.counts["denied"] += 1
            _log.error("the broker denies %s; look at its access rules for this device", came.reason)
        elif came.kind == "refused":
            self.counts["refused"] += 1
            self._drop(_refusal(came.reason))
        else:
            self._drop(f"the connection is gone: {came.reason}")

    def _announce(self) -> None:
        """Subscribe, then say who and what we are; retained topics are published on every connection."""
        config = self._config
        assert self._connection is not None  # noqa: S101  # `_take` compared it
        self.is_up = True
        self._since = self.clock()
        self.counts["connections"] += 1
        ids = {"device_id": config.device_id, "site_id": config.site_id, "command": "+"}
        self._connection.subscribe([(channel.pattern.format(**ids), channel.qos) for channel in _DOWN])
        self.publish(channels.STATUS, self._status("online"))
        info = DeviceInfo(
            device_id=config.device_id,
            site_id=config.site_id,
            software=config.software,
            hardware=config.hardware,
            spaces=dict(config.spaces),
            dev_mode=config.dev_mode,
        )
        self.publish(channels.INFO, info.to_json())
        _log.info("connected to %s:%d, session %s", config.mqtt.host, config.mqtt.port, self.session)
        self._listeners.connected(self._since)

    def _receive(self, came: ConnectionEvent) -> None:
        try:
            decoded = decode(came.topic, came.payload)
        except ContractError as error:
            # The detail stays out of the log: it may quote what came.
            self.counts["undecodable"] += 1
            _log.warning("a message on %s is not understood: %s", came.topic, error.code)
            return
        if came.retained and not decoded.channel.retain:
            self.counts["ignored_retained"] += 1
            _log.warning("a retained message on %s is ignored; only a mistake puts one there", came.topic)
            return
        self._listeners.receive_message(decoded)

    def _drop(self, why: str) -> None:
        now = self.clock()
        if self.is_up:
            self.counts["lost"] += 1
            if now - self._since >= _STABLE_SECONDS:
                self._attempts = 1
        connection, self._connection = self._connection, None
        self.is_up = False
        delay = self._config.reconnect.delay(max(1, self._attempts), self._random)
        self._retry_at = now + delay
        _log.warning("%s; next try in %.1f s", why, delay)
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
        last = self.publish(channels.STATUS, self._status("stopped"))
        if last is not None:
            last.wait(_LAST_WORD_SECONDS)
        self.is_up = False
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _refusal(reason: str) -> str:
    if reason in _CREDENTIALS:
        return (
            f"the broker refuses this device ({reason}): check WFM_MQTT__USERNAME and WFM_MQTT__PASSWORD "
            "or the client certificate"
        )
    return f"the broker refuses this device: {reason}"

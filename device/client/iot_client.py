"""`IoTClient`: events out through the outbox, messages in to the listeners."""

import base64
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import ExitStack
from datetime import datetime
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from broker_bridge.common.clock import utc_now
from broker_bridge.contract.channels import Channel
from broker_bridge.contract.errors import DEVICE_MISMATCH, ContractError
from broker_bridge.contract.messages import Event
from device.enrollment.gallery_state import OnGallery, ignore_rows
from device.enrollment.sync_manager import SyncManager
from device.enrollment.sync_requests import SyncOptions
from device.enrollment.sync_status import DeviceSyncStatus
from device.events.delivery import EventDelivery, Outcome
from device.mqtt.config import IoTClientConfig, check_tls_files
from device.mqtt.connection_loop import BrokerSession
from device.mqtt.link import Publication, SessionListener
from device.mqtt.paho_connection import PahoConnection
from device.store.boots import BootStore
from device.store.connection import StoreError
from device.store.db_manager import DatabaseManager
from device.store.outbox import DEFAULT_MAX_BYTES, Outbox
from device.timing.boot import Boot
from device.timing.device_clock import Anchor, DeviceClock
from device.timing.event_dating import EventDating

_log = logging.getLogger(__name__)

Image = NDArray[np.uint8]
EncodeImage = Callable[[Image, Sequence[float] | None], bytes | None]
"""Makes a JPEG within the byte budget of a frame uint8[h,w,3] BGR and a face box [x, y, width, height]."""


def compress_face(frame: Image, box: Sequence[float] | None) -> bytes | None:
    """Return an event's image as JPEG of at most 50 KB, None if impossible."""
    # Imported late: firmware that sends JPEGs or no images needs no OpenCV.
    from device.events.image_utils import compress_image_for_event  # noqa: PLC0415

    text = compress_image_for_event(frame, face_bbox=box)
    return None if text is None else base64.b64decode(text)


class IoTClient:
    """One device's broker client with `db`, `outbox` and `sync` (seed 003).

    Without `db` the client opens the file that `config` names; `stop` closes it then. `on_gallery` is the
    sync manager's, `encode_image` turns frames into JPEG. `counts` has `images_left_out`. Implements `Link`
    for its listeners.

    Raises StoreError, and SettingsError for a certificate or key that cannot be used.
    """

    def __init__(
        self,
        config: IoTClientConfig,
        db: DatabaseManager | None = None,
        *,
        on_gallery: OnGallery = ignore_rows,
        encode_image: EncodeImage = compress_face,
        outbox_bytes: int = DEFAULT_MAX_BYTES,
        sync_options: SyncOptions | None = None,
        source: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
        utc_now: Callable[[], datetime] = utc_now,
        boot: Boot | None = None,
    ) -> None:
        # Checked now: the session would retry for ever, as if the broker were away.
        check_tls_files(config.mqtt)
        if config.dev_mode:
            logging.getLogger("device").setLevel(logging.DEBUG)
        source = source or random.Random()  # noqa: S311  # spreads retries; nothing secret
        self.config = config
        self.counts: Counter[str] = Counter()
        self._encode_image = encode_image
        self._opened = ExitStack()
        self.db = db or self._open_store(utc_now)
        self._boots = BootStore(self.db.connection)
        self.clock = DeviceClock(
            wall=utc_now, boot=boot, anchors=self._boots.anchors(), save=self._save_anchor
        )
        self.outbox = Outbox(
            self.db.connection,
            utc_now=utc_now,
            source=source,
            max_bytes=outbox_bytes,
            dating=EventDating(self.clock, self._boots.last_moments()),
            clock=clock,
        )
        self.broker = BrokerSession(
            config,
            self.db,
            partial(PahoConnection, config),
            is_drained=lambda: self.outbox.depth == 0,
            source=source,
            clock=clock,
            utc_now=utc_now,
        )
        self.delivery = EventDelivery(self.outbox, self.broker, self.clock)
        self.sync = SyncManager(
            self.db,
            self.broker,
            device_id=config.device_id,
            site_id=config.site_id,
            spaces={space: info.dimension for space, info in config.spaces.items()},
            source=source,
            on_gallery=on_gallery,
            options=sync_options,
            clock=clock,
            utc_now=self.clock.utc_now,
            on_answer=self.clock.note_answer,
        )
        self.broker.attach(self.delivery)
        self.broker.attach(self.sync)
        self._wake_is_queued = False
        self._was_stopped = False

    def _open_store(self, utc_now: Callable[[], datetime]) -> DatabaseManager:
        db = DatabaseManager(self.config.db_path, self.config.dev_mode, utc_now=utc_now)
        db.initialize()
        self._opened.callback(db.close)
        return db

    def _save_anchor(self, boot_id: str, anchor: Anchor) -> None:
        try:
            self._boots.save(boot_id, anchor)
        except StoreError as error:
            # Known all the same while the program runs.
            _log.error("clock comparison not stored error=%r", str(error))

    def attach(self, listener: SessionListener) -> None:
        """Add a listener of the connection; call before `start`."""
        self.broker.attach(listener)

    def start(self) -> None:
        """Connect, and reconnect for ever, in a thread of its own (seed 003).

        A second call does nothing. Raises RuntimeError for a client that was stopped.
        """
        if self._was_stopped:
            raise RuntimeError("a stopped client cannot start again: make a new one")
        if self.broker.thread is not None:
            return
        self.broker.start()

    def stop(self, timeout: float = 8.0) -> None:
        """Send waiting events, publish the status `stopped`, disconnect (seed 003).

        Sending ends after a few seconds. Events without a receipt stay on disk. A stopped client cannot
        start again.
        """
        self._was_stopped = True
        self.broker.stop(timeout)
        self._opened.close()

    @property
    def is_connected(self) -> bool:
        return self.broker.is_up

    def publish(self, channel: Channel[Any], payload: bytes, **ids: str) -> Publication | None:
        return self.broker.publish(channel, payload, **ids)

    def submit(self, action: Callable[[], None]) -> None:
        self.broker.submit(action)

    def send_event(
        self, event: Event, image: bytes | Image | None = None, face_bbox: Sequence[float] | None = None
    ) -> None:
        """Store `event`, then send it (seed 003); return when it is on disk.

        While the disk fails it is kept in memory, and `outbox.problem` says so.

        `image` is a JPEG, or a frame to crop round `face_bbox`. An image that cannot be encoded is left out
        and counted. Raises ContractError for an event that can never be stored (`payload-too-large`,
        `device-mismatch`).
        """
        if event.device_id != self.config.device_id:
            raise ContractError(
                DEVICE_MISMATCH, f"expected an event of {self.config.device_id}, got one of another device"
            )
        jpeg = image if isinstance(image, bytes) or image is None else self._encode_image(image, face_bbox)
        if image is not None and jpeg is None:
            self.counts["images_left_out"] += 1
        self.outbox.put(event, jpeg)
        _log.debug("event stored; it waits for its receipt event_id=%s", event.event_id)
        if not self._wake_is_queued:
            self._wake_is_queued = True
            self.submit(self._wake)

    def _wake(self) -> None:
        # The tick of the delivery follows and sends what is due.
        self._wake_is_queued = False

    def send_event_sync(
        self,
        event: Event,
        timeout: float = 5.0,
        image: bytes | Image | None = None,
        face_bbox: Sequence[float] | None = None,
    ) -> Outcome | Literal["pending"]:
        """Call `send_event`, then wait `timeout` seconds for the receipt (seed 003).

        Returns `pending` without a receipt in time; the event stays in the outbox.
        """
        self._check_thread()
        receipt = self.delivery.await_receipt(event.event_id)
        try:
            self.send_event(event, image, face_bbox)
            return receipt.result(timeout)
        except FutureTimeoutError:
            return "pending"
        finally:
            self.delivery.stop_waiting(event.event_id)

    def request_sync(self, since_version: int | None = None, timeout: float = 10.0) -> DeviceSyncStatus:
        """Request changes, wait until they are applied, return the status (seed 003).

        The wait ends after `timeout` seconds, so the status may be of an incomplete sync. A
        `since_version` of 0 fetches all identities again; the device's own cursor decides for any other.
        `sync.sync_now` requests without waiting.
        """
        self._check_thread()
        applied = self.sync.request_sync(since_version)
        try:
            applied.result(timeout if self.broker.thread is not None else 0)
        except FutureTimeoutError:
            applied.cancel()
        return self.sync.get_sync_status()

    def _check_thread(self) -> None:
        if threading.current_thread() is self.broker.thread:
            raise RuntimeError(
                "this call waits for the client's own thread and cannot run in it: call it from another "
                "thread, or use send_event or sync.sync_now, which do not wait"
            )

"""Simulate a device: the real SyncManager on SQLite with a scripted network."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from broker_bridge.contract import channels
from broker_bridge.contract.channels import Channel, Decoded
from broker_bridge.contract.messages import SyncApplied, SyncRequest
from device.enrollment.gallery_rows import GalleryRows
from device.enrollment.sync_manager import SyncManager
from device.enrollment.sync_requests import SyncOptions
from device.store.db_manager import DatabaseManager
from tests.device_samples import Clock, ScriptedLink, seeded

from .sync_view import StoredIdentity

# The limit splits a gallery of a few identities into several pages.
PAGE_LIMIT = 2
_KEPT_IN_FLIGHT = 24

Message = tuple[Channel[Any], bytes]


@dataclass(frozen=True)
class DeviceSetup:
    """Site, spaces (`{space: dimension}`) and dev mode of a device."""

    device_id: str
    site: str
    spaces: Mapping[str, int]
    dev_mode: bool = False


class Camera:
    """Simulated device.

    `inbox` has the undelivered messages, `requests` all sync requests that it sent.
    """

    def __init__(self, setup: DeviceSetup, path: Path, clock: Clock, empty: Path) -> None:
        self.setup = setup
        self.clock = clock
        self.inbox: list[Message] = []
        self.requests: list[SyncRequest] = []
        self.applied: list[SyncApplied] = []
        self.online = False
        self.clock_offset = timedelta(0)
        self._path = path
        # Copy a file with the schema: migrations would take most of the time.
        shutil.copy(empty, path)
        self._open()

    def _open(self) -> None:
        self.link = ScriptedLink()
        self.rows: dict[str, GalleryRows] = {}
        self.db = DatabaseManager(self._path, self.setup.dev_mode, utc_now=self.utc_now)
        self.db.initialize()
        self.sync = SyncManager(
            self.db,
            self.link,
            device_id=self.setup.device_id,
            site_id=self.setup.site,
            spaces=self.setup.spaces,
            source=seeded(),
            on_gallery=lambda rows: self.rows.update({rows.space: rows}),
            options=SyncOptions(limit=PAGE_LIMIT),
            clock=self.clock,
            utc_now=self.utc_now,
        )

    def utc_now(self) -> datetime:
        """Return the time of day of the device's clock."""
        return self.clock.utc_now() + self.clock_offset

    def close(self) -> None:
        self.db.close()

    def restart(self) -> None:
        """Restart the process and lose its undelivered messages."""
        self.db.close()
        self.inbox.clear()
        self._open()
        self.online = False

    def connect(self) -> None:
        self.online = True
        self.sync.connected(self.clock())
        self.tick()

    def disconnect(self) -> None:
        if self.online:
            self.online = False
            self.sync.disconnected()

    def tick(self) -> float | None:
        """Return the time of the device's next tick."""
        self.link.up = self.online
        due = self.sync.tick(self.clock())
        self._collect()
        return due

    def post(self, channel: Channel[Any], payload: bytes) -> None:
        """Queue a message; beyond the limit the oldest are lost, as in a broker."""
        self.inbox.append((channel, payload))
        del self.inbox[:-_KEPT_IN_FLIGHT]

    def receive(self, message: Message) -> None:
        channel, payload = message
        if self.online:
            self.sync.receive_message(Decoded(channel, {}, channel.decode(payload)))
            self.tick()

    def _collect(self) -> None:
        """Collect what the device published."""
        self.requests += self.link.of(channels.SYNC_REQUEST)
        self.applied += self.link.of(channels.SYNC_APPLIED)
        self.link.published.clear()

    def gallery(self) -> dict[str, StoredIdentity]:
        """Return the identities in the device's file; none during a first snapshot sync."""
        if self.db.fills_live_gallery():
            return {}
        with self.db.connection.reading() as connection:
            users = connection.execute("SELECT user_id, flag, display_name FROM enrolled_users").fetchall()
        rows: dict[str, set[tuple[str, str, bytes]]] = {user_id: set() for user_id, _, _ in users}
        for user_id, *row in self._select("gallery_templates"):
            rows[user_id].add((row[0], row[1], row[2]))
        return {
            user_id: StoredIdentity(flag, name, frozenset(rows[user_id])) for user_id, flag, name in users
        }

    def recognised_rows(self) -> set[tuple[str, str, bytes]]:
        """Return `(user id, space, vector)` of each template that recognition uses now."""
        return {
            (user_id, space, vector.tobytes())
            for space, rows in self.rows.items()
            for user_id, vector in zip(rows.user_ids, rows.vectors, strict=True)
        }

    def stored(self) -> set[tuple[str, str, bytes]]:
        """Return `(user id, space, vector)` of each template, also of a snapshot sync."""
        tables = ("gallery_templates", "staged_templates")
        return {(row[0], row[2], row[3]) for table in tables for row in self._select(table)}

    def _select(self, table: str) -> list[tuple[str, str, str, bytes]]:
        with self.db.connection.reading() as connection:
            query = f"SELECT user_id, template_id, space, embedding FROM {table}"  # from above
            return connection.execute(query).fetchall()

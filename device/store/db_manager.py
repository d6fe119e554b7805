"""`DatabaseManager`: a device's gallery, its place in the history and its small values (seed 003)."""

import logging
import re
import sqlite3
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from broker_bridge.common.clock import utc_now
from broker_bridge.contract.digest import Digest
from broker_bridge.contract.embeddings import Vector, normalise, to_array
from broker_bridge.contract.messages import Upsert, WireTemplate
from broker_bridge.contract.wire import format_time

from . import cursor as cursors
from . import enrollments, staging
from .connection import StoreConnection
from .cursor import SnapshotProgress, SyncCursor

_log = logging.getLogger(__name__)


class DatabaseManager:
    """One SQLite file, usable from several threads.

    A change of the gallery commits rows, removals, cursor and digests in one transaction, and leaves no
    copy of what it removed or replaced in the file or its log. When the file fails, every method raises
    StoreError.

    In `dev_mode` display names are kept, and people who were enrolled on this device are its own: the digests
    leave them out and full resets leave them in, until the registry has a person of their id. Outside of
    it there are no names, and a local person is drift, which the next sync removes.
    """

    def __init__(
        self, path: str | Path, dev_mode: bool = False, *, utc_now: Callable[[], datetime] = utc_now
    ) -> None:
        self.connection = StoreConnection(Path(path))
        self.dev_mode = dev_mode
        self._utc_now = utc_now
        self._log_holds_removed = False

    def initialize(self) -> None:
        """Open the file, creating it or migrating it as needed. Raises StoreError with one sentence."""
        self.connection.open()
        if not self.dev_mode:
            with self.connection.transaction() as connection:
                connection.execute(
                    "UPDATE enrolled_users SET display_name = NULL WHERE display_name NOT NULL"
                )
                connection.execute(
                    "UPDATE staged_templates SET display_name = NULL WHERE display_name NOT NULL"
                )
                changed = connection.execute("SELECT changes()").fetchone()[0]
            self._log_holds_removed = bool(changed)
        # Also what a process that died before its checkpoint left in the log.
        self._forget_removed(force=True)

    def close(self) -> None:
        self.connection.close()

    # The gallery

    def upsert_enrollment(
        self,
        user_id: str,
        embedding: Sequence[float] | NDArray[np.floating],
        model: str,
        detector: str | None = None,
        display_name: str | None = None,
    ) -> None:
        """Enroll one local template (seed 003): `embedding` float[d] is scaled to unit length.

        `model` is a space id or a face model's name (`ArcFace` becomes `face:arcface`); otherwise as
        `enroll_locally`. Raises ContractError for a bad vector, ValueError for an id that is none.
        """
        space = model if ":" in model else f"face:{re.sub(r'[^a-z0-9]+', '-', model.lower()).strip('-')}"
        vector = normalise(embedding, max(1, np.size(embedding)))
        self.enroll_locally(user_id, space, [(vector, None)], detector=detector, display_name=display_name)

    def enroll_locally(
        self,
        user_id: str,
        space: str,
        templates: Sequence[tuple[bytes, float | None]],
        *,
        detector: str | None = None,
        display_name: str | None = None,
    ) -> None:
        """Enroll a person whom the registry does not know, in place of what was held of that id.

        `templates` are unit vectors (float32 bytes) of `space` with their quality 0..1, `detector` is the
        name of what found the faces. Raises ValueError for an id that is none.
        """
        ours = [
            WireTemplate(template_id=f"{enrollments.LOCAL}-{n}", space=space, vector=vector, quality=quality)
            for n, (vector, quality) in enumerate(templates, start=1)
        ]
        upsert = Upsert(user_id=user_id, version=0, display_name=display_name, templates=ours)
        with self.connection.transaction() as connection:
            _, forgotten = self._change(connection, [upsert], [], detector)
        self._forget_removed(force=forgotten)

    def is_local(self, user_id: str) -> bool | None:
        """Whether this person was enrolled on this device; None for somebody who is not here."""
        with self.connection.reading() as connection:
            return enrollments.is_local(connection, user_id)

    def get_all_enrollments(self) -> dict[str, Vector]:
        """The first template of every person: `{user_id: float32[d]}`, unit length (seed 003).

        Nobody while the first snapshot of this device is on its way.
        """
        with self.connection.reading() as connection:
            if staging.fills_live_gallery(connection):
                return {}
            rows = connection.execute("SELECT user_id, embedding FROM enrolled_users ORDER BY id")
            return {user_id: to_array(vector) for user_id, vector in rows}

    def load_gallery(self, space: str) -> tuple[list[str], Vector]:
        """All templates of `space`: their user ids and vectors float32[n,d], row by row.

        None while the first snapshot of this device is on its way.
        """
        with self.connection.reading() as connection:
            return staging.load_gallery(connection, space)

    def digests(self) -> dict[str, Digest]:
        """The digests as they were stored with the last change; spaces without templates have none."""
        with self.connection.reading() as connection:
            return enrollments.read_digests(connection)

    def verify(self) -> bool:
        """Whether the rows still have the stored digests; False is drift, say a bit flipped on the disk."""
        with self.connection.reading() as connection:
            return enrollments.compute_digests(connection, self.dev_mode) == enrollments.read_digests(
                connection
            )

    # Changes from the registry

    def cursor(self) -> SyncCursor | None:
        """Where the gallery stands, or None if it never synced."""
        with self.connection.reading() as connection:
            return cursors.read_live(connection)

    def apply_delta(
        self, upserts: Sequence[Upsert], removals: Sequence[str], cursor: SyncCursor
    ) -> dict[str, Digest]:
        """Commit people, removals and cursor together; returns the digests that now hold."""
        with self.connection.transaction() as connection:
            digests, forgotten = self._change(connection, upserts, removals)
            cursors.write_live(connection, cursor)
        self._forget_removed(force=forgotten)
        return digests

    def _change(
        self,
        connection: sqlite3.Connection,
        upserts: Sequence[Upsert],
        removals: Sequence[str],
        detector: str | None = None,
    ) -> tuple[dict[str, Digest], bool]:
        """The digests that now hold, and whether anybody's templates were removed or replaced."""
        replaced = [one.user_id for one in upserts if one.templates]
        gone = [*removals, *(one.user_id for one in upserts if not one.templates)]
        lost = enrollments.remove_people(connection, gone, replaced, self.dev_mode)
        now = format_time(self._utc_now())
        gained = enrollments.add_people(connection, upserts, now, self.dev_mode, detector)
        digests = enrollments.moved(enrollments.read_digests(connection), gained, lost or {})
        enrollments.write_digests(connection, digests)
        _log.debug("gallery: %d people written, %d told to go", len(upserts), len(gone))
        return digests, lost is not None

    def snapshot_progress(self) -> SnapshotProgress | None:
        """How far a reset has come, or None if none is under way; it survives a restart."""
        with self.connection.reading() as connection:
            return cursors.read_staged(connection)

    def fills_live_gallery(self) -> bool:
        """Whether the gallery's rows are those of a first snapshot that is not complete."""
        with self.connection.reading() as connection:
            return staging.fills_live_gallery(connection)

    def snapshot_identities(self) -> int:
        """How many people a reset that is under way has brought so far."""
        with self.connection.reading() as connection:
            return staging.count_people(connection)

    def begin_snapshot(self, upserts: Sequence[Upsert], progress: SnapshotProgress) -> None:
        """Take in the first page of a full snapshot, forgetting one that was under way.

        It is staged beside the gallery, or fills one that is empty and never was synced.
        """
        with self.connection.transaction() as connection:
            forgotten = staging.clear(connection, self.dev_mode)
            staging.begin(connection, progress.cursor)
            self._take_in(connection, upserts, [], progress)
        self._forget_removed(force=forgotten)

    def add_snapshot_page(
        self, upserts: Sequence[Upsert], removals: Sequence[str], progress: SnapshotProgress
    ) -> bool:
        """Take in a further page, together with how far the reset has come.

        True if it replaced or removed people who had filled an empty gallery before.
        """
        with self.connection.transaction() as connection:
            forgotten = self._take_in(connection, upserts, removals, progress)
        self._forget_removed(force=forgotten)
        return forgotten

    def _take_in(
        self,
        connection: sqlite3.Connection,
        upserts: Sequence[Upsert],
        removals: Sequence[str],
        progress: SnapshotProgress,
    ) -> bool:
        """Whether templates that were there have been removed or replaced in the gallery."""
        forgotten = False
        if staging.fills_live_gallery(connection):
            _, forgotten = self._change(connection, upserts, removals)
        else:
            staging.stage(connection, upserts, removals, self.dev_mode)
        cursors.write_staged(connection, progress)
        return forgotten

    def finish_snapshot(self, cursor: SyncCursor) -> dict[str, Digest]:
        """Make the snapshot the gallery, with cursor and digests; whoever it did not name is gone."""
        with self.connection.transaction() as connection:
            if staging.fills_live_gallery(connection):
                cursors.forget_staged(connection)
                digests = enrollments.read_digests(connection)
            else:
                staging.swap_in(connection, format_time(self._utc_now()), self.dev_mode)
                digests = enrollments.compute_digests(connection, self.dev_mode)
                enrollments.write_digests(connection, digests)
            cursors.write_live(connection, cursor)
        self._forget_removed(force=True)
        return digests

    def abandon_snapshot(self) -> None:
        with self.connection.transaction() as connection:
            staging.clear(connection, self.dev_mode)
        self._forget_removed(force=True)

    def _forget_removed(self, *, force: bool) -> None:
        if force or self._log_holds_removed:
            # Another process may be reading (an operator's shell): then the next change tries again.
            self._log_holds_removed = not self.connection.truncate_log()

    # Small values

    def get_config(self, key: str) -> str | None:
        with self.connection.reading() as connection:
            row = connection.execute("SELECT value FROM device_config WHERE key = ?", (key,)).fetchone()
            return str(row[0]) if row else None

    def set_config(self, key: str, value: str) -> None:
        with self.connection.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO device_config (key, value, updated_at) VALUES (?, ?, ?)",
                (key, value, format_time(self._utc_now())),
            )

    def next_session(self, unix_seconds: int) -> str:
        """A session for a new connection: higher than every earlier one, even when the clock jumped back."""
        previous = self.get_config("session")
        session = f"{max(int(previous, 16) + 1 if previous else 1, unix_seconds):x}"
        self.set_config("session", session)
        return session

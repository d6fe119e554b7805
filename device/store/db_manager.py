"""`DatabaseManager`: gallery, cursor and small values (seed 003)."""

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
from .repair import open_or_repair

_log = logging.getLogger(__name__)


class DatabaseManager:
    """One SQLite file, usable from several threads.

    A change of the gallery commits rows, removals, cursor and digests in one transaction. Neither the file
    nor its log keeps a copy of a removed or replaced template. Every method raises StoreError when the file
    fails.

    In `dev_mode` the store keeps display names and local identities, which were enrolled on this device. The
    digests leave local identities out, and a snapshot sync leaves them in until the registry has their id.
    Outside of dev mode the store has no names, and a local identity is drift, which the next sync removes.
    """

    def __init__(
        self, path: str | Path, dev_mode: bool = False, *, utc_now: Callable[[], datetime] = utc_now
    ) -> None:
        self.connection = StoreConnection(Path(path))
        self.dev_mode = dev_mode
        self._utc_now = utc_now
        self._log_has_removed = False
        self.damage: str | None = None
        """What became of a damaged file, None without one."""

    def initialize(self) -> None:
        """Open the file, creating it, migrating it or replacing a damaged one.

        Raises StoreError with one sentence.
        """
        self.damage = open_or_repair(self.connection)
        if not self.dev_mode:
            with self.connection.transaction() as connection:
                connection.execute(
                    "UPDATE enrolled_users SET display_name = NULL WHERE display_name NOT NULL"
                )
                connection.execute(
                    "UPDATE staged_templates SET display_name = NULL WHERE display_name NOT NULL"
                )
                changed = connection.execute("SELECT changes()").fetchone()[0]
            self._log_has_removed = bool(changed)
        # A process that died before its checkpoint may have left removed rows in the log.
        self._truncate_log(force=True)

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
        """Enroll an identity with one template (seed 003), as `enroll_locally` does.

        `embedding` float[d] is scaled to unit length. `model` is a space id or a face model's name
        (`ArcFace` becomes `face:arcface`). Raises ContractError for an invalid vector, ValueError for an
        invalid id.
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
        """Enroll an identity on this device alone; replace a stored one of the same id.

        `templates` are unit vectors (float32 bytes) of `space` with their quality 0..1, `detector` is the
        name of the detector that found the faces. Raises ValueError for an invalid id.
        """
        local_templates = [
            WireTemplate(template_id=f"{enrollments.LOCAL}-{n}", space=space, vector=vector, quality=quality)
            for n, (vector, quality) in enumerate(templates, start=1)
        ]
        upsert = Upsert(user_id=user_id, version=0, display_name=display_name, templates=local_templates)
        with self.connection.transaction() as connection:
            _, removed = self._change_gallery(connection, [upsert], [], detector)
        self._truncate_log(force=removed)

    def is_local(self, user_id: str) -> bool | None:
        """Return whether the identity was enrolled on this device.

        Returns None if it is not stored.
        """
        with self.connection.reading() as connection:
            return enrollments.is_local(connection, user_id)

    def get_all_enrollments(self) -> dict[str, Vector]:
        """Return the first template of every identity (seed 003).

        The result is `{user_id: float32[d]}`, unit length. It is empty during the device's first snapshot
        sync.
        """
        with self.connection.reading() as connection:
            if staging.fills_live_gallery(connection):
                return {}
            rows = connection.execute("SELECT user_id, embedding FROM enrolled_users ORDER BY id")
            return {user_id: to_array(vector) for user_id, vector in rows}

    def load_gallery(self, space: str) -> tuple[list[str], Vector]:
        """Return user ids and vectors float32[n,d] of all templates of `space`.

        Row i is the vector of the user id i. The result is empty during the device's first snapshot sync.
        """
        with self.connection.reading() as connection:
            return staging.load_gallery(connection, space)

    def digests(self) -> dict[str, Digest]:
        """Return the digests stored with the last change.

        Spaces without templates have none.
        """
        with self.connection.reading() as connection:
            return enrollments.read_digests(connection)

    def verify(self) -> bool:
        """Return whether the rows have the stored digests.

        False is drift, say a flipped bit.
        """
        with self.connection.reading() as connection:
            return enrollments.compute_digests(connection, self.dev_mode) == enrollments.read_digests(
                connection
            )

    # Changes from the registry

    def cursor(self) -> SyncCursor | None:
        """Return the position of the gallery, or None if it never synced."""
        with self.connection.reading() as connection:
            return cursors.read_live(connection)

    def apply_delta(
        self, upserts: Sequence[Upsert], removals: Sequence[str], cursor: SyncCursor
    ) -> dict[str, Digest]:
        """Commit identities, removals and cursor together; return the new digests."""
        with self.connection.transaction() as connection:
            digests, removed = self._change_gallery(connection, upserts, removals)
            cursors.write_live(connection, cursor)
        self._truncate_log(force=removed)
        return digests

    def _change_gallery(
        self,
        connection: sqlite3.Connection,
        upserts: Sequence[Upsert],
        removals: Sequence[str],
        detector: str | None = None,
    ) -> tuple[dict[str, Digest], bool]:
        """Return the new digests, and whether templates were removed or replaced."""
        replaced = [upsert.user_id for upsert in upserts if upsert.templates]
        removed = [*removals, *(upsert.user_id for upsert in upserts if not upsert.templates)]
        lost = enrollments.remove_identities(connection, removed, replaced, self.dev_mode)
        now = format_time(self._utc_now())
        gained = enrollments.add_identities(connection, upserts, now, self.dev_mode, detector)
        digests = enrollments.change_digests(enrollments.read_digests(connection), gained, lost or {})
        enrollments.write_digests(connection, digests)
        _log.debug("gallery changed written=%d removed=%d", len(upserts), len(removed))
        return digests, lost is not None

    def snapshot_progress(self) -> SnapshotProgress | None:
        """Return the progress of a snapshot sync, or None without one.

        The progress is kept over a restart.
        """
        with self.connection.reading() as connection:
            return cursors.read_snapshot(connection)

    def fills_live_gallery(self) -> bool:
        """Return whether the gallery's rows are those of an incomplete first snapshot."""
        with self.connection.reading() as connection:
            return staging.fills_live_gallery(connection)

    def snapshot_identities(self) -> int:
        """Return how many identities the snapshot sync has received."""
        with self.connection.reading() as connection:
            return staging.count_identities(connection)

    def begin_snapshot(self, upserts: Sequence[Upsert], progress: SnapshotProgress) -> None:
        """Store the first page of a snapshot sync; discard an incomplete one.

        The page is staged beside the gallery, or fills a gallery that is empty and never synced.
        """
        with self.connection.transaction() as connection:
            removed = staging.clear(connection, self.dev_mode)
            staging.begin(connection, progress.cursor)
            self._store_page(connection, upserts, [], progress)
        self._truncate_log(force=removed)

    def add_snapshot_page(
        self, upserts: Sequence[Upsert], removals: Sequence[str], progress: SnapshotProgress
    ) -> bool:
        """Store a further page of a snapshot sync and its progress.

        Returns True if the page replaced or removed identities of earlier pages in the live gallery.
        """
        with self.connection.transaction() as connection:
            removed = self._store_page(connection, upserts, removals, progress)
        self._truncate_log(force=removed)
        return removed

    def _store_page(
        self,
        connection: sqlite3.Connection,
        upserts: Sequence[Upsert],
        removals: Sequence[str],
        progress: SnapshotProgress,
    ) -> bool:
        """Return whether templates of the live gallery were removed or replaced."""
        removed = False
        if staging.fills_live_gallery(connection):
            _, removed = self._change_gallery(connection, upserts, removals)
        else:
            staging.stage(connection, upserts, removals, self.dev_mode)
        cursors.write_snapshot(connection, progress)
        return removed

    def finish_snapshot(self, cursor: SyncCursor) -> dict[str, Digest]:
        """Replace the gallery by the snapshot; return the digests.

        Cursor and digests change with the gallery.
        """
        with self.connection.transaction() as connection:
            if staging.fills_live_gallery(connection):
                cursors.forget_snapshot(connection)
                digests = enrollments.read_digests(connection)
            else:
                staging.swap_in(connection, format_time(self._utc_now()), self.dev_mode)
                digests = enrollments.compute_digests(connection, self.dev_mode)
                enrollments.write_digests(connection, digests)
            cursors.write_live(connection, cursor)
        self._truncate_log(force=True)
        return digests

    def abandon_snapshot(self) -> None:
        with self.connection.transaction() as connection:
            staging.clear(connection, self.dev_mode)
        self._truncate_log(force=True)

    def _truncate_log(self, *, force: bool) -> None:
        if force or self._log_has_removed:
            # Another process may be reading (an operator's shell): then the next change tries again.
            self._log_has_removed = not self.connection.truncate_log()

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

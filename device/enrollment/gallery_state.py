"""The gallery on disk and in memory, changed together.

Recognition matches against what is committed.
"""

from collections.abc import Callable, Mapping

from broker_bridge.contract.digest import Digest
from broker_bridge.contract.messages import SpaceDigest
from device.store.cursor import SnapshotProgress, SyncCursor
from device.store.db_manager import DatabaseManager

from .applied_change import AppliedChange
from .gallery_rows import GalleryBuilder, GalleryRows

OnGallery = Callable[[GalleryRows], None]


def ignore_rows(_: GalleryRows) -> None:
    """Ignore the gallery, for devices that do not recognise."""


class GalleryState:
    """The gallery of one site in the device's spaces (`{space: dimension}`).

    `on_gallery` gets the rows of each space at the start and after each change. `snapshot` is the progress of
    a snapshot sync, None without one. `intact` is False if the rows on disk did not have their digests at the
    start; rows that cannot be compared are then left out.
    """

    def __init__(
        self, db: DatabaseManager, site_id: str, dimensions: Mapping[str, int], on_gallery: OnGallery
    ) -> None:
        self._db = db
        self._on_gallery = on_gallery
        self.dimensions = dict(sorted(dimensions.items()))
        # One builder per space while a first snapshot sync runs; none after a restart or a replaced row.
        self._builders: list[GalleryBuilder] = []
        spaces = tuple(self.dimensions)
        # A cursor belongs to a site and its spaces; the old gallery stays in use until the new is complete.
        cursor = db.cursor()
        is_current = cursor is not None and cursor.belongs_to(site_id, spaces)
        self.cursor = cursor if cursor and is_current else SyncCursor(site_id, spaces)
        self.snapshot = db.snapshot_progress()
        if self.snapshot and not self.snapshot.cursor.belongs_to(site_id, spaces):
            self.abandon_snapshot()
        self.intact = db.verify()
        if self.snapshot and not self.intact:
            self.abandon_snapshot()
        self._digests: Mapping[str, Digest] = {}
        self._rows: dict[str, GalleryRows] = {}
        self._reload()

    def _reload(self) -> None:
        # During a first snapshot sync the gallery counts as empty.
        self._digests = {} if self._db.fills_live_gallery() else self._db.digests()
        for space, dimension in self.dimensions.items():
            user_ids, vectors = self._db.load_gallery(space)
            self._set_rows(GalleryRows.from_stored(space, dimension, user_ids, vectors, self.cursor.version))

    def _set_rows(self, rows: GalleryRows) -> None:
        self._rows[rows.space] = rows
        self._on_gallery(rows)

    def digests(self) -> dict[str, SpaceDigest]:
        """Return count and digest of every space, also of one without templates."""
        digests = {space: self._digests.get(space, Digest()) for space in self.dimensions}
        return {
            space: SpaceDigest(count=digest.count, digest=digest.hex) for space, digest in digests.items()
        }

    @property
    def is_empty(self) -> bool:
        return not any(rows.user_ids for rows in self._rows.values())

    def includes(self, epoch: str | None, version: int) -> bool:
        """Return whether the gallery has `version` of the history `epoch`."""
        return self.cursor.epoch == epoch and self.cursor.version >= version

    def apply(self, change: AppliedChange, cursor: SyncCursor) -> None:
        """Commit `change` and `cursor`, then swap the rows in memory."""
        self._digests = self._db.apply_delta(change.upserts, change.removals, cursor)
        self.cursor = cursor
        for rows in tuple(self._rows.values()):
            self._set_rows(rows.with_changes(change.upserts, change.removals, cursor.version))

    def begin_snapshot(self, change: AppliedChange, progress: SnapshotProgress) -> None:
        """Commit the first page of a snapshot sync."""
        self._db.begin_snapshot(change.upserts, progress)
        self.snapshot = progress
        self._builders = []
        if self._db.fills_live_gallery():
            self._builders = [GalleryBuilder(space, size) for space, size in self.dimensions.items()]
            self._add_to_builders(change)

    def extend_snapshot(self, change: AppliedChange, progress: SnapshotProgress) -> None:
        """Commit a further page of a snapshot sync."""
        replaced = self._db.add_snapshot_page(change.upserts, change.removals, progress)
        self.snapshot = progress
        if replaced:
            self._builders = []
        self._add_to_builders(change)

    def _add_to_builders(self, change: AppliedChange) -> None:
        for builder in self._builders:
            builder.add(change.upserts)

    def finish_snapshot(self, snapshot: SnapshotProgress) -> None:
        """Swap in the complete snapshot."""
        digests = self._db.finish_snapshot(snapshot.cursor)
        self.cursor = snapshot.cursor
        self.snapshot = None
        builders, self._builders = self._builders, []
        if not builders:
            self._reload()
            return
        # The builders have every row of a first snapshot: the database need not be read again.
        self._digests = digests
        for builder in builders:
            self._set_rows(builder.build(self.cursor.version))

    def snapshot_identities(self) -> int:
        """Return how many identities the snapshot sync has received, 0 without one."""
        return self._db.snapshot_identities() if self.snapshot else 0

    def abandon_snapshot(self) -> None:
        self._db.abandon_snapshot()
        self.snapshot = None
        self._builders = []

"""The gallery on disk and in memory, moved together: what is committed is what is recognised."""

from collections.abc import Callable, Mapping

from broker_bridge.contract.digest import Digest
from broker_bridge.contract.messages import SpaceDigest
from device.store.cursor import SnapshotProgress, SyncCursor
from device.store.db_manager import DatabaseManager

from .gallery_rows import GalleryBuilder, GalleryRows
from .sync_policy import AppliedChange

OnGallery = Callable[[GalleryRows], None]


def ignore_rows(_: GalleryRows) -> None:
    """For devices that recognise nobody."""


class GalleryState:
    """The gallery of one site in some spaces (`{space: dimension}`).

    `on_gallery` gets the rows of each space at the start and after each change. `intact` is False if the rows
    on disk no longer had their digests at the start; rows that cannot be compared are then left out.
    """

    def __init__(
        self, db: DatabaseManager, site_id: str, dimensions: Mapping[str, int], on_gallery: OnGallery
    ) -> None:
        self._db = db
        self._on_gallery = on_gallery
        self.dimensions = dict(sorted(dimensions.items()))
        # A first snapshot's rows, one per space, unless some of them came before a restart or are replaced.
        self._gathered: list[GalleryBuilder] = []
        spaces = tuple(self.dimensions)
        # A cursor belongs to a site and its spaces; the old gallery stays in use until the new is complete.
        cursor = db.cursor()
        mine = cursor is not None and cursor.belongs_to(site_id, spaces)
        self.cursor = cursor if cursor and mine else SyncCursor(site_id, spaces)
        self.staged = db.snapshot_progress()
        if self.staged and not self.staged.cursor.belongs_to(site_id, spaces):
            self.abandon_snapshot()
        self.intact = db.verify()
        if self.staged and not self.intact:
            self.abandon_snapshot()
        self._digests: Mapping[str, Digest] = {}
        self._rows: dict[str, GalleryRows] = {}
        self._reload()

    def _reload(self) -> None:
        # A gallery that is filling counts as empty until its first snapshot is complete.
        self._digests = {} if self._db.fills_live_gallery() else self._db.digests()
        for space, dimension in self.dimensions.items():
            user_ids, vectors = self._db.load_gallery(space)
            self._rows[space] = GalleryRows.usable(space, dimension, user_ids, vectors, self.cursor.version)
            self._on_gallery(self._rows[space])

    def held(self) -> dict[str, SpaceDigest]:
        """Count and digest of every space, also of one without templates."""
        digests = self._digests
        totals = {space: digests.get(space, Digest()) for space in self.dimensions}
        return {space: SpaceDigest(count=one.count, digest=one.hex) for space, one in totals.items()}

    @property
    def is_empty(self) -> bool:
        return not any(rows.user_ids for rows in self._rows.values())

    def has_reached(self, epoch: str | None, version: int) -> bool:
        return self.cursor.epoch == epoch and self.cursor.version >= version

    def apply(self, change: AppliedChange, cursor: SyncCursor) -> None:
        """Commit, then swap."""
        self._digests = self._db.apply_delta(change.upserts, change.removals, cursor)
        self.cursor = cursor
        for space, rows in self._rows.items():
            self._rows[space] = rows.changed(change.upserts, change.removals, cursor.version)
            self._on_gallery(self._rows[space])

    def begin_snapshot(self, change: AppliedChange, progress: SnapshotProgress) -> None:
        self._db.begin_snapshot(change.upserts, progress)
        self.staged = progress
        self._gathered = []
        if self._db.fills_live_gallery():
            self._gathered = [GalleryBuilder(space, size) for space, size in self.dimensions.items()]
            self._gather(change)

    def stage(self, change: AppliedChange, progress: SnapshotProgress) -> None:
        replaced = self._db.add_snapshot_page(change.upserts, change.removals, progress)
        self.staged = progress
        if replaced:
            self._gathered = []
        self._gather(change)

    def _gather(self, change: AppliedChange) -> None:
        for rows in self._gathered:
            rows.add(change.upserts)

    def finish_snapshot(self, staged: SnapshotProgress) -> None:
        """Swap in the complete snapshot."""
        digests = self._db.finish_snapshot(staged.cursor)
        self.cursor = staged.cursor
        self.staged = None
        gathered, self._gathered = self._gathered, []
        if not gathered:
            self._reload()
            return
        # All of a first snapshot has passed by: no need to read it again.
        self._digests = digests
        for one in gathered:
            rows = one.rows(self.cursor.version)
            self._rows[rows.space] = rows
            self._on_gallery(rows)

    def snapshot_identities(self) -> int:
        """How many people the reset that is under way has brought; 0 without one."""
        return self._db.snapshot_identities() if self.staged else 0

    def abandon_snapshot(self) -> None:
        self._db.abandon_snapshot()
        self.staged = None
        self._gathered = []

"""The watched `.npy` folders of a device (seed 000).

Intake and mirror run in one thread.
"""

import logging
import queue
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from broker_bridge.contract.embeddings import DEFAULT_DIMENSIONS, EmbeddingSpace
from broker_bridge.contract.errors import FILE_INVALID
from broker_bridge.contract.messages import Registered
from device.enrollment.gallery_rows import GalleryRows
from device.management.health import Health
from device.store.connection import StoreConnection, StoreError
from device.store.npy_files import NpyFileStore

from .folder import NpyFolder
from .gallery_view import GalleryFeed, GallerySnapshot
from .intake import NpyIntake, Register
from .mirror import NpyMirror

_log = logging.getLogger(__name__)

# A problem of a file is reported after the file stayed the same for this time.
_SETTLE_SECONDS = 2.0
_MAX_PROBLEMS_NAMED = 5
# Changes in quick succession are handled together.
_PAUSE_SECONDS = 0.2


Decision = tuple[str, bytes, Registered | None]
"""User id, content of the file, and the registry's decision."""


@dataclass(frozen=True)
class _WatchedFolder:
    """A folder with its intake and its mirror."""

    folder: NpyFolder
    intake: NpyIntake
    mirror: NpyMirror
    decisions: "queue.SimpleQueue[Decision]"

    def counts(self) -> Counter[str]:
        return self.intake.counts + Counter(invalid=self.folder.invalid)


class NpyWatch:
    """The watch of `face_db`, `gait_db` and `speaker_db` below `folder`.

    It scans these folders and mirrors the gallery into them. A scan takes place every `watch_seconds`;
    the mirror writes as soon as `rows` change. `spaces` has the space of each modality, None if the
    device supports none. No file is registered before `is_synced`: until then the device cannot know
    which vectors the registry has. Problems are reported to `health` as `file-invalid`, with names of
    files. `counts` has `registered`, `refused` and `invalid` files. All methods but `wake`, `start` and
    `stop` are for one thread.
    """

    def __init__(
        self,
        folder: Path,
        spaces: Mapping[str, EmbeddingSpace | None],
        rows: GalleryFeed,
        *,
        connection: StoreConnection,
        register: Register,
        health: Health,
        mirror: bool,
        watch_seconds: float,
        is_synced: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        self._rows = rows
        self._health = health
        self._is_synced = is_synced
        self._clock = clock
        self._watch_seconds = watch_seconds
        self._scan_at = float("-inf")
        self._snapshots: dict[str, tuple[GalleryRows, GallerySnapshot]] = {}
        self.counts: Counter[str] = Counter()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        store = NpyFileStore(connection)
        self._folders = [
            self._open(folder / f"{modality}_db", spaces.get(modality), store, register, mirror=mirror)
            for modality in DEFAULT_DIMENSIONS
        ]
        rows.subscribe(self.wake)

    def _open(
        self,
        path: Path,
        space: EmbeddingSpace | None,
        store: NpyFileStore,
        register: Register,
        *,
        mirror: bool,
    ) -> _WatchedFolder:
        decisions: queue.SimpleQueue[Decision] = queue.SimpleQueue()

        def decide(user_id: str, content: bytes, answer: Registered | None) -> None:
            decisions.put((user_id, content, answer))
            self.wake()

        folder = NpyFolder(path, space, store, settle_seconds=min(_SETTLE_SECONDS, self._watch_seconds))
        return _WatchedFolder(
            folder, NpyIntake(folder, register, decide), NpyMirror(folder, on=mirror), decisions
        )

    # The thread

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run_loop, name="npy-folders", daemon=True)
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """End the thread after the batch of files that it writes."""
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout)
            self._thread = None

    def wake(self) -> None:
        """Run the next step now; for any thread."""
        self._wake.set()

    def _run_loop(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                seconds = self.step()
            except Exception:  # noqa: BLE001
                # The outermost loop: the error is logged, and the folders are scanned again.
                _log.exception("folder watch met an unexpected error; it goes on")
                seconds = self._watch_seconds
            if self._wake.wait(seconds):
                self._stopping.wait(_PAUSE_SECONDS)

    def step(self) -> float:
        """Do what is due; return the seconds until the next scan."""
        now = self._clock()
        scans = now >= self._scan_at
        if scans:
            self._scan_at = now + self._watch_seconds
        faults = [
            fault for watched in self._folders if (fault := self._update_folder(watched, now, scans=scans))
        ]
        self._report_problems(faults)
        self.counts = sum((watched.counts() for watched in self._folders), Counter())
        return max(0.0, self._scan_at - self._clock())

    def _update_folder(self, watched: _WatchedFolder, now: float, *, scans: bool) -> str | None:
        """Run intake and mirror of one folder; return the fault that stopped them, if any."""
        folder = watched.folder
        try:
            if scans and folder.scan(now):
                watched.mirror.find_differences()
            while not watched.decisions.empty():
                watched.intake.apply_decision(*watched.decisions.get())
            gallery = self._latest_gallery(folder.space)
            if gallery is not None:
                watched.mirror.show(gallery)
            if folder.is_open:
                watched.mirror.write(now, self._stopping.is_set)
            if gallery is not None and self._is_synced():
                watched.intake.register_new_files(gallery)
        except StoreError as error:
            return f"{folder.name}: {error}"
        return watched.mirror.fault

    def _latest_gallery(self, space: EmbeddingSpace | None) -> GallerySnapshot | None:
        rows = self._rows.latest(space.id) if space else None
        if rows is None:
            return None
        cached = self._snapshots.get(rows.space)
        if cached is None or cached[0] is not rows:
            cached = self._snapshots[rows.space] = (rows, GallerySnapshot(rows))
        return cached[1]

    def _report_problems(self, faults: Sequence[str]) -> None:
        sentences = [
            *faults,
            *(problem for watched in self._folders for problem in watched.folder.problems()),
        ]
        if not sentences:
            self._health.clear(FILE_INVALID)
            return
        more = len(sentences) - _MAX_PROBLEMS_NAMED
        named = "; ".join(sentences[:_MAX_PROBLEMS_NAMED])
        self._health.report(FILE_INVALID, f"{named}; and {more} more" if more > 0 else named)

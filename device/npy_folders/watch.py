"""The watched `.npy` folders of a device, both ways, in a thread of their own (seed 000)."""

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

# What is wrong with a file is told when it has been the same for so long.
_SETTLE_SECONDS = 2.0
_MOST_NAMED = 5
# Changes that come one after the other are taken in together.
_PAUSE_SECONDS = 0.2


Decision = tuple[str, bytes, Registered | None]
"""User id, content of the file, and what the registry says of it."""


@dataclass(frozen=True)
class _Both:
    """A folder with its two directions."""

    folder: NpyFolder
    intake: NpyIntake
    mirror: NpyMirror
    decisions: "queue.SimpleQueue[Decision]"

    def counts(self) -> Counter[str]:
        return self.intake.counts + Counter(invalid=self.folder.invalid)


class NpyWatch:
    """Looks at `face_db`, `gait_db` and `speaker_db` below `folder` every `watch_seconds`, and writes to them
    as soon as `rows` change. `spaces` has the space of each modality, None where none is held.

    Nothing is registered before `synced`: until then nobody can tell who is known already. What is wrong is
    reported to `health` as `file-invalid`, by the names of files. `counts` has `registered`, `refused` and
    `invalid` files. All but `wake`, `start` and `stop` is for one thread.
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
        self._look_at = float("-inf")
        self._people: dict[str, tuple[GalleryRows, GallerySnapshot]] = {}
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
    ) -> _Both:
        decisions: queue.SimpleQueue[Decision] = queue.SimpleQueue()

        def decide(user_id: str, content: bytes, answer: Registered | None) -> None:
            decisions.put((user_id, content, answer))
            self.wake()

        folder = NpyFolder(path, space, store, settle_seconds=min(_SETTLE_SECONDS, self._watch_seconds))
        return _Both(folder, NpyIntake(folder, register, decide), NpyMirror(folder, on=mirror), decisions)

    # The thread

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="npy-folders", daemon=True)
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """End after the files that are being written."""
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout)
            self._thread = None

    def wake(self) -> None:
        """Do what is due now; for any thread."""
        self._wake.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                seconds = self.step()
            except Exception:  # noqa: BLE001
                # The outermost loop: what failed is said, and the folders are looked at again.
                _log.exception("the watched folders met an unexpected error; they are looked at again")
                seconds = self._watch_seconds
            if self._wake.wait(seconds):
                self._stopping.wait(_PAUSE_SECONDS)

    def step(self) -> float:
        """Do all that is due; returns the seconds until the next look."""
        now = self._clock()
        looks = now >= self._look_at
        if looks:
            self._look_at = now + self._watch_seconds
        faults = [fault for both in self._folders if (fault := self._tend(both, now, looks=looks))]
        self._report(faults)
        self.counts = sum((both.counts() for both in self._folders), Counter())
        return max(0.0, self._look_at - self._clock())

    def _tend(self, both: _Both, now: float, *, looks: bool) -> str | None:
        """Both ways for one folder; returns what kept it from it."""
        folder = both.folder
        try:
            if looks and folder.look(now):
                both.mirror.compare()
            while not both.decisions.empty():
                both.intake.decide(*both.decisions.get())
            people = self._people_of(folder.space)
            if people is not None:
                both.mirror.show(people)
            if folder.is_open:
                both.mirror.write(now, self._stopping.is_set)
            if people is not None and self._is_synced():
                both.intake.offer(people)
        except StoreError as error:
            return f"{folder.name}: {error}"
        return both.mirror.fault

    def _people_of(self, space: EmbeddingSpace | None) -> GallerySnapshot | None:
        rows = self._rows.latest(space.id) if space else None
        if rows is None:
            return None
        known = self._people.get(rows.space)
        if known is None or known[0] is not rows:
            known = self._people[rows.space] = (rows, GallerySnapshot(rows))
        return known[1]

    def _report(self, faults: Sequence[str]) -> None:
        sentences = [*faults, *(one for both in self._folders for one in both.folder.problems())]
        if not sentences:
            self._health.clear(FILE_INVALID)
            return
        more = len(sentences) - _MOST_NAMED
        told = "; ".join(sentences[:_MOST_NAMED])
        self._health.report(FILE_INVALID, f"{told}; and {more} more" if more > 0 else told)

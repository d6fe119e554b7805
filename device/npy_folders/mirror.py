"""Outward: whoever the device holds in a space appears as a file, and who is gone has none."""

from collections.abc import Callable

from broker_bridge.common.npy import to_npy

from .file import hash_content, write_npy
from .folder import NpyFolder
from .gallery_view import GallerySnapshot

_FILES_AT_ONCE = 200


class NpyMirror:
    """Writes, replaces and removes files of its own; a file that somebody else put there stays as it is.

    When it is not `on` it has nothing to show, and removes what it wrote before. A content is remembered
    as ours before it is written and forgotten after it is gone, so that a file that was written when the
    power went is never taken for somebody else's.
    """

    def __init__(self, folder: NpyFolder, *, on: bool) -> None:
        self._folder = folder
        self._on = on
        self._shown: GallerySnapshot | None = None
        # Whose file may not be as it should.
        self._doubtful: set[str] = set()
        self.fault: str | None = None

    def show(self, people: GallerySnapshot) -> None:
        """The people whom the folder has to show from now on."""
        if people is self._shown:
            return
        if self._on:
            self._doubtful |= people.changed_since(self._shown) if self._shown else people.user_ids
        self._shown = people

    def compare(self) -> None:
        """Doubt everybody whose file is not there, or is there without need. Cheap: no file is read."""
        files = self._folder.files
        wanted = self._shown.user_ids if self._on and self._shown else set()
        mirrored = self._folder.mirrored()
        emptied = {user_id for user_id in mirrored & files.keys() if not files[user_id].signature.size}
        self._doubtful |= (wanted - files.keys()) | (mirrored - wanted) | emptied

    def write(self, now: float, stopping: Callable[[], bool]) -> None:
        """Make the files as they should be, until it is done or `stopping`.

        What cannot be done is tried again at the next call. Raises StoreError.
        """
        self.fault = None
        waiting = sorted(self._doubtful)
        for start in range(0, len(waiting), _FILES_AT_ONCE):
            if stopping():
                return
            part = waiting[start : start + _FILES_AT_ONCE]
            try:
                self._doubtful.difference_update(self._mend(part, now))
            except OSError as error:
                self.fault = f"{self._folder.name}: cannot be written to ({error.strerror})"
                return

    def _mend(self, user_ids: list[str], now: float) -> set[str]:
        """Write and remove what these need; returns those of whom nothing is doubtful any more."""
        folder = self._folder
        # Who is not as seen is somebody's work in progress: the next look tells.
        clear = {user_id for user_id in user_ids if folder.is_as_seen(user_id)}
        wanted = {user_id: to_npy(vector) for user_id in clear if (vector := self._wanted(user_id))}
        contents = {
            user_id: content
            for user_id, data in wanted.items()
            if self._is_to_be_written(user_id, content := hash_content(data))
        }
        folder.remember(contents.items(), ours=True)
        for user_id, content in contents.items():
            signature = write_npy(folder.file_of(user_id), wanted[user_id])
            folder.wrote(user_id, signature, content, now)
        for user_id in clear - wanted.keys():
            if folder.is_ours(user_id):
                folder.file_of(user_id).unlink(missing_ok=True)
                folder.removed(user_id)
        folder.forget_superseded(clear)
        return clear

    def _wanted(self, user_id: str) -> bytes | None:
        return self._shown.first_vector(user_id) if self._on and self._shown else None

    def _is_to_be_written(self, user_id: str, content: bytes) -> bool:
        seen = self._folder.files.get(user_id)
        return seen is None or (seen.content != content and bool(self._folder.is_ours(user_id)))

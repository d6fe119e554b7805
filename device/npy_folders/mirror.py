"""Mirror the identities of a space as files in a watched folder."""

from collections.abc import Callable

from broker_bridge.common.npy import to_npy

from .file import hash_content, write_npy
from .folder import NpyFolder
from .gallery_view import GallerySnapshot

_FILES_AT_ONCE = 200


class NpyMirror:
    """The writer of the mirror's files; files of other programs stay as they are.

    It writes, replaces and removes its own files only. If it is not `on`, it removes the files that it
    wrote before. A content is stored as the mirror's before the file is written, and forgotten after the
    file is removed: after a power cut no file of the mirror counts as another program's.
    """

    def __init__(self, folder: NpyFolder, *, on: bool) -> None:
        self._folder = folder
        self._on = on
        self._shown: GallerySnapshot | None = None
        # The user ids with files that may be wrong.
        self._unchecked: set[str] = set()
        self.fault: str | None = None

    def show(self, gallery: GallerySnapshot) -> None:
        """Set the gallery that the folder shows from now on."""
        if gallery is self._shown:
            return
        if self._on:
            self._unchecked |= gallery.changed_since(self._shown) if self._shown else gallery.user_ids
        self._shown = gallery

    def find_differences(self) -> None:
        """Find missing and superfluous files. Cheap: no file is read."""
        files = self._folder.files
        wanted = self._shown.user_ids if self._on and self._shown else set()
        mirrored = self._folder.mirrored()
        emptied = {user_id for user_id in mirrored & files.keys() if not files[user_id].signature.size}
        self._unchecked |= (wanted - files.keys()) | (mirrored - wanted) | emptied

    def write(self, now: float, stopping: Callable[[], bool]) -> None:
        """Write and remove files until they match the gallery, or until `stopping`.

        A failure is tried again at the next call. Raises StoreError.
        """
        self.fault = None
        unchecked = sorted(self._unchecked)
        for start in range(0, len(unchecked), _FILES_AT_ONCE):
            if stopping():
                return
            batch = unchecked[start : start + _FILES_AT_ONCE]
            try:
                self._unchecked.difference_update(self._correct_files(batch, now))
            except OSError as error:
                self.fault = f"{self._folder.name}: cannot be written to ({error.strerror})"
                return

    def _correct_files(self, user_ids: list[str], now: float) -> set[str]:
        """Write and remove the files of `user_ids`; return those now correct."""
        folder = self._folder
        # A file that changed since the scan may still be written; the next scan reads it.
        checked = {user_id for user_id in user_ids if folder.is_unchanged(user_id)}
        wanted = {user_id: to_npy(vector) for user_id in checked if (vector := self._wanted(user_id))}
        contents = {
            user_id: content
            for user_id, data in wanted.items()
            if self._needs_writing(user_id, content := hash_content(data))
        }
        folder.remember(contents.items(), ours=True)
        for user_id, content in contents.items():
            signature = write_npy(folder.file_of(user_id), wanted[user_id])
            folder.note_written(user_id, signature, content, now)
        for user_id in checked - wanted.keys():
            if folder.is_mirrored(user_id):
                folder.file_of(user_id).unlink(missing_ok=True)
                folder.note_removed(user_id)
        folder.forget_superseded(checked)
        return checked

    def _wanted(self, user_id: str) -> bytes | None:
        return self._shown.first_vector(user_id) if self._on and self._shown else None

    def _needs_writing(self, user_id: str, content: bytes) -> bool:
        seen = self._folder.files.get(user_id)
        return seen is None or (seen.content != content and bool(self._folder.is_mirrored(user_id)))

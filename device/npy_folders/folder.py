"""The files of one watched folder, and which of their contents are known."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from broker_bridge.common.npy import NpyFileError, parse_npy
from broker_bridge.contract.embeddings import EmbeddingSpace
from broker_bridge.contract.ids import UserId
from device.store.npy_files import NpyFileStore

from .file import SUFFIX, FileMovedError, Signature, hash_content, list_npy, read_bytes, remove_temporary

_log = logging.getLogger(__name__)

_MAX_NAME_CHARACTERS = 80


@dataclass
class SeenFile:
    """A file at the last scan.

    Its `content` is the hash of its bytes, None until it was read. `is_done` means that the file needs no
    further work.
    """

    signature: Signature
    since: float
    content: bytes | None = None
    problem: str | None = None
    is_done: bool = False


class NpyFolder:
    """One folder of `<user id>.npy` files with vectors of one space.

    `files` has the files of the last scan by user id; a name that is not a user id is a problem. A file is
    read when it is new or changed. A problem of a file is reported after it stayed the same for
    `settle_seconds`: until then a program may be writing it. `is_open` says whether the last scan succeeded,
    `invalid` counts problems.
    """

    def __init__(
        self,
        path: Path,
        space: EmbeddingSpace | None,
        store: NpyFileStore,
        *,
        settle_seconds: float,
    ) -> None:
        self.path = path
        self.name = path.name
        self.space = space
        self.files: dict[str, SeenFile] = {}
        self.invalid = 0
        self.is_open = False
        self._misnamed: dict[str, str] = {}
        self._unread: set[str] = set()
        self._fault: str | None = None
        self._is_made = False
        self._settle_seconds = settle_seconds
        self._store = store
        self._known = store.load(path.name)

    def file_of(self, user_id: str) -> Path:
        return self.path / f"{user_id}{SUFFIX}"

    # Scanning

    def scan(self, now: float) -> bool:
        """Find and read new, changed and removed files.

        Returns False if the folder cannot be read. The first scan makes a missing folder, for its owner
        alone.
        """
        self.is_open = False
        try:
            if not self._is_made:
                self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
                remove_temporary(self.path)
                self._is_made = True
            found = list_npy(self.path)
        except OSError as error:
            # Nothing is forgotten and no folder is made in its place: the disk may be unmounted for a while.
            self._fault = f"{self.name}: cannot be read ({error.strerror})"
            return False
        self._fault = None
        self.is_open = True
        by_user = self._by_user(found)
        self._forget_removed(self.files.keys() - by_user.keys())
        for user_id, signature in by_user.items():
            seen = self.files.get(user_id)
            if seen is None or seen.signature != signature:
                # A problem stays until the file is read without one.
                before = seen.problem if seen else None
                self.files[user_id] = SeenFile(signature, now, problem=before)
                self._unread.add(user_id)
        for user_id in sorted(self._unread):
            self._read_new(user_id, now)
        return True

    def _by_user(self, found: Mapping[str, Signature]) -> dict[str, Signature]:
        misnamed = {
            name for name in found if stem_of(name) not in self.files and not is_user_id(stem_of(name))
        }
        for name in misnamed - self._misnamed.keys():
            self._misnamed[name] = "its name is not a user id"
            self._count_problem(name, self._misnamed[name])
        for name in self._misnamed.keys() - misnamed:
            del self._misnamed[name]
        return {stem_of(name): signature for name, signature in found.items() if name not in misnamed}

    def _forget_removed(self, user_ids: set[str]) -> None:
        """Forget removed files and their registered contents.

        A file that is put back is a new file.
        """
        for user_id in user_ids:
            del self.files[user_id]
        self._unread -= user_ids
        self.forget(
            (user_id, content)
            for user_id in user_ids
            for content, ours in self._known.get(user_id, {}).items()
            if not ours
        )

    def _read_new(self, user_id: str, now: float) -> None:
        seen = self.files[user_id]
        content = problem = None
        try:
            data = read_bytes(self.file_of(user_id), seen.signature)
            content = hash_content(data)
            if content not in self._known.get(user_id, ()):
                self._parse_vector(data)
        except FileMovedError:
            return
        except NpyFileError as error:
            if now - seen.since < self._settle_seconds:
                return
            problem = None if self._is_emptied(user_id) else str(error)
            if problem is not None and problem != seen.problem:
                self._count_problem(f"{user_id}{SUFFIX}", problem)
        seen.content, seen.problem = content, problem
        seen.is_done = problem is not None or self._is_emptied(user_id)
        self._unread.discard(user_id)

    def read_vector(self, user_id: str) -> bytes:
        """Return the unit vector (float32[d]) of the scanned file.

        Raises NpyFileError, FileMovedError.
        """
        return self._parse_vector(read_bytes(self.file_of(user_id), self.files[user_id].signature))

    def _parse_vector(self, data: bytes) -> bytes:
        if self.space is None:
            modality = self.name.removesuffix("_db")
            raise NpyFileError(f"this device supports no {modality} space; add one to device.further_spaces")
        return parse_npy(data, self.space.dimension)

    def _count_problem(self, name: str, problem: str) -> None:
        self.invalid += 1
        _log.warning(
            "folder file ignored; it stays where it is folder=%s file=%r reason=%r",
            self.name,
            printable(name),
            problem,
        )

    def problems(self) -> list[str]:
        """Return one sentence per file with a problem, and one for the folder itself."""
        named = {f"{user_id}{SUFFIX}": seen.problem for user_id, seen in self.files.items() if seen.problem}
        sentences = [
            f"{self.name}/{printable(name)}: {problem}"
            for name, problem in sorted({**self._misnamed, **named}.items())
        ]
        return [self._fault, *sentences] if self._fault else sentences

    # Known contents

    def is_mirrored(self, user_id: str) -> bool | None:
        """Return whether the mirror wrote the scanned file.

        Returns None if its content is not known.
        """
        seen = self.files.get(user_id)
        if seen is None or seen.content is None:
            return None
        return self._is_emptied(user_id) or self._known.get(user_id, {}).get(seen.content)

    def _is_emptied(self, user_id: str) -> bool:
        """Return whether a power cut emptied a file of the mirror."""
        return self.files[user_id].signature.size == 0 and any(self._known.get(user_id, {}).values())

    def is_unchanged(self, user_id: str) -> bool:
        """Return whether the file, or its absence, is still as the last scan found it."""
        if user_id in self._unread:
            return False
        seen = self.files.get(user_id)
        try:
            status = self.file_of(user_id).lstat()
        except FileNotFoundError:
            return seen is None
        return seen is not None and Signature.of(status) == seen.signature

    def mirrored(self) -> set[str]:
        """Return the user ids with files that the mirror wrote."""
        return {user_id for user_id, contents in self._known.items() if any(contents.values())}

    def remember(self, contents: Iterable[tuple[str, bytes]], *, ours: bool) -> None:
        """Store `(user id, content)` pairs that need no registration. Raises StoreError."""
        pairs = list(contents)
        if pairs:
            self._store.remember(self.name, pairs, ours=ours)
            for user_id, content in pairs:
                self._known.setdefault(user_id, {})[content] = ours

    def forget(self, contents: Iterable[tuple[str, bytes]]) -> None:
        """Forget `(user id, content)` pairs. Raises StoreError."""
        pairs = list(contents)
        if pairs:
            self._store.forget(self.name, pairs)
            for user_id, content in pairs:
                del self._known[user_id][content]
                if not self._known[user_id]:
                    del self._known[user_id]

    def forget_superseded(self, user_ids: Iterable[str]) -> None:
        """Forget contents that the mirror wrote and no file has any more.

        Raises StoreError.
        """
        self.forget(
            (user_id, content)
            for user_id in user_ids
            for content, ours in self._known.get(user_id, {}).items()
            if ours and (user_id not in self.files or content != self.files[user_id].content)
        )

    def note_removed(self, user_id: str) -> None:
        """Note that the mirror has removed a file of its own."""
        del self.files[user_id]
        self._unread.discard(user_id)

    def note_written(self, user_id: str, signature: Signature, content: bytes, now: float) -> None:
        """Note that the mirror has written a file; it need not be read."""
        self.files[user_id] = SeenFile(signature, now, content, is_done=True)
        self._unread.discard(user_id)


def stem_of(name: str) -> str:
    return name.removesuffix(SUFFIX)


_USER_ID: TypeAdapter[str] = TypeAdapter(UserId)


def is_user_id(text: str) -> bool:
    try:
        _USER_ID.validate_python(text)
    except ValidationError:
        return False
    return True


def printable(name: str) -> str:
    """Return a file's name for logs and heartbeats.

    A long name is cut; control and invalid characters are escaped.
    """
    shown = name if name.isprintable() else ascii(name)
    return shown if len(shown) <= _MAX_NAME_CHARACTERS else f"{shown[:_MAX_NAME_CHARACTERS]}..."

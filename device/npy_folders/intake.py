"""Register the vectors of new files in a watched folder."""

import logging
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from broker_bridge.common.npy import NpyFileError
from broker_bridge.contract.messages import Registered
from device.enrollment.registrations import OnAnswer

from .file import SUFFIX, FileMovedError
from .folder import NpyFolder
from .gallery_view import GallerySnapshot

_log = logging.getLogger(__name__)

MAX_PENDING = 50
"""The limit of files per folder that wait for the registry's decision."""


class Register(Protocol):
    """The method `RegistrationSender.register_employee`."""

    def __call__(self, user_id: str, space: str, vector: bytes, on_answer: OnAnswer) -> None: ...


OnDecision = Callable[[str, bytes, Registered | None], None]
"""Receives user id, content of the file and the registry's decision; called in another thread."""


class NpyIntake:
    """The intake of new files; it registers each content once.

    A rejection is a problem of the file; its content is not registered again before a restart. `counts` has
    `registered` and `refused`.
    """

    def __init__(self, folder: NpyFolder, register: Register, on_decision: OnDecision) -> None:
        self._folder = folder
        self._register = register
        self._on_decision = on_decision
        self._pending: dict[str, bytes] = {}
        self._rejected: dict[str, tuple[bytes, str]] = {}
        self.counts: Counter[str] = Counter()

    def register_new_files(self, gallery: GallerySnapshot) -> None:
        """Register files with unknown contents. Raises StoreError.

        The number of pending files is limited.
        """
        folder = self._folder
        for user_id, seen in folder.files.items():
            if seen.content is None or seen.is_done:
                continue
            rejected = self._rejected.get(user_id)
            if rejected and rejected[0] == seen.content:
                seen.problem, seen.is_done = rejected[1], True
            elif folder.is_mirrored(user_id) is not None:
                seen.is_done = True
            elif user_id not in self._pending and len(self._pending) < MAX_PENDING:
                self._register_file(user_id, seen.content, gallery)

    def _register_file(self, user_id: str, content: bytes, gallery: GallerySnapshot) -> None:
        folder = self._folder
        try:
            vector = folder.read_vector(user_id)
        except (FileMovedError, NpyFileError):
            # The next scan reads it again.
            return
        if gallery.has_vector(user_id, vector):
            folder.remember([(user_id, content)], ours=False)
            folder.files[user_id].is_done = True
            return
        self._pending[user_id] = content
        try:
            self._register(
                user_id,
                gallery.rows.space,
                vector,
                lambda decision: self._on_decision(user_id, content, decision),
            )
        except Exception:
            del self._pending[user_id]
            raise

    def apply_decision(self, user_id: str, content: bytes, decision: Registered | None) -> None:
        """Apply the registry's decision. Raises StoreError."""
        self._pending.pop(user_id, None)
        if decision is None:
            return
        problem = _rejection(user_id, decision)
        if problem is None:
            self.counts["registered"] += 1
            self._folder.remember([(user_id, content)], ours=False)
            _log.info(
                "folder file registered folder=%s file=%s%s result=%s",
                self._folder.name,
                user_id,
                SUFFIX,
                decision.result,
            )
        else:
            self.counts["refused"] += 1
            self._rejected[user_id] = (content, problem)


def _rejection(user_id: str, decision: Registered) -> str | None:
    """Return why the registry lacks the file's vector under `user_id`.

    Returns None if the registry has it.
    """
    if decision.error is not None:
        return f"the registry rejected it, {decision.error.code}: {decision.error.detail[:200]}"
    if decision.result == "rejected":
        return "the registry rejected it"
    if decision.user_id not in (None, user_id):
        return f"the registry has this vector as {decision.user_id}"
    return None

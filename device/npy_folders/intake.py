"""Inward: a vector that somebody put into a watched folder is registered."""

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
"""So many files of a folder wait for the registry's answer at a time."""


class Register(Protocol):
    """`Registrations.register`."""

    def __call__(self, user_id: str, space: str, vector: bytes, on_answer: OnAnswer) -> None: ...


OnDecision = Callable[[str, bytes, Registered | None], None]
"""User id, content of the file and the registry's answer; called in another thread."""


class NpyIntake:
    """Asks for each content once. What the registry refuses is a problem of its file, and not asked again
    before a restart. `counts` has `registered` and `refused`.
    """

    def __init__(self, folder: NpyFolder, register: Register, on_decision: OnDecision) -> None:
        self._folder = folder
        self._register = register
        self._on_decision = on_decision
        self._asked: dict[str, bytes] = {}
        self._refused: dict[str, tuple[bytes, str]] = {}
        self.counts: Counter[str] = Counter()

    def offer(self, people: GallerySnapshot) -> None:
        """Ask about files that are not known, as many as may wait. Raises StoreError."""
        folder = self._folder
        for user_id, seen in folder.files.items():
            if seen.content is None or seen.is_done:
                continue
            refused = self._refused.get(user_id)
            if refused and refused[0] == seen.content:
                seen.problem, seen.is_done = refused[1], True
            elif folder.is_ours(user_id) is not None:
                seen.is_done = True
            elif user_id not in self._asked and len(self._asked) < MAX_PENDING:
                self._offer(user_id, seen.content, people)

    def _offer(self, user_id: str, content: bytes, people: GallerySnapshot) -> None:
        folder = self._folder
        try:
            vector = folder.read_vector(user_id)
        except (FileMovedError, NpyFileError):
            # The next look finds out what it is now.
            return
        if people.holds(user_id, vector):
            folder.remember([(user_id, content)], ours=False)
            folder.files[user_id].is_done = True
            return
        self._asked[user_id] = content
        try:
            self._register(
                user_id, people.rows.space, vector, lambda answer: self._on_decision(user_id, content, answer)
            )
        except Exception:
            del self._asked[user_id]
            raise

    def decide(self, user_id: str, content: bytes, answer: Registered | None) -> None:
        """Take in what the registry has decided. Raises StoreError."""
        self._asked.pop(user_id, None)
        if answer is None:
            return
        why = _refusal(user_id, answer)
        if why is None:
            self.counts["registered"] += 1
            self._folder.remember([(user_id, content)], ours=False)
            _log.info("%s/%s%s is registered (%s)", self._folder.name, user_id, SUFFIX, answer.result)
        else:
            self.counts["refused"] += 1
            self._refused[user_id] = (content, why)


def _refusal(user_id: str, answer: Registered) -> str | None:
    """Why the file's vector is not that person's in the registry; None if it is."""
    if answer.error is not None:
        return f"the registry refused it, {answer.error.code}: {answer.error.detail[:200]}"
    if answer.result == "rejected":
        return "the registry refused it"
    if answer.user_id not in (None, user_id):
        return f"the registry knows this vector as {answer.user_id}"
    return None

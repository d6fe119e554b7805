"""The known files of the watched folders, kept over restarts."""

from collections.abc import Iterable

from .connection import StoreConnection

Known = dict[str, dict[bytes, bool]]
"""Per user id, the contents that need no registration, and whether the mirror wrote each."""


class NpyFileStore:
    """The table `npy_files`. Contents are hashes of a file's bytes.

    Every method raises StoreError when the database fails.
    """

    def __init__(self, connection: StoreConnection) -> None:
        self._connection = connection

    def load(self, folder: str) -> Known:
        with self._connection.reading() as connection:
            rows = connection.execute(
                "SELECT user_id, content, ours FROM npy_files WHERE folder = ?", (folder,)
            ).fetchall()
        known: Known = {}
        for user_id, content, ours in rows:
            known.setdefault(user_id, {})[content] = bool(ours)
        return known

    def remember(self, folder: str, contents: Iterable[tuple[str, bytes]], *, ours: bool) -> None:
        """Store `(user id, content)` pairs, all or none."""
        with self._connection.transaction() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO npy_files (folder, user_id, content, ours) VALUES (?, ?, ?, ?)",
                [(folder, user_id, content, ours) for user_id, content in contents],
            )

    def forget(self, folder: str, contents: Iterable[tuple[str, bytes]]) -> None:
        with self._connection.transaction() as connection:
            connection.executemany(
                "DELETE FROM npy_files WHERE folder = ? AND user_id = ? AND content = ?",
                [(folder, user_id, content) for user_id, content in contents],
            )

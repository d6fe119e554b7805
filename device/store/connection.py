"""The SQLite connection that all threads of a device share, and its migrations."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

BUSY_TIMEOUT_MS = 5000

# FULL: a committed row survives a power cut. secure_delete: a removed template leaves no bytes in its page.
_PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA secure_delete = ON",
    "PRAGMA foreign_keys = ON",
    f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}",
)


class StoreError(RuntimeError):
    """The database file cannot be used; the sentence names the file and the remedy."""


class StoreConnection:
    """One connection behind a lock: `transaction` and `reading` exclude other threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None

    def open(self) -> None:
        """Create or open the file and bring its schema up to date. Raises StoreError."""
        with self._lock:
            if self._connection is not None:
                return
            connection: sqlite3.Connection | None = None
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                # Templates are biometric: only the owner may read the file (SQLite gives -wal the same mode).
                self.path.touch(mode=0o600)
                connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
                for pragma in _PRAGMAS:
                    connection.execute(pragma)
                _check(connection)
                _migrate(connection)
            except (OSError, sqlite3.Error) as error:
                if connection is not None:
                    connection.close()
                raise StoreError(_sentence(self.path, error)) from error
            self._connection = connection

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Run a transaction: commit at the end, roll back on any exception.

        Raises StoreError for SQLite's errors.
        """
        with self.reading() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Yield the connection, without other threads.

        Raises StoreError for SQLite's errors and if the file is not open.
        """
        with self._lock:
            if self._connection is None:
                raise StoreError(f"{self.path}: not open; call initialize() first")
            try:
                yield self._connection
            except sqlite3.Error as error:
                raise StoreError(_sentence(self.path, error)) from error

    def truncate_log(self) -> bool:
        """Move the write-ahead log into the file and empty it.

        No old copy of a row stays then. Returns False if another process was reading, so that the log had
        to stay; call it again later.
        """
        with self.reading() as connection:
            busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            return not busy


def _sentence(path: Path, error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{path}: cannot be opened ({error.strerror})"
    if isinstance(error, sqlite3.OperationalError):
        return f"{path}: {error}; check the disk's free space, its permissions and whether it is mounted"
    return (
        f"{path}: is damaged or no database ({error}); move it aside and start again: the gallery syncs "
        "again, and `sqlite3 FILE .recover` reads the events that it still has"
    )


def _check(connection: sqlite3.Connection) -> None:
    finding = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if finding != "ok":
        raise sqlite3.DatabaseError(finding)


def migrations() -> list[tuple[int, str]]:
    """Return number and SQL of each file in `schema/`, in order."""
    folder = resources.files(__package__) / "schema"
    files = [file for file in folder.iterdir() if file.name.endswith(".sql")]
    return sorted((int(file.name.partition("_")[0]), file.read_text(encoding="utf-8")) for file in files)


def _migrate(connection: sqlite3.Connection) -> None:
    known = migrations()
    (current,) = connection.execute("PRAGMA user_version").fetchone()
    if current > known[-1][0]:
        raise sqlite3.OperationalError(
            f"written by newer software (schema {current}, this one knows {known[-1][0]})"
        )
    for number, script in known:
        if number > current:
            # executescript would commit an open transaction first, so BEGIN stands in the script itself.
            connection.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number};\nCOMMIT;")

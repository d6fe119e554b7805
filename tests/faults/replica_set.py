"""A replica set of three, whose primary can be frozen."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from deploy.local.stack import Mongod, free_port
from tests.waiting import wait_until

ELECTION_MS = 2000


class ReplicaSet:
    """Three servers on loopback, in the place of one `Mongod`."""

    def __init__(self, folder: Path, _port: int | None = None) -> None:
        self.members = [Mongod(folder / str(number), free_port()) for number in range(3)]
        self.program = self.members[0].program

    @property
    def uri(self) -> str:
        hosts = ",".join(f"{member.host}:{member.port}" for member in self.members)
        return f"mongodb://{hosts}/?replicaSet=wfm"

    def start(self) -> "ReplicaSet":
        """Start the servers and wait for a primary and two secondaries."""
        for member in self.members:
            (member.folder / "data").mkdir(parents=True)
            member.program.start()
        config = {
            "_id": "wfm",
            "members": [
                {"_id": number, "host": f"{member.host}:{member.port}"}
                for number, member in enumerate(self.members)
            ],
            "settings": {"electionTimeoutMillis": ELECTION_MS},
        }
        with _client(self.members[0]) as client:
            wait_until(lambda: _initiated(client, config), "a replica set")
        wait_until(
            lambda: (
                sum(_is(member, "secondary") for member in self.members) == len(self.members) - 1
                and any(_is(member, "isWritablePrimary") for member in self.members)
            ),
            "a primary and two secondaries",
        )
        return self

    def primary(self, among: list[Mongod] | None = None) -> Mongod | None:
        """Return the member that says it is primary, or None."""
        return next((one for one in among or self.members if _is(one, "isWritablePrimary")), None)

    def freeze_primary(self, after: Callable[[], object]) -> None:
        """Freeze the primary, do `after` and wait for the election of another one."""
        frozen = self.primary()
        assert frozen is not None
        frozen.program.freeze()
        after()
        others = [member for member in self.members if member is not frozen]
        wait_until(lambda: self.primary(others) is not None, "another primary")

    def stop(self) -> None:
        self.kill()

    def kill(self) -> None:
        """Kill all servers; a frozen one as well."""
        for member in self.members:
            member.kill()


def _client(member: Mongod) -> "MongoClient[dict[str, Any]]":
    return MongoClient(
        member.host, member.port, directConnection=True, serverSelectionTimeoutMS=500, socketTimeoutMS=2000
    )


def _is(member: Mongod, role: str) -> bool:
    try:
        with _client(member) as client:
            return bool(client.admin.command("hello").get(role))
    except PyMongoError:
        return False


def _initiated(client: "MongoClient[dict[str, Any]]", config: dict[str, Any]) -> bool:
    try:
        client.admin.command("replSetInitiate", config)
    except PyMongoError:
        threading.Event().wait(0.1)
        return False
    return True

"""A mongod with access control: each refusal at start is one sentence."""

import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import SecretStr
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from broker_bridge.registry import MongoSettings, Registry, RegistryUnavailableError
from deploy.local.mongod import find_mongod
from deploy.local.stack import Program, free_port

READER, WRITER = secrets.token_hex(8), secrets.token_hex(8)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return `host:port` of a replica set with the users `reader` and `writer`."""
    folder, port = tmp_path_factory.mktemp("guarded"), free_port()
    (folder / "data").mkdir()
    (folder / "key").write_text(secrets.token_hex(32))
    (folder / "key").chmod(0o400)
    program = Program(
        [
            *(find_mongod(), "--dbpath", folder / "data", "--port", str(port), "--bind_ip", "127.0.0.1"),
            *("--replSet", "rs0", "--keyFile", folder / "key", "--auth", "--nounixsocket"),
            *("--wiredTigerCacheSizeGB", "0.25"),
        ],
        folder / "mongod.log",
        name="mongod",
    )
    program.start()
    _make_users(program, port)
    yield f"127.0.0.1:{port}"
    program.kill()


def _make_users(program: Program, port: int) -> None:
    """Create users through the localhost exception of a server without users."""
    client: MongoClient[dict[str, Any]]
    with MongoClient("127.0.0.1", port, directConnection=True, serverSelectionTimeoutMS=200) as client:

        def answers() -> bool:
            try:
                return bool(client.admin.command("ping"))
            except PyMongoError:
                return False

        program.wait_until(answers, "answer", 60)
        member = {"_id": 0, "host": f"127.0.0.1:{port}"}
        client.admin.command("replSetInitiate", {"_id": "rs0", "members": [member]})
        program.wait_until(lambda: bool(client.admin.command("hello")["isWritablePrimary"]), "be primary", 60)
        client.admin.command("createUser", "root", pwd=WRITER, roles=["root"])
    with MongoClient("127.0.0.1", port, directConnection=True, username="root", password=WRITER) as client:
        client.wfm.command("createUser", "reader", pwd=READER, roles=[{"role": "read", "db": "wfm"}])
        client.wfm.command("createUser", "writer", pwd=WRITER, roles=[{"role": "readWrite", "db": "wfm"}])


def settings(host: str, user: str, password: str) -> MongoSettings:
    uri = f"mongodb://{user}:{password}@{host}/?replicaSet=rs0&authSource=wfm"
    return MongoSettings(uri=SecretStr(uri), database="wfm")


async def test_a_wrong_password_is_one_sentence(guarded: str) -> None:
    """The sentence names the setting and never the password."""
    with pytest.raises(RegistryUnavailableError, match="refused the user name or password") as refused:
        await Registry.open(settings(guarded, "writer", "wrong-password"))
    assert "wrong-password" not in str(refused.value)


async def test_a_read_only_user_is_one_sentence(guarded: str) -> None:
    """The sentence names the missing right and the database."""
    with pytest.raises(RegistryUnavailableError, match=r"'wfm'.*grant it readWrite"):
        await Registry.open(settings(guarded, "reader", READER))


async def test_read_write_on_the_own_database_is_enough(guarded: str) -> None:
    """Transactions and change streams need no other role."""
    registry = await Registry.open(settings(guarded, "writer", WRITER))
    assert (await registry.versions.read()).version == 0
    async with registry.events.watch():
        pass
    await registry.close()

"""Opening a registry checks the deployment; small collections behave as specified."""

import asyncio
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import SecretStr
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from broker_bridge.contract.embeddings import EmbeddingSpace
from broker_bridge.contract.errors import ContractError
from broker_bridge.registry import MongoSettings, Registry, RegistryUnavailableError, Retention
from broker_bridge.registry.devices.reports import DeviceReport
from broker_bridge.registry.mongo.client import explain_refusal, what_is_missing
from broker_bridge.registry.mongo.leases import Lease
from deploy.local.mongod import find_mongod
from deploy.local.stack import Mongod, free_port
from tests.conftest import StartProgram


@pytest.mark.usefixtures("short_search")
async def test_a_missing_server_is_one_sentence_without_the_password() -> None:
    """The sentence names the host and the setting, never the credentials."""
    uri = f"mongodb://me:hunter2@127.0.0.1:{free_port()}/"
    with pytest.raises(RegistryUnavailableError, match="no MongoDB primary answers at 127") as refused:
        await Registry.open(MongoSettings(uri=SecretStr(uri)))
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("driver", ["pymongo", "motor"])
@pytest.mark.parametrize(
    "uri",
    [
        "mongodb://[::1/",
        "mongodb+srv://me:hunter2@nowhere.invalid/",
        "mongodb://me:hunter2@127.0.0.1:9/?tls=true&tlsCAFile=/nowhere/ca.pem",
    ],
)
async def test_a_uri_that_cannot_be_used_is_one_sentence(
    uri: str, driver: Literal["pymongo", "motor"]
) -> None:
    """Also where the driver notices it late; the sentence names the setting."""
    with pytest.raises(RegistryUnavailableError, match=r"mongo\.uri cannot be used") as refused:
        await Registry.open(MongoSettings(uri=SecretStr(uri), driver=driver))
    assert "hunter2" not in str(refused.value)


@pytest.mark.usefixtures("short_search")
async def test_an_unknown_option_leaves_the_hosts_in_the_sentence() -> None:
    """The driver only warns of it."""
    uri = f"mongodb://127.0.0.1:{free_port()}/?readPreference=nearesst"
    with (
        pytest.warns(UserWarning, match="nearesst"),
        pytest.raises(RegistryUnavailableError, match="no MongoDB primary answers at 127"),
    ):
        await Registry.open(MongoSettings(uri=SecretStr(uri)))


async def test_a_server_without_replica_set_is_one_sentence(
    tmp_path: Path, start_program: StartProgram
) -> None:
    """The sentence has the command that makes a replica set."""
    port = free_port()
    start_program([str(find_mongod()), "--dbpath", str(tmp_path), "--port", str(port), "--nounixsocket"])
    settings = MongoSettings(uri=SecretStr(f"mongodb://127.0.0.1:{port}/"))
    with pytest.raises(RegistryUnavailableError, match=r"not a replica set.*rs\.initiate"):
        await Registry.open(settings)


def test_an_old_server_is_one_sentence() -> None:
    """Snapshot sessions came with 5.0, which is supported."""
    old = what_is_missing({"setName": "rs0"}, {"version": "4.4.9", "versionArray": [4, 4, 9, 0]})
    assert old == "is version 4.4.9, and the oldest supported one is 5.0"
    assert what_is_missing({"setName": "rs0"}, {"version": "5.0.0", "versionArray": [5, 0, 0, 0]}) is None


@pytest.mark.parametrize(("code", "sentence"), [(13, "grant it readWrite"), (18, "refused the user name")])
def test_a_refusal_of_the_server_is_one_sentence(code: int, sentence: str) -> None:
    """Missing permission and wrong password each have their own advice."""
    assert sentence in explain_refusal(OperationFailure("no", code), "db:27017", "wfm")


async def test_opening_again_keeps_the_history_and_applies_the_retention(
    mongo_settings: MongoSettings,
) -> None:
    """Opening without a retention keeps the stored one."""
    first = await Registry.open(mongo_settings, Retention())
    epoch = (await first.versions.read()).epoch
    await first.close()
    await (await Registry.open(mongo_settings, Retention(image_days=7))).close()
    second = await Registry.open(mongo_settings)
    indexes = await second.mongo.db.event_images.index_information()
    assert (await second.versions.read()).epoch == epoch
    assert indexes["expiry"]["expireAfterSeconds"] == 7 * 86_400
    await second.close()


async def test_a_space_keeps_its_dimension_and_its_first_model(registry: Registry) -> None:
    """Another dimension is refused."""
    with pytest.raises(ContractError, match="space-mismatch"):
        await registry.spaces.ensure(EmbeddingSpace("face:test-8", 16))
    await registry.spaces.ensure(EmbeddingSpace("face:test-8", 8, "a" * 64))
    await registry.spaces.ensure(EmbeddingSpace("face:test-8", 8, "b" * 64))
    assert (await registry.spaces.get("face:test-8")).model_sha256 == "a" * 64


async def test_an_older_session_does_not_change_the_status_of_a_device(registry: Registry) -> None:
    """The will of an old connection may arrive after the new one is online."""
    now = datetime.now(timezone.utc)
    await registry.devices.register("cam-001", "lobby")
    await registry.devices.record_reports([DeviceReport.status("cam-001", "online", "9", now, now)])
    await registry.devices.record_reports([DeviceReport.status("cam-001", "online", "10", now, now)])
    await registry.devices.record_reports([DeviceReport.status("cam-001", "lost", "9", now, now)])
    found = await registry.devices.get("cam-001")
    assert found is not None
    assert found.status is not None
    assert (found.status.state, found.status.session) == ("online", "10")
    await registry.devices.record_reports([DeviceReport.status("cam-001", "lost", "10", now, now)])
    found = await registry.devices.get("cam-001")
    assert found is not None
    assert found.status is not None
    assert found.status.state == "lost"


def _applied(version: int, epoch: str = "e1") -> dict[str, object]:
    return {"epoch": epoch, "version": version, "spaces": {}, "duration_ms": 1.0}


@pytest.mark.parametrize(
    ("first", "second", "later_seconds", "kept"),
    [
        (_applied(7), _applied(6), 1, 7),
        (_applied(7), _applied(6), -1, 7),
        (_applied(7), _applied(6), 3600, 7),
        (_applied(6), _applied(7), -1, 7),
        (_applied(6), _applied(7), -3600, 7),
        (_applied(7), _applied(2, "e2"), 1, 2),
        (_applied(2, "e2"), _applied(7, "e1"), -1, 2),
        (_applied(7), _applied(2, "e2"), -3600, 2),
        (_applied(0), _applied(0), -1, 0),
    ],
)
async def test_an_older_applied_report_does_not_replace_a_newer_one(
    registry: Registry,
    first: dict[str, object],
    second: dict[str, object],
    later_seconds: int,
    kept: int,
) -> None:
    """Versions decide within an epoch; a clock that was put back holds nothing up."""
    now = datetime.now(timezone.utc)
    await registry.devices.register("cam-001", "lobby")
    await registry.devices.record_reports([DeviceReport.latest("cam-001", "applied", first, now)])
    at = now + timedelta(seconds=later_seconds)
    await registry.devices.record_reports([DeviceReport.latest("cam-001", "applied", second, at)])
    (found,) = await registry.devices.applied_versions()
    assert found.version == kept


@pytest.mark.parametrize("kind", ["info", "heartbeat", "reported"])
@pytest.mark.parametrize(("later_seconds", "kept"), [(1, 2), (0, 2), (-1, 1), (-59, 1), (-3600, 2)])
async def test_an_overtaken_report_changes_nothing(
    registry: Registry, kind: str, later_seconds: int, kept: int
) -> None:
    """The last write of a former leader may arrive after one of its successor."""
    now = datetime.now(timezone.utc)
    await registry.devices.register("cam-001", "lobby")
    for number, at in ((1, now), (2, now + timedelta(seconds=later_seconds))):
        await registry.devices.record_reports([DeviceReport.latest("cam-001", kind, {"n": number}, at)])
    found = await registry.mongo.db.devices.find_one({"_id": "cam-001"})
    assert found[kind]["n"] == kept


async def test_an_unregistered_device_is_listed_with_its_reports(registry: Registry) -> None:
    """Registering it later keeps its reports."""
    now = datetime.now(timezone.utc)
    await registry.devices.record_contact(["cam-666"])
    await registry.devices.record_reports(
        [DeviceReport.latest("cam-666", "heartbeat", {"uptime_s": 1.0}, now)]
    )
    assert await registry.devices.registered(["cam-666"]) == {}
    assert await registry.devices.applied_versions() == []
    await registry.devices.register("cam-666", "lobby")
    assert (await registry.devices.registered(["cam-666"]))["cam-666"].site_id == "lobby"
    (found,) = await registry.devices.page()
    assert found.heartbeat is not None
    assert found.heartbeat["uptime_s"] == 1.0


@pytest.mark.parametrize("name", ["bridge", "bridge-2", "operator", "admin"])
async def test_a_user_of_the_broker_cannot_be_a_device(registry: Registry, name: str) -> None:
    """It would inherit rights that no device has."""
    with pytest.raises(ContractError, match="device-reserved"):
        await registry.devices.register(name, "lobby")
    assert await registry.sites.all() == []


async def test_a_lease_has_one_holder_until_release_or_expiry(registry: Registry) -> None:
    """Taking it again renews it."""
    first = Lease(registry.mongo, "publisher", "bridge-1", 60)
    second = Lease(registry.mongo, "publisher", "bridge-2", 60)
    assert await first.take()
    assert await first.take()
    assert not await second.take()
    await first.release()
    assert await second.take()
    assert not await first.take()
    past = datetime.now(timezone.utc) - timedelta(seconds=1)
    await registry.mongo.db.meta.update_one({"_id": "lease:publisher"}, {"$set": {"until": past}})
    assert await first.take()


async def test_a_repeated_dead_letter_is_counted_not_stored_again(registry: Registry) -> None:
    """A sender that repeats garbage fills no disk."""
    for _ in range(3):
        await registry.dead_letters.store(
            "wfm/v1/device/cam-001/up/event/facial_id", b"\xff{", "payload-invalid", "?"
        )
    (dead_letter,) = await registry.dead_letters.newest()
    assert (dead_letter["count"], bytes(dead_letter["payload"])) == (3, b"\xff{")


async def test_an_api_key_is_stored_as_a_hash(registry: Registry, mongo_database: str) -> None:
    """The bootstrap key is created only in a database without keys."""
    assert await registry.api_keys.ensure_first("first-secret")
    assert not await registry.api_keys.ensure_first("second-secret")
    key = await registry.api_keys.find("first-secret")
    assert key is not None
    assert key.role == "admin"
    assert await registry.api_keys.find("second-secret") is None
    with MongoClient(registry.mongo._uri) as client:
        assert "first-secret" not in str(list(client[mongo_database].api_keys.find()))


@pytest.mark.parametrize(
    "uri",
    ["mongodb://wfm:Sec/ret@h:1/?replicaSet=rs0", "mongodb://wfm:Se?cret=Sec@h", "mongodb://wfm:Se:c@h"],
)
async def test_an_unescaped_password_is_not_quoted(uri: str) -> None:
    """The driver takes a part of it for a port or a database."""
    with pytest.raises(RegistryUnavailableError, match="%2F") as refused:
        await Registry.open(MongoSettings(uri=SecretStr(uri)))
    assert not any(piece in str(refused.value) for piece in ("ret@", "Sec", "cret"))


async def test_several_programs_open_an_empty_database_at_once(mongo_settings: MongoSettings) -> None:
    """Bridge and API start together; one finds the collections of the other."""
    opened = await asyncio.gather(*(Registry.open(mongo_settings) for _ in range(4)))
    assert len({(await registry.versions.read()).epoch for registry in opened}) == 1
    await asyncio.gather(*(registry.close() for registry in opened))


async def test_a_bridge_can_be_stopped_while_it_waits_for_the_registry(
    own_mongod: Mongod, start_program: StartProgram
) -> None:
    """SIGTERM ends a start-up check that waits for a locked server."""
    client: MongoClient[dict[str, Any]]
    with MongoClient(own_mongod.uri) as client:  # type: ignore[var-annotated]
        client.admin.command("fsync", lock=True)
        program = start_program(
            [sys.executable, "-m", "broker_bridge"],
            {"WFM_MONGO__URI": own_mongod.uri, "WFM_LOG__LEVEL": "info"},
        )
        program.wait_until(
            lambda: bool(
                list(client.admin.aggregate([{"$currentOp": {}}, {"$match": {"waitingForLock": True}}]))
            ),
            "wait for the lock",
            20,
        )
        assert program.stop(timeout=10) == 0
        client.admin.command("fsyncUnlock")

"""Motor fulfils what the registry needs of its driver.

The other tests run with PyMongo.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from bson.binary import VECTOR_SUBTYPE
from pydantic import SecretStr
from pymongo.errors import InvalidOperation, OperationFailure

from broker_bridge.contract.embeddings import EmbeddingSpace, normalise
from broker_bridge.contract.messages import Event
from broker_bridge.registry import MongoSettings, Registry, RegistryError, RegistryUnavailableError
from broker_bridge.registry.audit import AuditEntry
from broker_bridge.registry.events.events import IncomingEvent
from broker_bridge.registry.identities.documents import FLOAT32_HEADER
from broker_bridge.registry.identities.model import DeleteIdentity, EnrollIdentity, Template
from broker_bridge.registry.mongo import client as mongo_client
from broker_bridge.registry.mongo.client import Mongo, TransactionTimeoutError
from broker_bridge.registry.mongo.errors import cannot_resume
from broker_bridge.registry.mongo.leases import Lease
from deploy.local.stack import Mongod, free_port

SPACE = EmbeddingSpace("face:test-8", 8)
NOW = datetime(2026, 1, 15, 10, 0, 1, tzinfo=timezone.utc)


@pytest.fixture
def mongo_settings(mongod: Mongod, mongo_database: str) -> MongoSettings:
    """Return the settings of a fresh database, with Motor."""
    return MongoSettings(uri=SecretStr(mongod.uri), database=mongo_database, driver="motor")


@pytest.fixture
async def registry(mongo_settings: MongoSettings) -> AsyncIterator[Registry]:
    """Open a fresh registry with Motor and a face space."""
    opened = await Registry.open(mongo_settings)
    assert opened.mongo.driver == "motor"
    await opened.spaces.ensure(SPACE)
    yield opened
    await opened.close()


def face(seed: int) -> Template:
    return Template(SPACE.id, normalise(np.random.default_rng(seed).standard_normal(8), 8))


def recognition(number: int, **changed: object) -> IncomingEvent:
    fields = {
        "event_id": f"EV1-1736942400000-{number:06x}",
        "device_id": "cam-001",
        "user_id": "EMP-12345",
        "event_type": "facial_id",
        "timestamp": "2026-01-15T10:00:00.000Z",
        "confidence": 0.92,
        "metadata": {"distance": 0.28},
    }
    return IncomingEvent(Event.model_validate(fields | changed), "lobby", NOW)


async def test_a_registry_keeps_its_history_when_it_is_opened_again(mongo_settings: MongoSettings) -> None:
    first = await Registry.open(mongo_settings)
    epoch = (await first.versions.read()).epoch
    await first.close()
    with pytest.raises(InvalidOperation):
        await first.mongo.ping()
    second = await Registry.open(mongo_settings)
    assert (await second.versions.read()).epoch == epoch
    await second.close()


async def test_several_programs_open_an_empty_database_at_once(mongo_settings: MongoSettings) -> None:
    opened = await asyncio.gather(*(Registry.open(mongo_settings) for _ in range(4)))
    assert len({(await registry.versions.read()).epoch for registry in opened}) == 1
    await asyncio.gather(*(registry.close() for registry in opened))


@pytest.mark.usefixtures("short_search")
async def test_a_server_that_is_away_is_one_sentence_without_the_password() -> None:
    uri = f"mongodb://me:hunter2@127.0.0.1:{free_port()}/"
    with pytest.raises(RegistryUnavailableError, match="no MongoDB primary answers at 127") as refused:
        await Registry.open(MongoSettings(uri=SecretStr(uri), driver="motor"))
    assert "hunter2" not in str(refused.value)


async def test_a_malformed_uri_is_one_sentence() -> None:
    with pytest.raises(RegistryUnavailableError, match=r"mongo\.uri cannot be used"):
        await Registry.open(MongoSettings(uri=SecretStr("mongodb://[::1/"), driver="motor"))


def test_a_missing_motor_package_is_one_sentence(
    mongo_settings: MongoSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sentence has the command that installs it."""
    monkeypatch.setitem(sys.modules, "motor.motor_asyncio", None)
    with pytest.raises(RegistryUnavailableError, match=r'pip install "\.\[motor\]"'):
        Mongo(mongo_settings)


async def test_a_failed_transaction_leaves_nothing(registry: Registry) -> None:
    """Versions taken in it are given back too."""

    async def work(session: Any) -> None:
        await registry.versions.take(session, 3)
        await registry.mongo.db.plain.insert_one({"_id": 1}, session=session)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await registry.mongo.transact(work)
    assert (await registry.versions.read()).version == 0
    assert await registry.mongo.db.plain.count_documents({}) == 0


async def test_a_transaction_that_collides_begins_again(registry: Registry) -> None:
    """A write outside of it makes the first attempt fail.

    It happens between the read and the write of the attempt.
    """
    counters = registry.mongo.db.counters
    await counters.insert_one({"_id": 1, "count": 0})
    attempts: list[int] = []

    async def work(session: Any) -> None:
        found = await counters.find_one({"_id": 1}, session=session)
        attempts.append(found["count"])
        if len(attempts) == 1:
            await counters.update_one({"_id": 1}, {"$inc": {"count": 1}})
        await counters.update_one({"_id": 1}, {"$set": {"count": found["count"] + 10}}, session=session)

    await registry.mongo.transact(work)
    assert attempts == [0, 1]
    assert (await counters.find_one({"_id": 1}))["count"] == 11


async def test_a_commit_that_loses_the_race_begins_again(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Motor 3.7 raises the error of such a commit.

    PyMongo begins the transaction again by itself.
    """
    attempts = 0
    plain_session = registry.mongo._session

    class RacingSession:
        """Session that loses the race of its first commit."""

        def __init__(self, session: Any) -> None:
            self._session = session

        async def with_transaction(self, work: Callable[[Any], Awaitable[Any]], **options: Any) -> Any:
            nonlocal attempts
            attempts += 1
            if attempts == 1:
                raise OperationFailure("race", 112, {"errorLabels": ["TransientTransactionError"]})
            return await self._session.with_transaction(work, **options)

    @asynccontextmanager
    async def racing_session(**options: Any) -> AsyncIterator[Any]:
        async with plain_session(**options) as session:
            yield RacingSession(session)

    monkeypatch.setattr(registry.mongo, "_session", racing_session)

    async def work(session: Any) -> int:
        return await registry.versions.take(session)

    assert await registry.mongo.transact(work) == 1
    assert attempts == 2


async def test_a_transaction_without_end_times_out_and_leaves_nothing(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mongo_client, "_TRANSACTION_SECONDS", 0.3)

    async def work(session: Any) -> None:
        await registry.mongo.db.plain.insert_one({"_id": 1}, session=session)
        await asyncio.Event().wait()

    with pytest.raises(TransactionTimeoutError, match=r"0\.3 s"):
        await registry.mongo.transact(work)
    assert await registry.mongo.db.plain.count_documents({}) == 0


async def test_errors_of_the_server_are_registry_errors(registry: Registry) -> None:
    await registry.mongo.db.plain.insert_one({"_id": 1})
    with pytest.raises(RegistryError):
        await registry.mongo.db.plain.insert_one({"_id": 1})


async def test_concurrent_writers_of_two_programs_take_versions_without_gap(
    registry: Registry, mongo_settings: MongoSettings
) -> None:
    second_registry = await Registry.open(mongo_settings)
    writers = [(registry, "A"), (second_registry, "B")] * 10
    enrolled = await asyncio.gather(
        *(
            writer.identities.enroll(EnrollIdentity(f"{name}-{number}", (face(number),)))
            for number, (writer, name) in enumerate(writers)
        )
    )
    await second_registry.close()
    assert sorted(identity.version for identity in enrolled) == list(range(1, 21))


async def test_identities_are_enrolled_deleted_and_restored_in_bulk(registry: Registry) -> None:
    """1,100 changes are three transactions; vectors are BSON float32 vectors."""
    templates = [face(number) for number in range(550)]
    await registry.identities.apply(
        [EnrollIdentity(f"EMP-{number}", (template,)) for number, template in enumerate(templates)]
    )
    deleted = await registry.identities.apply([DeleteIdentity(f"EMP-{number}") for number in range(550)])
    assert all(outcome.result().deleted for outcome in deleted)
    restored = await registry.identities.restore("EMP-7")
    assert (restored.version, restored.deleted) == (1101, False)
    (kept,) = (await registry.identities.templates_of(["EMP-7"]))["EMP-7"]
    assert kept.vector == templates[7].vector
    stored = await registry.mongo.db.templates.find_one({"user_id": "EMP-7"})
    assert stored["vector"].subtype == VECTOR_SUBTYPE
    assert bytes(stored["vector"]) == FLOAT32_HEADER + templates[7].vector


async def test_a_change_that_breaks_a_unique_index_is_refused_whole(registry: Registry) -> None:
    """Neither the second identity nor its version stays."""
    await registry.mongo.db.identities.insert_one({"_id": "STRAY", "version": 1, "reach": []})
    with pytest.raises(RegistryError):
        await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),)))
    assert (await registry.versions.read()).version == 0
    assert await registry.mongo.db.templates.count_documents({}) == 0


async def test_pages_of_deltas_have_the_whole_history(registry: Registry) -> None:
    await registry.identities.enroll_many([EnrollIdentity(f"EMP-{n}", (face(n),)) for n in range(25)])
    deltas, since, done = [], 0, False
    while not done:
        page = await registry.deltas.site_deltas("lobby", since, [SPACE.id], 10, 10**6, snapshot=False)
        deltas += [(delta.identity.user_id, len(delta.templates)) for delta in page.deltas]
        since, done = page.to_version, page.done
    assert deltas == [(f"EMP-{n}", 1) for n in range(25)]


async def test_a_page_after_a_cursor_is_newest_first(registry: Registry) -> None:
    """Entries of the same time are ordered by id, and each is returned once."""
    for number in range(7):
        entry = AuditEntry("desk", "test.entry", f"S{number}", NOW + timedelta(seconds=number // 2))
        await registry.audit.record(entry, None)
    entries: list[AuditEntry] = []
    before = None
    while page := await registry.audit.page(before=before, limit=3):
        entries += page
        before = page[-1].at, page[-1].entry_id
    assert len({entry.subject for entry in entries}) == len(entries) == 7
    keys = [(entry.at, entry.entry_id) for entry in entries]
    assert keys == sorted(keys, reverse=True)


async def test_a_snapshot_sees_one_point_in_time(registry: Registry) -> None:
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),)))
    async with registry.mongo.snapshot() as session:
        before = await registry.versions.read(session)
        await registry.identities.enroll(EnrollIdentity("EMP-2", (face(2),)))
        assert await registry.versions.read(session) == before
    assert (await registry.versions.read()).version == before.version + 1


async def test_catching_up_makes_earlier_writes_visible(
    registry: Registry, mongo_settings: MongoSettings
) -> None:
    second_registry = await Registry.open(mongo_settings)
    await second_registry.mongo.db.plain.insert_one({"_id": 1})
    await registry.mongo.catch_up()
    assert await registry.mongo.db.plain.count_documents({}) == 1
    await second_registry.close()


async def test_a_change_stream_resumes_after_its_token(registry: Registry) -> None:
    async with registry.events.watch() as stream:
        position = stream.resume_token["_data"]
        await registry.events.record([recognition(1)])
        first = await asyncio.wait_for(anext(stream), 10)
        await registry.events.record([recognition(2)])
    async with registry.events.watch(position) as stream:
        resumed = [await asyncio.wait_for(anext(stream), 10) for _ in range(2)]
    assert resumed[0]["documentKey"] == first["documentKey"]
    assert [change["documentKey"]["_id"] for change in resumed] == [recognition(1).key, recognition(2).key]


@pytest.mark.parametrize("token", ["deadbeef", "82", "8265A5000000000001"])
async def test_a_change_stream_cannot_resume_from_an_invalid_token(registry: Registry, token: str) -> None:
    with pytest.raises(RegistryError) as refused:
        async with registry.events.watch(token) as stream:
            await stream.try_next()
    assert cannot_resume(refused.value)


async def test_an_event_is_recorded_once_and_keeps_its_image(registry: Registry) -> None:
    with_image = recognition(1, image="/9j/4AAQSkZJRg==")
    await registry.events.record([with_image])
    repeated = await registry.events.record([with_image, recognition(2)])
    assert (repeated.repeats, len(repeated.stored)) == (1, 2)
    image = await registry.events.image("cam-001", with_image.event.event_id)
    assert image is not None
    assert image.startswith(b"\xff\xd8\xff")


async def test_a_lease_has_one_holder_at_a_time(registry: Registry) -> None:
    first = Lease(registry.mongo, "publisher", "bridge-1", 60)
    second = Lease(registry.mongo, "publisher", "bridge-2", 60)
    assert [await first.take(), await first.take(), await second.take()] == [True, True, False]
    await first.release()
    assert await second.take()

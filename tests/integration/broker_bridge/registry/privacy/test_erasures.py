"""An erasure leaves a tombstone, a pseudonym and a receipt."""

import asyncio
import base64
import re
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone
from typing import Any

import bson
import numpy as np
import pytest
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument

from broker_bridge.common.clock import utc_now
from broker_bridge.contract.embeddings import normalise
from broker_bridge.contract.errors import ContractError
from broker_bridge.contract.messages import Event
from broker_bridge.contract.wire import to_milliseconds
from broker_bridge.registry import MongoSettings, Registry
from broker_bridge.registry.detected_persons.removal import SETTLE_TIME
from broker_bridge.registry.devices.reports import DeviceReport
from broker_bridge.registry.edge_registration.decisions import RegistrationDecision
from broker_bridge.registry.events.model import IncomingEvent
from broker_bridge.registry.events.pseudonyms import ErasedIdentity, Pseudonyms, pseudonym_at
from broker_bridge.registry.identities.model import EnrollIdentity, ExternalKey, Template
from broker_bridge.registry.privacy.erasure import Erasure, ErasureSubject, replace_names

JPEG = b"\xff\xd8\xff\xe0 the only picture of a face \xff\xd9"
NAME = "Sample Person Ångström"
KEY = ExternalKey("alfred", "person-4711")
LATER = timedelta(hours=1)


def face(seed: int) -> Template:
    return Template("face:test-8", normalise(np.random.default_rng(seed).standard_normal(8), 8))


def recognition_event(n: int, user_id: str, at: datetime, **changed: Any) -> IncomingEvent:
    fields = {
        "event_id": f"EV1-1736942400000-{n:06x}",
        "device_id": "cam-001",
        "user_id": user_id,
        "event_type": "facial_id",
        "timestamp": at,
        "confidence": 0.92,
        "image": base64.b64encode(JPEG).decode(),
        "metadata": {"distance": 0.28, "replayed": False, "name": NAME, "seq": "none", "badge": {"no": 7}},
    }
    return IncomingEvent(Event.model_validate(fields | changed), "lobby", at)


async def erase(registry: Registry, user_id: str, now: datetime | None = None) -> Erasure:
    """Erase an identity and do all following steps at once."""
    now = now or to_milliseconds(utc_now())
    erasure = await registry.erasures.erase(user_id, by="privacy-desk", now=now)
    return await registry.erasures.continue_erasure(erasure.erasure_id, now)


async def confirm(registry: Registry, device_id: str, version: int, at: datetime) -> None:
    applied = {"epoch": (await registry.versions.read()).epoch, "version": version}
    await registry.devices.record_reports([DeviceReport.latest(device_id, "applied", applied, at)])


async def every_document(registry: Registry) -> AsyncIterator[tuple[str, bytes]]:
    """Return the BSON of every document of every collection."""
    raw: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)
    for name in await registry.mongo.db.list_collection_names():
        async for found in registry.mongo.db[name].with_options(codec_options=raw).find({}):
            yield name, found.raw


async def documents_with(registry: Registry, *needles: bytes) -> set[str]:
    return {
        name
        async for name, raw in every_document(registry)
        if any(needle in raw for needle in needles)
    }  # fmt: skip


def biometrics(*templates: Template) -> list[bytes]:
    return [form for template in templates for form in (template.vector, base64.b64encode(template.vector))]


async def test_no_collection_has_data_of_an_erased_identity(registry: Registry) -> None:
    """All BSON is searched for vectors, names, external keys and pictures."""
    now = to_milliseconds(utc_now())
    enrollment = EnrollIdentity("EMP-1", (face(1), face(2)), display_name=NAME, external=KEY, flag="red")
    await registry.identities.enroll(enrollment)
    await registry.identities.enroll(EnrollIdentity("EMP-2", (face(3),), display_name="Other Name"))
    await registry.mongo.db.templates.update_one({"user_id": "EMP-1"}, {"$set": {"parked_by": "EMP-0"}})
    await registry.events.record(
        [recognition_event(1, "EMP-1", now), recognition_event(2, "EMP-2", now, metadata={}, image=None)]
    )
    payload = b'{"user_id": "EMP-1", "name": "Sample Person \\u00c5ngstr\\u00f6m"'
    await registry.dead_letters.store("wfm/v1/device/cam-001/up/event/visit", payload, "event-invalid", "?")
    vector = b'{"vector": "' + base64.b64encode(face(1).vector)
    await registry.dead_letters.store(
        "wfm/v1/device/c/up/enrollment/register", vector, "payload-invalid", "?"
    )
    secrets = [*biometrics(face(1), face(2)), JPEG, NAME.encode(), KEY.external_id.encode(), b"\\u00c5ngstr"]
    before = await documents_with(registry, *secrets)
    assert before == {"identities", "templates", "events", "event_images", "dead_letters"}

    await erase(registry, "EMP-1")

    assert await documents_with(registry, *secrets) == set()
    assert await documents_with(registry, *biometrics(face(3))) == {"templates"}
    assert await documents_with(registry, b"Other Name") == {"identities"}


async def test_only_the_tombstone_has_the_user_id(registry: Registry) -> None:
    """Cameras need it; events, decisions and audit have the pseudonym."""
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),)))
    await registry.identities.enroll(
        EnrollIdentity("EMP-12", (face(2),), audit_details={"near": "EMP-1", "EMP-1": [1]})
    )
    for user_id in ("EMP-1", "EMP-12"):
        await registry.events.record([recognition_event(len(user_id), user_id, to_milliseconds(utc_now()))])
        decision = RegistrationDecision(
            "cam-001", "lobby", f"r-{len(user_id)}", "exists", to_milliseconds(utc_now()), user_id, 0.9
        )
        await registry.registration_decisions.keep(decision)
        payload = f'{{"user_id":"{user_id}"'.encode()
        await registry.dead_letters.store("wfm/v1/device/cam-001/up/info", payload, "event-invalid", "?")

    now = to_milliseconds(utc_now())
    erasure = await erase(registry, "EMP-1", now)
    await registry.erasures.continue_erasure(erasure.erasure_id, now + SETTLE_TIME)

    whole_id = re.compile(rb"EMP-1(?!2)")
    holders = {name async for name, raw in every_document(registry) if whole_id.search(raw)}
    assert holders == {"identities"}
    decided = await registry.registration_decisions.find("cam-001", "r-5")
    assert decided is not None
    assert decided.user_id == erasure.pseudonym
    other_entries = await registry.audit.page(subject="EMP-12")
    assert [entry.after and entry.after["near"] for entry in other_entries] == [erasure.pseudonym]
    assert await documents_with(registry, b"EMP-12") == {
        "identities", "templates", "events", "registrations", "dead_letters", "audit"
    }  # fmt: skip


async def test_events_keep_only_figures_under_the_pseudonym(registry: Registry) -> None:
    """Time and place stay for statistics; other metadata is removed."""
    at = to_milliseconds(utc_now()) - LATER
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),)))
    await registry.events.record([recognition_event(1, "EMP-1", at)])
    erasure = await erase(registry, "EMP-1")
    found = await registry.events.get("cam-001", "EV1-1736942400000-000001")
    assert found is not None
    assert (found.user_id, found.timestamp, found.site_id) == (erasure.pseudonym, at, "lobby")
    assert (found.metadata, found.has_image) == ({"distance": 0.28, "replayed": False}, False)
    assert await registry.events.image("cam-001", "EV1-1736942400000-000001") is None


async def test_thousands_of_events_are_pseudonymised(registry: Registry) -> None:
    """They take more than one round; a second erasure finds none."""
    await registry.identities.enroll(EnrollIdentity("EMP-1"))
    await registry.events.record(
        [recognition_event(n, "EMP-1", to_milliseconds(utc_now()), image=None) for n in range(1100)]
    )
    erasure = await erase(registry, "EMP-1")
    assert erasure.steps["events"].count == 1100
    assert await registry.mongo.db.events.count_documents({"user_id": erasure.pseudonym}) == 1100


async def test_a_late_event_is_stored_under_the_pseudonym(registry: Registry) -> None:
    """A late event gets the pseudonym until another identity has the user id."""
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),)))
    erasure = await erase(registry, "EMP-1")
    late = [
        recognition_event(1, "EMP-1", to_milliseconds(utc_now()) - LATER),
        recognition_event(2, "EMP-1", to_milliseconds(utc_now()) + LATER),
        recognition_event(3, "EMP-2", to_milliseconds(utc_now())),
    ]
    recorded = await registry.events.record(late)
    assert recorded.stored == {item.key for item in late}
    names = [found["user_id"] async for found in registry.mongo.db.events.find({}).sort("_id", 1)]
    assert names == [erasure.pseudonym, erasure.pseudonym, "EMP-2"]
    assert await documents_with(registry, JPEG, NAME.encode()) == {"events", "event_images"}
    assert await registry.mongo.db.event_images.count_documents({}) == 1


async def test_another_program_applies_an_erasure_within_a_second(registry: Registry) -> None:
    """It looks once a second, and then knows all erasures."""
    seconds = [100.0]
    elsewhere = Pseudonyms(registry.mongo, lambda: seconds[0])
    events = [recognition_event(n, f"EMP-{n}", to_milliseconds(utc_now()) - LATER).event for n in (1, 2, 3)]
    assert await elsewhere.pseudonymise(events) == {}
    for n in (1, 3):
        await registry.identities.enroll(EnrollIdentity(f"EMP-{n}"))
        erasure = await erase(registry, f"EMP-{n}")
    assert await elsewhere.pseudonymise(events) == {}
    seconds[0] += 1
    hidden = await elsewhere.pseudonymise(events)
    assert sorted(hidden) == [0, 2]
    assert hidden[2].user_id == erasure.pseudonym


async def test_a_new_identity_with_an_erased_id_keeps_its_events(registry: Registry) -> None:
    """Events from before the erasure belong to the erased person."""
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),)))
    erasure = await erase(registry, "EMP-1")
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(5),)))
    await registry.events.record(
        [
            recognition_event(1, "EMP-1", erasure.requested_at),
            recognition_event(2, "EMP-1", erasure.requested_at + LATER),
        ]
    )
    await registry.erasures.continue_erasure(erasure.erasure_id, erasure.requested_at)
    names = [found["user_id"] async for found in registry.mongo.db.events.find({}).sort("_id", 1)]
    assert names == [erasure.pseudonym, "EMP-1"]
    assert (await registry.identities.get("EMP-1")).deleted is False
    assert len(await registry.audit.page(subject="EMP-1")) == 1


@pytest.mark.parametrize(
    ("minute", "reassigned", "name"),
    [(0, True, "first"), (1, True, "first"), (2, True, "second"), (9, True, None), (9, False, "second")],
)
def test_two_erasures_of_an_id_are_separated_by_time(minute: int, reassigned: bool, name: str | None) -> None:
    """Each covers events up to its time; the last one also later events."""
    noon = datetime(2026, 1, 15, 12, tzinfo=timezone.utc)
    erased = [
        ErasedIdentity(noon + timedelta(minutes=1), "first"),
        ErasedIdentity(noon + timedelta(minutes=3), "second"),
    ]
    assert pseudonym_at(erased, noon + timedelta(minutes=minute), reassigned=reassigned) == name


async def test_merged_identities_are_erased_with_the_target(registry: Registry) -> None:
    """Each gets a tombstone; the erasure of a source alone is refused."""
    for n in (1, 2, 3):
        await registry.identities.enroll(EnrollIdentity(f"EMP-{n}", (face(n),), display_name=NAME))
        await registry.events.record(
            [recognition_event(n, f"EMP-{n}", to_milliseconds(utc_now()), metadata={})]
        )
    await registry.identity_merges.merge("EMP-1", "EMP-2")
    await registry.identity_merges.merge("EMP-2", "EMP-3")
    with pytest.raises(ContractError, match=r"person-merged.*erase EMP-2"):
        await registry.erasures.erase("EMP-1", by="privacy-desk", now=to_milliseconds(utc_now()))

    erasure = await erase(registry, "EMP-3")

    identities = [await registry.identities.get(f"EMP-{n}") for n in (1, 2, 3)]
    assert all(identity.erased and identity.deleted and not identity.merge for identity in identities)
    assert len({identity.version for identity in identities}) == 3
    assert await registry.mongo.db.templates.count_documents({}) == 0
    assert await registry.mongo.db.events.count_documents({"user_id": erasure.pseudonym}) == 3
    assert (erasure.version, erasure.steps["people"].count) == (max(p.version for p in identities), 3)


async def test_remains_of_a_purged_source_are_erased_with_the_target(registry: Registry) -> None:
    """The audit log still names the target of the purged tombstone."""
    for n in (1, 2):
        await registry.identities.enroll(EnrollIdentity(f"EMP-{n}", (face(n),)))
    await registry.events.record([recognition_event(1, "EMP-1", to_milliseconds(utc_now()))])
    await registry.identity_merges.merge("EMP-1", "EMP-2")
    await registry.tombstones.purge(to_milliseconds(utc_now()) + LATER, timedelta(0))
    erasure = await erase(registry, "EMP-2")
    assert await registry.mongo.db.events.distinct("user_id") == [erasure.pseudonym]


async def test_remains_of_a_purged_identity_can_be_erased(registry: Registry) -> None:
    """A purge keeps events; an erasure removes the person from them."""
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),)))
    await registry.events.record([recognition_event(1, "EMP-1", to_milliseconds(utc_now()))])
    await registry.identities.delete("EMP-1")
    await registry.tombstones.purge(to_milliseconds(utc_now()) + LATER, timedelta(0))
    version = (await registry.versions.read()).version
    erasure = await erase(registry, "EMP-1")
    assert await registry.mongo.db.events.distinct("user_id") == [erasure.pseudonym]
    assert (erasure.version, erasure.devices) == (0, ())
    assert (await registry.versions.read()).version == version


async def test_audit_entries_of_a_purged_identity_are_erased(registry: Registry) -> None:
    """A repeated request without remains returns the same erasure."""
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),)))
    await registry.identities.delete("EMP-1")
    await registry.tombstones.purge(to_milliseconds(utc_now()) + LATER, timedelta(0))
    erasure = await erase(registry, "EMP-1")
    assert await documents_with(registry, b"EMP-1") == {"erasures"}
    settled = await registry.erasures.continue_erasure(
        erasure.erasure_id, to_milliseconds(utc_now()) + SETTLE_TIME
    )
    assert await documents_with(registry, b"EMP-1") == set()
    assert (await erase(registry, "EMP-1")).erasure_id == settled.erasure_id


async def test_concurrent_erasures_of_an_identity_are_one(
    registry: Registry, mongo_settings: MongoSettings
) -> None:
    """Otherwise events would get one of two pseudonyms by chance."""
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),)))
    second_registry = await Registry.open(mongo_settings)
    erasures = await asyncio.gather(
        *(
            program_registry.erasures.erase("EMP-1", by="privacy-desk", now=to_milliseconds(utc_now()))
            for program_registry in (registry, second_registry) * 2
        )
    )
    await second_registry.close()
    assert len({erasure.erasure_id for erasure in erasures}) == 1


async def test_audit_entries_of_a_site_with_the_same_id_stay(registry: Registry) -> None:
    """Only entries about persons get the pseudonym."""
    await registry.sites.ensure("lobby")
    await registry.sites.set_policy("lobby", "visitors", by="tester", at=to_milliseconds(utc_now()))
    await registry.identities.enroll(EnrollIdentity("lobby", (face(1),)))
    erasure = await erase(registry, "lobby")
    assert [entry.what for entry in await registry.audit.page(subject="lobby")] == ["site.enrollment-policy"]
    assert erasure.steps["audit"].count == 1


async def test_an_erased_identity_keeps_its_receipt(registry: Registry) -> None:
    """A repeat returns the same erasure and takes no version; unknown ids are refused."""
    with pytest.raises(ContractError, match="person-unknown"):
        await registry.erasures.erase("EMP-9", by="privacy-desk", now=to_milliseconds(utc_now()))
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),)))
    await registry.identities.delete("EMP-1")
    first = await erase(registry, "EMP-1")
    repeated = await registry.erasures.erase("EMP-1", by="another-operator", now=to_milliseconds(utc_now()))
    assert repeated == first
    assert (await registry.versions.read()).version == first.version == 3
    with pytest.raises(ContractError, match="person-unknown"):
        await registry.identities.restore("EMP-1")


async def test_the_receipt_has_the_confirmation_of_each_device(registry: Registry) -> None:
    """It lists devices of synced sites and completes after the last one."""
    for device_id, site in {"cam-1": "north", "cam-2": "north", "cam-3": "south", "cam-4": "far"}.items():
        await registry.devices.register(device_id, site)
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),), sites=("north",)))
    await registry.identities.enroll(EnrollIdentity("EMP-2", (face(2),), sites=("south",)))
    await registry.identity_merges.merge("EMP-1", "EMP-2")
    now = to_milliseconds(utc_now())
    erasure = await erase(registry, "EMP-2", now)
    assert [device.device_id for device in erasure.devices] == ["cam-1", "cam-2", "cam-3"]
    versions = [(await registry.identities.get(user_id)).version for user_id in ("EMP-1", "EMP-2")]
    needed = {device.device_id: device.version for device in erasure.devices}
    # The site `south` receives only EMP-2.
    assert needed == {"cam-1": max(versions), "cam-2": max(versions), "cam-3": versions[1]}

    await confirm(registry, "cam-1", needed["cam-1"] - 1, now)
    await confirm(registry, "cam-3", needed["cam-3"], now + timedelta(seconds=3))
    waiting = await registry.erasures.note_confirmations(erasure.erasure_id, now)
    assert [device.state for device in waiting.devices] == ["waiting", "waiting", "confirmed"]
    assert waiting.devices[2].confirmed_at == now + timedelta(seconds=3)
    assert (waiting.state, waiting.confirmed) == ("open", 1)

    await confirm(registry, "cam-1", needed["cam-1"], now + timedelta(seconds=5))
    await confirm(registry, "cam-3", needed["cam-3"] + 7, now + LATER)
    await registry.mongo.db.devices.delete_one({"_id": "cam-2"})
    at_once = await registry.erasures.continue_erasure(erasure.erasure_id, now + timedelta(seconds=6))
    assert [device.state for device in at_once.devices] == ["confirmed", "gone", "confirmed"]
    assert at_once.devices[2].confirmed_at == now + timedelta(seconds=3)
    assert at_once.state == "open"
    settled = await registry.erasures.continue_erasure(erasure.erasure_id, now + SETTLE_TIME)
    assert (settled.state, settled.completed_at, settled.subject) == ("complete", now + SETTLE_TIME, None)


async def test_an_interrupted_erasure_continues_and_sweeps_late_messages(registry: Registry) -> None:
    """Any bridge worker can repeat the steps after the transaction."""
    now = to_milliseconds(utc_now())
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),)))
    await registry.events.record([recognition_event(1, "EMP-1", now)])
    erasure = await registry.erasures.erase("EMP-1", by="privacy-desk", now=now)
    assert set(erasure.steps) == {"people", "templates"}
    assert await registry.erasures.continue_open_erasures(now) == 0
    # The worker of this batch read the erasures before this one.
    await registry.mongo.db.events.insert_one(
        {"_id": "cam-001/late", "user_id": "EMP-1", "timestamp": now, "received_at": now, "metadata": {}}
    )
    assert await registry.erasures.continue_open_erasures(now + SETTLE_TIME) == 1
    (done,) = await registry.erasures.erasures_of(["EMP-1"])
    assert (done.state, done.steps["events"].count, done.steps["events"].at) == (
        "complete",
        2,
        now + SETTLE_TIME,
    )
    assert await registry.mongo.db.events.distinct("user_id") == [done.pseudonym]
    (kept,) = [found async for found in registry.mongo.db.erasures.find({})]
    assert b"EMP-1" not in bson.encode(kept)


async def test_the_audit_entry_of_an_erasure_has_the_pseudonym(registry: Registry) -> None:
    """It has author and time, but not the user id."""
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),), by="importer"))
    erasure = await erase(registry, "EMP-1")
    entries = [(entry.what, entry.who) for entry in await registry.audit.page(subject=erasure.pseudonym)]
    assert entries == [("person.erased", "privacy-desk"), ("person.enrolled", "importer")]
    assert await registry.audit.page(subject="EMP-1") == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('"EMP-1"', True), ("of EMP-1.", True), ("EMP-1, too", True), ("EMP-12", False), ("EMP-1.x", False),
        ("TEMP-1", False), ("EMP-1@site", False), ("[a.b]", True), ("axb", False), ('\\"quoted\\"', True),
    ],
)  # fmt: skip
def test_a_name_matches_whole_and_not_inside_another(text: str, found: bool) -> None:
    """A user id may begin another one, and names may have any character."""
    pattern = ErasureSubject(("EMP-1",), ("a.b", '"quoted"')).pattern()
    assert bool(pattern.search(text.encode())) is found


def test_names_are_replaced_at_any_depth() -> None:
    """Keys, lists and sentences are searched; numbers stay."""
    pattern = ErasureSubject(("EMP-1",)).pattern()
    document = {"EMP-1": ["EMP-1", {"why": "near EMP-1."}], "n": 1, "other": "EMP-11"}
    assert replace_names(document, pattern, "X") == {
        "X": ["X", {"why": "near X."}],
        "n": 1,
        "other": "EMP-11",
    }

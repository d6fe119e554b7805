"""Cameras register visitors; the first device wins."""

import asyncio
import itertools
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from pymongo.errors import ConnectionFailure

from broker_bridge.bootstrap import Bridge, open_registry
from broker_bridge.contract.channels import REGISTER, Decoded
from broker_bridge.contract.embeddings import EmbeddingSpace, normalise
from broker_bridge.contract.messages import Registered, RegisterIdentity
from broker_bridge.enrollment.registration import RegistrationHandler
from broker_bridge.registry import Registry
from broker_bridge.registry.devices.reports import DeviceReport
from broker_bridge.registry.events.event_filter import EventFilter
from broker_bridge.registry.events.model import EventRecord
from broker_bridge.registry.identities.model import EnrollIdentity
from broker_bridge.registry.matching.identity_index import IdentityIndex
from broker_bridge.registry.settings import RegistrySettings
from broker_bridge.settings import BridgeProgram
from tests.conftest import FreshDevice
from tests.integration.broker_bridge.devices.test_commands import Wire, now
from tests.integration.broker_bridge.support import SPACE, Peer, face
from tests.waiting import until


def near(seed: int, similarity: float) -> bytes:
    """Return a unit vector of the given cosine similarity to `face(seed)`."""
    direction = np.frombuffer(face(seed).vector, np.float32).astype(np.float64)
    orthogonal = np.random.default_rng(seed + 1000).standard_normal(8)
    orthogonal -= (orthogonal @ direction) * direction
    orthogonal /= np.linalg.norm(orthogonal)
    return normalise(similarity * direction + np.sqrt(1 - similarity**2) * orthogonal, 8)


def registration_request(request_id: str, vector: bytes, /, **changed: Any) -> RegisterIdentity:
    fields = {"request_id": request_id, "space": SPACE, "vector": vector, "kind": "visitor"} | changed
    return RegisterIdentity.model_validate(fields)


def new_handler(registry: Registry) -> RegistrationHandler:
    return RegistrationHandler(registry, Wire().publish)


async def visits(registry: Registry) -> list[EventRecord]:
    return await registry.events.page(EventFilter(event_type="visit"))


@pytest.fixture
async def open_site(registry: Registry, fresh_device: FreshDevice) -> FreshDevice:
    """Return the device, at a site that is open to visitors."""
    await registry.sites.set_policy(fresh_device.site, "visitors", by="tester", at=now())
    return fresh_device


async def decide(handler: RegistrationHandler, device: FreshDevice, request: RegisterIdentity) -> Registered:
    answer = await handler.decide_registration(device.id, request)
    assert answer is not None
    return answer


async def test_an_unknown_face_becomes_a_visitor_of_the_site(
    open_site: FreshDevice, bridge: Bridge, peer: Peer, registry: Registry
) -> None:
    """The answer is `created` with a new id; a delta and an audit entry follow."""
    await peer.send("enrollment/register", registration_request("r-1", face(1).vector, quality=0.8))
    answer = await peer.receive("registered")
    assert (answer.request_id, answer.result, answer.similarity) == ("r-1", "created", None)
    assert answer.user_id.startswith("VIS-")
    while not (page := await peer.request_page()).upserts:
        pass
    assert [(u.user_id, u.templates[0].vector) for u in page.upserts] == [(answer.user_id, face(1).vector)]
    identity = await registry.identities.get(answer.user_id)
    assert (identity.kind, identity.sites) == ("visitor", (open_site.site,))
    (template,) = (await registry.identities.templates_of([answer.user_id]))[answer.user_id]
    assert (template.quality, template.source) == (0.8, "edge")
    entry = (await registry.audit.page())[0]
    assert (entry.who, entry.what, entry.subject) == (
        f"device:{open_site.id}", "person.enrolled", answer.user_id
    )  # fmt: skip
    assert await visits(registry) == []
    assert bridge.registrations.counters["created"] == 1


async def test_a_known_face_exists_and_the_visit_is_recorded_once(
    open_site: FreshDevice, registry: Registry
) -> None:
    """A repeat at another worker gets the first similarity."""
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),), sites=("elsewhere",)))
    answers = [
        await decide(handler, open_site, registration_request("r-1", near(1, 0.8)))
        for handler in (new_handler(registry), new_handler(registry))
    ]
    assert answers[0] == answers[1]
    assert (answers[0].result, answers[0].user_id) == ("exists", "EMP-1")
    assert answers[0].similarity == pytest.approx(0.8, abs=1e-5)
    (visit,) = await visits(registry)
    assert (visit.user_id, visit.device_id, visit.site_id) == (
        "EMP-1", open_site.id, open_site.site
    )  # fmt: skip
    await decide(new_handler(registry), open_site, registration_request("r-2", near(1, 0.8)))
    assert len(await visits(registry)) == 2
    assert (await registry.versions.read()).version == 1


async def test_no_visitor_is_made_where_consent_is_required(
    open_site: FreshDevice, registry: Registry, program: BridgeProgram
) -> None:
    """A face without consent is in no index: each request would make a visitor."""
    strict = await Registry.open(program.mongo, settings=RegistrySettings(consent="required"))
    answer = await decide(new_handler(strict), open_site, registration_request("r-1", face(1).vector))
    await strict.close()
    assert (answer.result, answer.error and answer.error.code) == ("rejected", "enrollment-closed")
    assert (await registry.versions.read()).version == 0


async def test_a_repeated_request_makes_no_second_visitor(open_site: FreshDevice, registry: Registry) -> None:
    """The answer is the first one, also after the site was closed again."""
    first = await decide(new_handler(registry), open_site, registration_request("r-1", face(1).vector))
    await registry.sites.set_policy(open_site.site, "closed", by="tester", at=now())
    assert (
        await decide(new_handler(registry), open_site, registration_request("r-1", face(1).vector)) == first
    )
    assert (await registry.versions.read()).version == 1
    kept = await registry.mongo.db.registrations.find_one({})
    assert not [value for value in kept.values() if isinstance(value, bytes)]


async def test_a_look_alike_is_neither_created_nor_matched(
    open_site: FreshDevice, registry: Registry
) -> None:
    """A similarity in the uncertain band is rejected as `face-ambiguous`."""
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),)))
    answer = await decide(new_handler(registry), open_site, registration_request("r-1", near(1, 0.6)))
    assert (answer.result, answer.user_id) == ("rejected", None)
    assert answer.error is not None
    assert answer.error.code == "face-ambiguous"
    assert ((await registry.versions.read()).version, await visits(registry)) == (1, [])


async def test_concurrent_requests_of_two_devices_make_one_visitor(
    open_site: FreshDevice, registry: Registry, program: BridgeProgram
) -> None:
    """Two workers get the same six faces at once and make six visitors, six visits."""
    second_registry = await open_registry(program)
    workers = new_handler(registry), new_handler(second_registry)
    second = FreshDevice("cam-second", "", open_site.site)
    await registry.devices.register(second.id, second.site)
    for n in range(6):
        vector = np.zeros(8)
        vector[n] = 1.0
        request = registration_request(f"r-{n}", normalise(vector, 8))
        answers = await asyncio.gather(
            *(
                decide(worker, device, request)
                for worker, device in zip(workers, (open_site, second), strict=True)
            )
        )
        assert sorted(answer.result for answer in answers) == ["created", "exists"]
        assert len({answer.user_id for answer in answers}) == 1
    await second_registry.close()
    assert (await registry.versions.read()).version == 6
    assert len(await visits(registry)) == 6


async def test_one_request_that_two_workers_get_is_decided_once(
    open_site: FreshDevice, registry: Registry, program: BridgeProgram
) -> None:
    """The device repeats its request while the first worker is still deciding."""
    second_registry = await open_registry(program)
    workers = new_handler(registry), new_handler(second_registry)
    answers = await asyncio.gather(
        *(decide(worker, open_site, registration_request("r-1", face(1).vector)) for worker in workers)
    )
    await second_registry.close()
    assert answers[0] == answers[1]
    assert (answers[0].result, await visits(registry)) == ("created", [])
    assert (await registry.versions.read()).version == 1


async def test_a_change_during_the_search_repeats_the_search(
    open_site: FreshDevice, registry: Registry
) -> None:
    """An identity that is enrolled after an empty search is the answer."""
    handler = new_handler(registry)
    await decide(handler, open_site, registration_request("r-0", face(5).vector))
    index = registry.identity_indexes._indexes[SPACE]
    find = index.find_nearest
    times = 0

    async def find_and_enroll(vector: bytes, floor: float) -> Any:
        nonlocal times
        found = await find(vector, floor)
        times += 1
        if times == 1:
            await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),)))
        return found

    index.find_nearest = find_and_enroll  # type: ignore[method-assign]
    answer = await decide(handler, open_site, registration_request("r-1", face(1).vector))
    assert (answer.result, answer.user_id, times) == ("exists", "EMP-1", 2)
    assert registry.edge_registration.counters["decided_again"] == 1


async def test_no_answer_is_sent_while_the_registry_changes_permanently(
    open_site: FreshDevice, registry: Registry
) -> None:
    """As in a bulk import the request stays undecided, and the device repeats it."""
    handler = new_handler(registry)
    index = registry.identity_indexes._indexes[SPACE] = IdentityIndex(
        registry.deltas, await registry.spaces.get(SPACE)
    )
    find = index.find_nearest
    flags = itertools.cycle(["red", "blue"])

    async def find_and_enroll(vector: bytes, floor: float) -> Any:
        found = await find(vector, floor)
        await registry.identities.enroll(EnrollIdentity("EMP-1", flag=next(flags)))
        return found

    index.find_nearest = find_and_enroll  # type: ignore[method-assign]
    assert (
        await handler.decide_registration(open_site.id, registration_request("r-1", face(1).vector)) is None
    )
    index.find_nearest = find  # type: ignore[method-assign]
    assert (await decide(handler, open_site, registration_request("r-1", face(1).vector))).result == "created"


async def test_a_site_that_is_closed_during_the_search_registers_no_visitor(
    open_site: FreshDevice, registry: Registry
) -> None:
    """A site that is closed while the index loads stays closed."""
    handler = new_handler(registry)
    index = registry.identity_indexes._indexes[SPACE] = IdentityIndex(
        registry.deltas, await registry.spaces.get(SPACE)
    )
    find = index.find_nearest

    async def find_and_close(vector: bytes, floor: float) -> Any:
        found = await find(vector, floor)
        await registry.sites.set_policy(open_site.site, "closed", by="tester", at=now())
        return found

    index.find_nearest = find_and_close  # type: ignore[method-assign]
    answer = await decide(handler, open_site, registration_request("r-1", face(1).vector))
    assert answer.error is not None
    assert (answer.result, answer.error.code) == ("rejected", "enrollment-closed")
    assert (await registry.versions.read()).version == 0
    assert await registry.mongo.db.registrations.count_documents({}) == 0


async def test_a_repeat_records_the_visit_of_a_worker_that_died(
    open_site: FreshDevice, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The visit is recorded once, with the time of the decision."""
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),)))
    with monkeypatch.context() as patch:
        patch.setattr(registry.events, "record", _fail)
        with pytest.raises(ConnectionFailure):
            await new_handler(registry).decide_registration(
                open_site.id, registration_request("r-1", face(1).vector)
            )
    assert await visits(registry) == []
    for _ in range(2):
        assert (
            await decide(new_handler(registry), open_site, registration_request("r-1", face(1).vector))
        ).result == "exists"
    decided = await registry.registration_decisions.find(open_site.id, "r-1")
    assert decided is not None
    assert [visit.timestamp for visit in await visits(registry)] == [decided.at]


async def _decide_and_fail(
    registry: Registry, device: FreshDevice, monkeypatch: pytest.MonkeyPatch
) -> RegisterIdentity:
    """Return a request of which the worker ended between decision and visit."""
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),)))
    request = registration_request("r-1", face(1).vector)
    with monkeypatch.context() as patch:
        patch.setattr(registry.events, "record", _fail)
        with pytest.raises(ConnectionFailure):
            await new_handler(registry).decide_registration(device.id, request)
    return request


async def test_a_late_repeat_records_no_visit_that_is_too_old(
    open_site: FreshDevice, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The age limit of events applies to visits of registrations; the answer stays."""
    request = await _decide_and_fail(registry, open_site, monkeypatch)
    late = RegistrationHandler(registry, Wire().publish, now=lambda: now() + timedelta(days=367))
    assert (await decide(late, open_site, request)).user_id == "EMP-1"
    assert await visits(registry) == []
    assert registry.edge_registration.counters["visits_rejected"] == 1


async def test_a_repeat_after_a_merge_records_no_visit_of_the_merged_identity(
    open_site: FreshDevice, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The visit is rejected as `person-merged` would be; the answer stays."""
    request = await _decide_and_fail(registry, open_site, monkeypatch)
    await registry.identities.enroll(EnrollIdentity("EMP-2", (face(2),)))
    await registry.identity_merges.merge("EMP-1", "EMP-2")
    assert (await decide(new_handler(registry), open_site, request)).user_id == "EMP-1"
    assert await visits(registry) == []
    assert registry.edge_registration.counters["visits_rejected"] == 1


async def _fail(*_: Any, **__: Any) -> None:
    raise ConnectionFailure("as if killed")


async def test_a_used_id_is_not_assigned_again(open_site: FreshDevice, registry: Registry) -> None:
    """The id of a deleted identity would give a new face an old history."""
    await registry.identities.enroll(EnrollIdentity("VIS-1", (face(1),)))
    await registry.identities.delete("VIS-1")
    ids = iter(["VIS-1", "VIS-2"])
    handler = RegistrationHandler(registry, Wire().publish, new_user_id=lambda: next(ids))
    assert (await decide(handler, open_site, registration_request("r-1", face(2).vector))).user_id == "VIS-2"


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"kind": "employee", "user_id": "EMP-1"}, "enrollment-closed"),
        ({"space": "face:unheard-of"}, "space-unknown"),
        ({"vector": b"\0\0\x80\x3f" * 4}, "vector-invalid"),
        ({"vector": b"\0" * 32}, "vector-invalid"),
        ({"vector": b"\0\0\xc0\x7f" * 8}, "vector-invalid"),
    ],
)
async def test_an_invalid_request_is_rejected_with_a_code(
    open_site: FreshDevice, registry: Registry, changed: dict[str, Any], code: str
) -> None:
    """A rejected request stores neither an identity nor a decision."""
    answer = await decide(
        new_handler(registry), open_site, registration_request("r-1", face(1).vector, **changed)
    )
    assert answer.error is not None
    assert (answer.result, answer.error.code) == ("rejected", code)
    assert (await registry.versions.read()).version == 0
    assert await registry.mongo.db.registrations.count_documents({}) == 0


async def test_a_rejection_fits_its_message_with_many_known_spaces(
    open_site: FreshDevice, registry: Registry
) -> None:
    """The rejection lists known spaces; long names do not end the worker."""
    for n in range(30):
        await registry.spaces.ensure(EmbeddingSpace(f"face:{n:02}{'x' * 57}", 8))
    answer = await decide(
        new_handler(registry), open_site, registration_request("r-1", face(1).vector, space="face:unheard-of")
    )
    assert answer.error is not None
    assert answer.error.code == "space-unknown"


async def test_a_closed_site_and_an_unknown_device_register_no_visitor(
    registry: Registry, fresh_device: FreshDevice
) -> None:
    """Sites are closed by default; after opening the same request is decided."""
    handler = new_handler(registry)
    request = registration_request("r-1", face(1).vector)
    closed = await decide(handler, fresh_device, request)
    unknown = await decide(handler, FreshDevice("cam-404", "", "nowhere"), request)
    assert [answer.error and answer.error.code for answer in (closed, unknown)] == [
        "enrollment-closed", "device-unknown"
    ]  # fmt: skip
    await registry.sites.set_policy(fresh_device.site, "visitors", by="tester", at=now())
    assert (await decide(handler, fresh_device, request)).result == "created"


async def test_a_device_with_another_model_registers_no_visitor(
    open_site: FreshDevice, registry: Registry
) -> None:
    """Vectors of another model do not compare with those of the recorded model."""
    await registry.spaces.ensure(EmbeddingSpace(SPACE, 8, "a" * 64))
    for sha256, expected in (("b" * 64, "rejected"), ("a" * 64, "created")):
        info = {"spaces": {SPACE: {"dimension": 8, "model_sha256": sha256}}}
        await registry.devices.record_reports([DeviceReport.latest(open_site.id, "info", info, now())])
        answer = await decide(
            new_handler(registry), open_site, registration_request(f"r-{expected}", face(1).vector)
        )
        assert answer.result == expected
        assert answer.error is None or answer.error.code == "model-differs"


async def test_a_vector_is_normalised_to_unit_length(open_site: FreshDevice, registry: Registry) -> None:
    """A vector of length 7 is stored with length 1."""
    longer = (np.frombuffer(face(1).vector, np.float32) * 7).tobytes()
    answer = await decide(new_handler(registry), open_site, registration_request("r-1", longer))
    assert answer.user_id is not None
    (template,) = (await registry.identities.templates_of([answer.user_id]))[answer.user_id]
    assert np.linalg.norm(np.frombuffer(template.vector, np.float32)) == pytest.approx(1, abs=1e-5)


async def test_requests_past_the_bound_are_dropped_and_counted(registry: Registry) -> None:
    """One device cannot fill the queue for all; a repeated request is queued once."""
    handler = new_handler(registry)
    for n in range(53):
        handler.accept_request(_decoded("cam-001", registration_request(f"r-{n}", face(1).vector)), b"")
    handler.accept_request(_decoded("cam-001", registration_request("r-0", face(1).vector)), b"")
    handler.accept_request(_decoded("cam-002", registration_request("r-0", face(1).vector)), b"")
    assert handler.counters["dropped_queue_full"] == 3
    task = asyncio.create_task(handler.answer_requests())

    async def all_decided() -> bool:
        return handler.counters["rejected"] == 51

    await until(all_decided)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _decoded(device_id: str, request: RegisterIdentity) -> Any:
    return Decoded(REGISTER, {"device_id": device_id}, request)


@pytest.fixture
async def index(registry: Registry) -> IdentityIndex:
    return IdentityIndex(registry.deltas, await registry.spaces.get(SPACE))


async def find_key(index: IdentityIndex, vector: bytes) -> str | None:
    _, nearest = await index.find_nearest(vector, 0.9)
    return nearest and nearest.key


async def test_the_index_follows_the_registry(index: IdentityIndex, registry: Registry) -> None:
    """Enrolled identities are found by their best template, deleted ones are not."""
    assert await find_key(index, face(1).vector) is None
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1), face(2))))
    await registry.identities.enroll(EnrollIdentity("EMP-2", (face(3),)))
    assert [await find_key(index, face(n).vector) for n in (1, 2, 3)] == ["EMP-1", "EMP-1", "EMP-2"]
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(4),), replace_modality="face"))
    await registry.identities.delete("EMP-2")
    assert [await find_key(index, face(n).vector) for n in (1, 3, 4)] == [None, None, "EMP-1"]
    history, _ = await index.find_nearest(face(1).vector, 0.9)
    assert history == await registry.versions.read()


async def test_the_index_is_rebuilt_for_another_history(index: IdentityIndex, registry: Registry) -> None:
    """After a restored backup only identities of the new history are found."""
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),)))
    assert await find_key(index, face(1).vector) == "EMP-1"
    for collection in ("identities", "templates"):
        await registry.mongo.db[collection].delete_many({})
    await registry.mongo.db.meta.update_one({"_id": "versions"}, {"$set": {"version": 0}})
    await registry.versions.begin_epoch()
    await registry.identities.enroll(EnrollIdentity("EMP-2", (face(2),)))
    assert [await find_key(index, face(n).vector) for n in (1, 2)] == [None, "EMP-2"]


async def test_the_index_drops_an_identity_with_a_purged_tombstone(
    index: IdentityIndex, registry: Registry
) -> None:
    """A worker without searches for the retention time finds no deleted identity."""
    await registry.identities.enroll_many([EnrollIdentity(f"EMP-{n}", (face(n),)) for n in range(450)])
    assert await find_key(index, face(1).vector) == "EMP-1"
    await registry.identities.delete("EMP-1")
    await registry.identities.enroll(EnrollIdentity("EMP-2", flag="red"))
    await registry.mongo.db.identities.delete_one({"_id": "EMP-1"})
    await registry.mongo.db.meta.update_one({"_id": "versions"}, {"$set": {"horizon": 451}})
    assert [await find_key(index, face(n).vector) for n in (1, 2, 449)] == [None, "EMP-2", "EMP-449"]


async def test_a_large_registry_is_loaded_page_by_page(index: IdentityIndex, registry: Registry) -> None:
    """The registry has more identities than a page."""
    await registry.identities.enroll_many([EnrollIdentity(f"EMP-{n}", (face(n),)) for n in range(450)])
    assert [await find_key(index, face(n).vector) for n in (0, 199, 200, 449)] == [
        "EMP-0", "EMP-199", "EMP-200", "EMP-449"
    ]  # fmt: skip

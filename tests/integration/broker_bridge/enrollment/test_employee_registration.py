"""Devices enroll employees where the site allows it; other devices receive them."""

import asyncio
import time
from datetime import datetime, timezone
from typing import Any

import httpx
import numpy as np
import pytest

from broker_bridge.bootstrap import Bridge, open_registry
from broker_bridge.contract.embeddings import EmbeddingSpace, normalise
from broker_bridge.contract.messages import Registered, RegisterIdentity
from broker_bridge.enrollment.registration import RegistrationHandler
from broker_bridge.registry import Registry
from broker_bridge.registry.identities.model import EnrollIdentity
from broker_bridge.settings import BridgeProgram
from dashboard_api.app import create_app
from dashboard_api.settings import ApiSettings
from deploy.local.stack import Mosquitto
from tests.conftest import FreshDevice
from tests.integration.broker_bridge.enrollment.test_registration import (
    decide,
    near,
    new_handler,
    registration_request,
    visits,
)
from tests.integration.broker_bridge.support import SPACE, Peer, connected, face
from tests.space_limits import ensure_with_limits

GAIT = "gait:test-8"


@pytest.fixture
async def open_site(registry: Registry, fresh_device: FreshDevice) -> FreshDevice:
    """Return the device, at a site that lets its devices enroll employees."""
    await registry.sites.change(
        fresh_device.site, {"registers_employees": True}, by="tester", at=datetime.now(timezone.utc)
    )
    return fresh_device


def employee_request(request_id: str, user_id: str, vector: bytes, /, **changed: Any) -> RegisterIdentity:
    return registration_request(request_id, vector, kind="employee", user_id=user_id, **changed)


def axis(n: int, sign: float = 1.0) -> bytes:
    """Return unit vector `n` of the standard basis, float32[8]; `sign` -1 negates it."""
    return normalise(sign * np.eye(8)[n], 8)


async def stored_vectors(registry: Registry, user_id: str) -> list[bytes]:
    found = await registry.identities.templates_of([user_id])
    return [template.vector for template in found.get(user_id, [])]


async def test_an_employee_of_one_device_reaches_the_others_within_a_second(
    open_site: FreshDevice, bridge: Bridge, peer: Peer, mosquitto: Mosquitto, registry: Registry
) -> None:
    """Twenty registrations cross broker, bridge and registry, each in its own space."""
    other_device = FreshDevice(f"{open_site.id}-2", "a-password", open_site.site)
    mosquitto.add_device(other_device.id, other_device.password, other_device.site)
    await registry.devices.register(other_device.id, other_device.site)
    waited = []
    async with connected(mosquitto, other_device) as second:
        for n in range(20):
            vector = axis(n % 8)
            await ensure_with_limits(registry, EmbeddingSpace(f"speaker:test-{n}", 8))
            started = time.monotonic()
            await peer.send(
                "enrollment/register",
                employee_request(f"r-{n}", f"EMP-{n}", vector, space=f"speaker:test-{n}"),
            )
            answer = await peer.receive("registered")
            delta = await second.receive("sync_delta")
            waited.append(time.monotonic() - started)
            assert (answer.result, answer.user_id) == ("created", f"EMP-{n}")
            (upsert,) = delta.upserts
            assert (upsert.user_id, upsert.templates[0].vector) == (f"EMP-{n}", vector)
    assert max(waited) < 1, waited
    assert bridge.registrations.counters["created"] == 20


async def test_further_vectors_of_the_same_face_are_added_to_an_employee(
    open_site: FreshDevice, registry: Registry
) -> None:
    """The result is `created` once, then `exists`; another modality is added.

    A repeated vector changes nothing.
    """
    await ensure_with_limits(registry, EmbeddingSpace(GAIT, 8))
    handler = new_handler(registry)
    steps = [
        (employee_request("r-1", "EMP-1", face(1).vector, display_name="Ana"), "created", 1),
        (employee_request("r-2", "EMP-1", near(1, 0.8), display_name="Eve"), "exists", 2),
        (employee_request("r-3", "EMP-1", axis(0), space=GAIT), "exists", 3),
        (employee_request("r-4", "EMP-1", face(1).vector), "exists", 3),
    ]
    for request, result, version in steps:
        answer = await decide(handler, open_site, request)
        assert (answer.result, answer.user_id, answer.error) == (result, "EMP-1", None)
        assert (await registry.versions.read()).version == version
    identity = await registry.identities.get("EMP-1")
    assert (identity.kind, identity.sites, identity.display_name) == ("employee", (open_site.site,), "Ana")
    assert len(await stored_vectors(registry, "EMP-1")) == 3
    assert await visits(registry) == []
    enrolled = [entry for entry in await registry.audit.page() if entry.subject == "EMP-1"]
    assert {entry.who for entry in enrolled} == {f"device:{open_site.id}"}


async def test_the_number_of_templates_of_an_employee_is_limited(
    open_site: FreshDevice, registry: Registry
) -> None:
    """Nine vectors of one face leave the five most different templates."""
    handler = new_handler(registry)
    for n in range(9):
        answer = await decide(handler, open_site, employee_request(f"r-{n}", "EMP-1", near(1, 0.7 + n / 40)))
        assert answer.user_id == "EMP-1"
    assert len(await stored_vectors(registry, "EMP-1")) == 5


@pytest.mark.parametrize(
    ("user_id", "vector", "result", "answered_id", "code"),
    [
        ("EMP-9", near(1, 0.9), "exists", "EMP-1", None),
        ("EMP-1", near(1, 0.1), "rejected", None, "face-differs"),
        ("EMP-9", near(1, 0.6), "rejected", None, "face-ambiguous"),
        ("EMP-GONE", face(3).vector, "rejected", None, "person-unknown"),
        ("EMP-WENT", face(3).vector, "rejected", None, "person-merged"),
        ("EMP-FAR", face(3).vector, "rejected", None, "site-mismatch"),
        (None, face(3).vector, "rejected", None, "payload-invalid"),
    ],
)
async def test_a_device_replaces_restores_and_moves_no_identity(
    open_site: FreshDevice, registry: Registry, user_id: str | None, vector: bytes, result: str,
    answered_id: str | None, code: str | None,
) -> None:  # fmt: skip
    """The face of another identity keeps its id; the registry is unchanged."""
    identities = registry.identities
    await identities.enroll(EnrollIdentity("EMP-1", (face(1),)))
    await identities.enroll_many(
        [EnrollIdentity(user, sites=(open_site.site,)) for user in ("EMP-GONE", "EMP-WENT")]
    )
    await identities.enroll(EnrollIdentity("EMP-FAR", sites=("elsewhere",)))
    await identities.delete("EMP-GONE")
    await registry.identity_merges.merge("EMP-WENT", "EMP-1", by="tester")
    before = await registry.versions.read()
    request = RegisterIdentity(request_id="r-1", space=SPACE, vector=vector, kind="employee", user_id=user_id)
    answer = await decide(new_handler(registry), open_site, request)
    assert (answer.result, answer.user_id, answer.error and answer.error.code) == (result, answered_id, code)
    assert await registry.versions.read() == before
    assert await visits(registry) == []


async def test_a_rejected_request_is_decided_again_after_a_restore(
    open_site: FreshDevice, registry: Registry
) -> None:
    """A repeated request succeeds once the identity is restored.

    A decision about a face is final, as it is for visitors.
    """
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),), sites=(open_site.site,)))
    await registry.identities.delete("EMP-1")
    handler, request = new_handler(registry), employee_request("r-1", "EMP-1", near(1, 0.9))
    assert (await decide(handler, open_site, request)).result == "rejected"
    await registry.identities.restore("EMP-1")
    assert (await decide(handler, open_site, request)).result == "exists"
    assert (await decide(handler, open_site, request)).result == "exists"
    assert len(await stored_vectors(registry, "EMP-1")) == 2


async def test_concurrent_requests_at_two_workers_have_one_winner(
    open_site: FreshDevice, registry: Registry, program: BridgeProgram
) -> None:
    """Of two faces for a user id one is stored; of two ids for a face one is created."""
    await ensure_with_limits(registry, EmbeddingSpace(GAIT, 8))
    second_registry = await open_registry(program)
    workers = new_handler(registry), new_handler(second_registry)

    async def decide_both(*requests: RegisterIdentity) -> list[Registered]:
        pairs = zip(workers, requests, strict=True)
        return list(await asyncio.gather(*(decide(worker, open_site, request) for worker, request in pairs)))

    for n in range(4):
        faces = await decide_both(
            *(employee_request(f"f{side}-{n}", f"EMP-{n}", axis(n, side)) for side in (1, -1))
        )
        assert sorted(answer.result for answer in faces) == ["created", "rejected"]
        assert {"face-differs"} == {answer.error.code for answer in faces if answer.error}
        assert len(await stored_vectors(registry, f"EMP-{n}")) == 1
        ids = await decide_both(
            *(employee_request(f"i{side}-{n}", f"EMP-{n}{side}", axis(n), space=GAIT) for side in "ab")
        )
        assert sorted(answer.result for answer in ids) == ["created", "exists"]
        assert len({answer.user_id for answer in ids}) == 1
    await second_registry.close()
    assert len(await registry.identities.page()) == 8


async def test_concurrent_requests_over_mqtt_and_http_make_one_visitor(
    open_site: FreshDevice, registry: Registry, program: BridgeProgram
) -> None:
    """A bridge worker and the API, with separate registries, make one visit as well."""
    await registry.sites.set_policy(open_site.site, "visitors", by="tester", at=datetime.now(timezone.utc))
    await registry.devices.register("cam-http", open_site.site)
    await registry.api_keys.create("door", "edge", "key-of-cam-http", "cam-http")
    second_registry = await open_registry(program)
    app = create_app(second_registry, ApiSettings(default_spaces={"face": SPACE}))
    worker: RegistrationHandler = new_handler(registry)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://api",
        headers={"Authorization": "Bearer key-of-cam-http"},
    ) as client:  # fmt: skip
        for n in range(6):
            vector = axis(n)
            by_mqtt, by_http = await asyncio.gather(
                decide(worker, open_site, registration_request(f"r-{n}", vector)),
                client.post(
                    "/api/edge/visitors",
                    json={"request_id": f"r-{n}", "embedding": np.frombuffer(vector, "<f4").tolist()},
                ),
            )
            assert sorted([by_mqtt.result, by_http.json()["result"]]) == ["created", "exists"]
            assert by_mqtt.user_id == by_http.json()["user_id"]
    await second_registry.close()
    assert (await registry.versions.read()).version == 6
    assert sorted({visit.event_type for visit in await visits(registry)}) == ["visit"]
    assert len(await visits(registry)) == 6


async def test_a_site_that_closes_during_the_search_enrolls_no_employee(
    open_site: FreshDevice, registry: Registry
) -> None:
    """A site that is closed during the search stays closed."""
    handler = new_handler(registry)
    await decide(handler, open_site, employee_request("r-0", "EMP-0", face(9).vector))
    index = registry.identity_indexes._indexes[SPACE]
    find = index.find_nearest

    async def find_and_close(vector: bytes, floor: float) -> Any:
        found = await find(vector, floor)
        await registry.sites.change(
            open_site.site, {"registers_employees": False}, by="tester", at=datetime.now(timezone.utc)
        )
        return found

    index.find_nearest = find_and_close  # type: ignore[method-assign]
    answer: Registered = await decide(handler, open_site, employee_request("r-1", "EMP-1", face(1).vector))
    assert answer.error is not None
    assert answer.error.code == "enrollment-closed"
    assert len(await registry.identities.page()) == 1

"""The records of spaces: what makes them, and what they outlast."""

import asyncio
from typing import Any

import pytest

from broker_bridge.contract.default_space import DEFAULT_FACE_SPACE
from broker_bridge.contract.embeddings import EmbeddingSpace, normalise
from broker_bridge.contract.errors import ContractError
from broker_bridge.contract.spaces import LimitsSource, SpaceRecord
from broker_bridge.registry import MongoSettings, Registry
from broker_bridge.registry.identities.model import EnrollIdentity, Template
from broker_bridge.registry.settings import ConfiguredLimits, RegistrySettings
from tests.space_limits import LIMITS

OWN = "face:own-4"
SHA, OTHER_SHA = "a" * 64, "b" * 64
SHIPPED = SpaceRecord(
    space=OWN,
    dimension=4,
    model_sha256=SHA,
    detector="scrfd",
    alignment="landmarks",
    limits=LIMITS,
    source=LimitsSource(kind="shipped"),
)


def changed(record: SpaceRecord, **fields: Any) -> SpaceRecord:
    return record.model_copy(update=fields)


async def test_a_device_settles_nothing_but_the_dimension(registry: Registry) -> None:
    """The model of an administrator is on record, whichever device came first."""
    declared = await registry.spaces.declare(EmbeddingSpace(OWN, 4, OTHER_SHA))
    assert declared == SpaceRecord(space=OWN, dimension=4)
    with pytest.raises(ContractError, match="space-mismatch"):
        await registry.spaces.declare(EmbeddingSpace(OWN, 8))
    recorded, is_new = await registry.spaces.put(SHIPPED, by="admin")
    assert (recorded, is_new) == (SHIPPED, False)
    assert await registry.spaces.declare(EmbeddingSpace(OWN, 4, OTHER_SHA)) == SHIPPED


async def test_the_record_beside_a_model_fills_in_what_is_missing(registry: Registry) -> None:
    """Newer shipped limits replace shipped ones, and no others."""
    assert await registry.spaces.ensure_record(SHIPPED) == SHIPPED
    newer = changed(SHIPPED, limits=LIMITS.model_copy(update={"distance": 0.5}))
    assert await registry.spaces.ensure_record(newer) == newer
    other = changed(SHIPPED, model_sha256=OTHER_SHA)
    assert await registry.spaces.ensure_record(other) == newer
    calibrated = changed(newer, source=LimitsSource(kind="calibrated", pairs=9))
    await registry.spaces.put(calibrated, by="admin")
    assert await registry.spaces.ensure_record(SHIPPED) == calibrated


async def test_two_programs_may_start_at_once(registry: Registry, mongo_settings: MongoSettings) -> None:
    """Both record the built-in space, once and whole."""
    second = await Registry.open(mongo_settings)
    records = await asyncio.gather(
        *(one.spaces.ensure_record(DEFAULT_FACE_SPACE) for one in (registry, second) for _ in range(4))
    )
    assert set(map(str, records)) == {str(DEFAULT_FACE_SPACE)}
    await second.close()


async def test_a_space_of_an_earlier_release_keeps_its_model(registry: Registry) -> None:
    """It has a dimension and a hash, no limits, and may be calibrated."""
    old = {"_id": OWN, "dimension": 4, "model_sha256": SHA}
    await registry.mongo.db.spaces.insert_one(old)
    assert await registry.spaces.record(OWN) == SpaceRecord(space=OWN, dimension=4, model_sha256=SHA)
    assert (await registry.spaces.put(SHIPPED, by="admin"))[0] == SHIPPED


async def test_configured_limits_precede_recorded_ones(
    registry: Registry, mongo_settings: MongoSettings
) -> None:
    """They are told with their source; what is stored stays."""
    await registry.spaces.put(SHIPPED, by="admin")
    settings = RegistrySettings(
        limits={OWN: ConfiguredLimits(distance=0.9), "face:test-8": ConfiguredLimits(margin=0.2)}
    )
    configured = await Registry.open(mongo_settings, settings=settings)
    record = await configured.spaces.record(OWN)
    assert record.limits == LIMITS.model_copy(update={"distance": 0.9})
    assert record.source is not None
    assert record.source.kind == "configured"
    # A part alone is none.
    await configured.spaces.put(changed(SHIPPED, limits=None, source=None), by="admin")
    assert (await configured.spaces.record(OWN)).limits is None
    await configured.close()


async def test_an_enrollment_at_the_moment_of_a_change_fits_the_record(registry: Registry) -> None:
    """Either the change is refused, or the template."""
    for n in range(6):
        space = f"face:race-{n}"
        await registry.spaces.ensure(EmbeddingSpace(space, 4))
        template = Template(space, normalise([1.0, 2.0, 3.0, 4.0], 4))
        await asyncio.gather(
            registry.identities.enroll(EnrollIdentity(f"EMP-{n}", templates=(template,))),
            registry.spaces.put(SpaceRecord(space=space, dimension=8), by="admin"),
            return_exceptions=True,
        )
        stored = await registry.mongo.db.templates.count_documents({"space": space})
        dimension = (await registry.spaces.record(space)).dimension
        assert (stored, dimension) in {(1, 4), (0, 8)}


async def test_an_enrollment_during_a_removal_leaves_no_template(registry: Registry) -> None:
    """A template that comes in meanwhile is removed too, or refused."""
    for n in range(4):
        space = f"face:gone-{n}"
        await registry.spaces.ensure(EmbeddingSpace(space, 4))
        template = Template(space, normalise([1.0, 2.0, 3.0, 4.0], 4))
        await asyncio.gather(
            registry.space_removal.remove(space, by="admin"),
            registry.identities.enroll(EnrollIdentity(f"EMP-{n}", templates=(template,))),
            registry.space_removal.remove(space, by="admin"),
            return_exceptions=True,
        )
        assert await registry.mongo.db.templates.find_one({"space": space}) is None
        assert space not in await registry.spaces.records()


async def test_faces_that_a_tracker_writes_late_are_removed(registry: Registry) -> None:
    """Those whose space is gone; others stay."""
    faces = registry.mongo.db.person_faces
    await faces.insert_many(
        [{"_id": f"1 {space}", "person": 1, "space": space} for space in (OWN, "face:test-8")]
    )
    assert await registry.space_removal.remove_orphans() == 1
    assert [found["space"] async for found in faces.find({})] == ["face:test-8"]

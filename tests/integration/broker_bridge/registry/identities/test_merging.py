"""Two identities of one person are merged, and the merge is undone."""

import numpy as np
import pytest

from broker_bridge.contract.embeddings import normalise
from broker_bridge.contract.errors import ContractError
from broker_bridge.registry import MongoSettings, Registry
from broker_bridge.registry.identities.model import (
    DeleteIdentity,
    EnrollIdentity,
    ExternalKey,
    Identity,
    Template,
)
from broker_bridge.registry.settings import RegistrySettings

SPACES = ["face:test-8", "gait:test-4"]
KEY = ExternalKey("catalog", "42")


def face(seed: int) -> Template:
    return Template("face:test-8", normalise(np.random.default_rng(seed).standard_normal(8), 8), 0.8)


def gait(seed: int) -> Template:
    return Template("gait:test-4", normalise(np.random.default_rng(seed).standard_normal(4), 4))


def without_versions(identity: Identity) -> tuple[object, ...]:
    """Return what an undo gives back: all but version and times."""
    return (
        identity.sites,
        identity.holdings,
        identity.external,
        identity.consent,
        identity.flag,
        identity.deleted,
    )


async def vectors(registry: Registry, user_id: str) -> set[bytes]:
    return {
        template.vector for template in (await registry.identities.templates_of([user_id])).get(user_id, [])
    }


async def test_a_merged_identity_has_both_faces_and_both_keys(registry: Registry) -> None:
    """The source is a tombstone; the target has its faces, sites and keys."""
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),), sites=("north",), flag="vip"))
    await registry.identities.enroll(
        EnrollIdentity("EXT-1", (face(2), gait(2)), sites=("south",), external=KEY, display_name="One")
    )
    target = await registry.identity_merges.merge("EXT-1", "EMP-1", by="tester")
    assert (target.sites, target.external, target.flag) == (("north", "south"), (KEY,), "vip")
    assert await vectors(registry, "EMP-1") == {face(1).vector, face(2).vector, gait(2).vector}
    source = await registry.identities.get("EXT-1")
    assert source.deleted
    assert source.merge is not None
    assert source.merge.into == "EMP-1"
    south_deltas = await registry.deltas.site_deltas("south", 0, SPACES, 10, 10**6, snapshot=False)
    assert {delta.identity.user_id: delta.identity.belongs_to("south") for delta in south_deltas.deltas} == {
        "EXT-1": False, "EMP-1": True
    }  # fmt: skip
    renamed = await registry.identities.enroll(EnrollIdentity("EXT-9", external=KEY, display_name="Uno"))
    assert (renamed.user_id, renamed.display_name) == ("EMP-1", "Uno")
    (newest, *_), merged_ids = (
        await registry.audit.page(),
        await registry.identity_merges.merged_user_ids("EMP-1"),
    )
    assert merged_ids == ["EXT-1"]
    assert newest.what == "person.changed"


async def test_an_undo_restores_both_identities(registry: Registry) -> None:
    """Templates, sites, keys and consent return, also superseded templates."""
    own = tuple(face(n) for n in range(5))
    first = await registry.identities.enroll(EnrollIdentity("EMP-1", own, sites=("north",)))
    second = await registry.identities.enroll(
        EnrollIdentity("EMP-2", tuple(face(n) for n in range(10, 15)), external=KEY, consent={"gait": False})
    )
    merged = await registry.identity_merges.merge("EMP-2", "EMP-1")
    assert sum(holding.digest.count for holding in merged.holdings) == 5
    assert merged.consent == {"face": True, "gait": False}
    assert merged.sites == ("*",)
    revived = await registry.identity_merges.undo("EMP-2")
    assert without_versions(revived) == without_versions(second)
    assert without_versions(await registry.identities.get("EMP-1")) == without_versions(first)
    assert await vectors(registry, "EMP-1") == {template.vector for template in own}
    assert await vectors(registry, "EMP-2") == {face(n).vector for n in range(10, 15)}


async def test_an_undo_keeps_later_changes_of_the_target(registry: Registry) -> None:
    """A face and sites that were added after the merge stay."""
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),), sites=("north",)))
    await registry.identities.enroll(EnrollIdentity("EMP-2", (face(2),), sites=("south",)))
    await registry.identity_merges.merge("EMP-2", "EMP-1")
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(3),), sites=("west",)))
    await registry.identity_merges.undo("EMP-2")
    target = await registry.identities.get("EMP-1")
    assert target.sites == ("west",)
    assert await vectors(registry, "EMP-1") == {face(1).vector, face(3).vector}


async def test_a_merged_identity_is_neither_enrolled_nor_restored(registry: Registry) -> None:
    """Each refusal names the target; a second merge or undo is refused."""
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),)))
    await registry.identities.enroll(EnrollIdentity("EMP-2", (face(2),)))
    await registry.identity_merges.merge("EMP-2", "EMP-1")
    version = (await registry.versions.read()).version
    for refused, code in (
        (registry.identities.enroll(EnrollIdentity("EMP-2", (face(3),))), "person-merged"),
        (registry.identities.restore("EMP-2"), "person-merged"),
        (registry.identity_merges.merge("EMP-2", "EMP-1"), "person-unknown"),
        (registry.identity_merges.merge("EMP-1", "EMP-1"), "merge-impossible"),
        (registry.identity_merges.merge("EMP-1", "UNKNOWN"), "person-unknown"),
        (registry.identity_merges.undo("EMP-1"), "merge-impossible"),
        (registry.identity_merges.undo("UNKNOWN"), "merge-impossible"),
    ):
        with pytest.raises(ContractError, match=code):
            await refused
    assert (await registry.versions.read()).version == version


async def test_a_chain_of_merges_is_undone_link_by_link(registry: Registry) -> None:
    """The last target of the chain lists all sources."""
    for n in range(3):
        await registry.identities.enroll(EnrollIdentity(f"EMP-{n}", (face(n),)))
    await registry.identity_merges.merge("EMP-2", "EMP-1")
    await registry.identity_merges.merge("EMP-1", "EMP-0")
    assert await registry.identity_merges.merged_user_ids("EMP-0") == ["EMP-1", "EMP-2"]
    assert await vectors(registry, "EMP-0") == {face(n).vector for n in range(3)}
    await registry.identity_merges.undo("EMP-1")
    assert await vectors(registry, "EMP-0") == {face(0).vector}
    assert await vectors(registry, "EMP-1") == {face(1).vector, face(2).vector}
    await registry.identity_merges.undo("EMP-2")
    assert await vectors(registry, "EMP-1") == {face(1).vector}


async def test_an_inner_merge_is_not_undone_before_the_outer_one(registry: Registry) -> None:
    """Otherwise the last target would keep copies of a separated face."""
    for n in range(3):
        await registry.identities.enroll(EnrollIdentity(f"EMP-{n}", (face(n),)))
    await registry.identity_merges.merge("EMP-2", "EMP-1")
    await registry.identity_merges.merge("EMP-1", "EMP-0")
    with pytest.raises(ContractError, match="EMP-1 was merged into EMP-0"):
        await registry.identity_merges.undo("EMP-2")
    assert await registry.identity_merges.merged_user_ids("EMP-0") == ["EMP-1", "EMP-2"]


async def test_a_merge_into_a_deleted_target_can_be_undone(registry: Registry) -> None:
    """The undo revives the source and leaves the target deleted."""
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),)))
    await registry.identities.enroll(EnrollIdentity("EMP-2", (face(2),), external=KEY))
    await registry.identity_merges.merge("EMP-2", "EMP-1")
    await registry.identities.apply([DeleteIdentity(external=KEY)])
    revived = await registry.identity_merges.undo("EMP-2")
    assert (revived.deleted, revived.external) == (False, (KEY,))
    assert (await registry.identities.get("EMP-1")).deleted


async def test_a_modality_without_consent_is_not_sent(registry: Registry) -> None:
    """Withdrawn consent removes templates from cameras and search.

    Given again they return.
    """
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1), gait(1))))
    withdrawn = await registry.identities.enroll(EnrollIdentity("EMP-1", consent={"face": False}))
    assert [holding.space for holding in withdrawn.sent_holdings] == ["gait:test-4"]
    north_deltas = await registry.deltas.site_deltas("north", 0, SPACES, 10, 10**6, snapshot=True)
    assert [template.space for template in north_deltas.deltas[0].templates] == ["gait:test-4"]
    index = registry.identity_indexes.for_space(await registry.spaces.get("face:test-8"))
    assert (await index.find_nearest(face(1).vector, 0.5))[1] is None
    await registry.identities.enroll(EnrollIdentity("EMP-1", consent={"face": True}))
    found = (await index.find_nearest(face(1).vector, 0.5))[1]
    assert found is not None
    assert found.key == "EMP-1"


async def test_withdrawn_consent_outlives_a_deletion(registry: Registry) -> None:
    """A new enrollment by key keeps it; only explicit consent ends it."""
    await registry.identities.enroll(
        EnrollIdentity("EMP-1", (face(1),), external=KEY, consent={"face": False})
    )
    await registry.identities.apply([DeleteIdentity(external=KEY)])
    enrolled_again = await registry.identities.enroll(EnrollIdentity("EXT-1", (face(1),), external=KEY))
    assert (enrolled_again.user_id, enrolled_again.deleted, enrolled_again.sent_holdings) == (
        "EMP-1",
        False,
        (),
    )
    consented = await registry.identities.enroll(EnrollIdentity("EMP-1", consent={"face": True}))
    assert [holding.space for holding in consented.sent_holdings] == ["face:test-8"]


async def test_documents_from_before_consent_count_as_consent(
    registry: Registry, mongo_settings: MongoSettings
) -> None:
    """A repeated enrollment changes nothing, with either setting."""
    enrolled = await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),), display_name="One"))
    later = {"born": 1, "consent": 1}
    await registry.mongo.db.identities.update_one({"_id": "EMP-1"}, {"$unset": later})
    strict = await Registry.open(mongo_settings, settings=RegistrySettings(consent="required"))
    repeated = await strict.identities.enroll(EnrollIdentity("EMP-1", (face(1),), display_name="One"))
    assert (repeated.version, repeated.sent_holdings) == (enrolled.version, enrolled.holdings)
    newer = await strict.identities.enroll(EnrollIdentity("EMP-2", (face(2),)))
    await strict.close()
    assert newer.sent_holdings == ()


async def test_a_restored_identity_has_its_former_face(registry: Registry) -> None:
    """It takes the next version; only a tombstone can be restored."""
    before = await registry.identities.enroll(
        EnrollIdentity("EMP-1", (face(1),), flag="red", sites=("north",))
    )
    await registry.identities.delete("EMP-1")
    restored = await registry.identities.restore("EMP-1", by="tester")
    assert without_versions(restored) == without_versions(before)
    assert (restored.version, restored.created_version) == (3, 3)
    assert await vectors(registry, "EMP-1") == {face(1).vector}
    assert [entry.what for entry in await registry.audit.page(subject="EMP-1")] == [
        "person.restored", "person.deleted", "person.enrolled"
    ]  # fmt: skip
    for user_id in ("EMP-1", "EMP-2"):
        with pytest.raises(ContractError, match="person-unknown"):
            await registry.identities.restore(user_id)


async def test_a_change_without_effect_takes_no_version(registry: Registry) -> None:
    """A repeated name, face, key and flag writes no audit entry either."""
    enrollment = EnrollIdentity("EMP-1", (face(1),), display_name="One", flag="red", external=KEY)
    first = await registry.identities.enroll(enrollment)
    assert await registry.identities.enroll(enrollment) == first
    assert (
        await registry.identities.enroll(
            EnrollIdentity("EMP-1", replace_modality="face", templates=(face(1),))
        )
        == first
    )
    assert (await registry.versions.read()).version == 1
    assert len(await registry.audit.page()) == 1


async def test_a_change_in_a_bulk_sees_the_result_of_earlier_ones(registry: Registry) -> None:
    """Enroll, delete and enroll in one transaction: the first face is gone."""
    changes = [
        EnrollIdentity("EMP-1", (face(1),)),
        DeleteIdentity("EMP-1"),
        EnrollIdentity("EMP-1", (face(2),), external=KEY),
        EnrollIdentity("EMP-2", (face(3),), external=KEY),
    ]
    outcomes = await registry.identities.apply(changes)
    assert [outcome.result().user_id for outcome in outcomes] == ["EMP-1"] * 4
    assert await vectors(registry, "EMP-1") == {face(2).vector, face(3).vector}
    await registry.identities.apply(changes[:3])
    assert await vectors(registry, "EMP-1") == {face(2).vector}

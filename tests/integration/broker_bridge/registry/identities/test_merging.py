"""Two people who turn out to be one, and are taken apart again."""

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


def as_it_was(person: Identity) -> tuple[object, ...]:
    """What an undo must give back: everything but version and times."""
    return person.sites, person.holdings, person.external, person.consent, person.flag, person.deleted


async def vectors(registry: Registry, user_id: str) -> set[bytes]:
    return {one.vector for one in (await registry.identities.templates_of([user_id])).get(user_id, [])}


async def test_who_is_merged_is_known_by_both_faces_and_both_keys(registry: Registry) -> None:
    """The source leaves every camera as a tombstone; the target has its faces, sites and keys."""
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
    told = await registry.deltas.site_deltas("south", 0, SPACES, 10, 10**6, snapshot=False)
    assert {one.identity.user_id: one.identity.belongs_to("south") for one in told.deltas} == {
        "EXT-1": False, "EMP-1": True
    }  # fmt: skip
    renamed = await registry.identities.enroll(EnrollIdentity("EXT-9", external=KEY, display_name="Uno"))
    assert (renamed.user_id, renamed.display_name) == ("EMP-1", "Uno")
    (newest, *_), gone = await registry.audit.page(), await registry.identity_merges.merged_user_ids("EMP-1")
    assert gone == ["EXT-1"]
    assert newest.what == "person.changed"


async def test_a_merge_is_undone_as_if_it_had_not_been(registry: Registry) -> None:
    """Both have their own templates, sites, keys and consent again; even those the cap had parked."""
    own = tuple(face(n) for n in range(5))
    first = await registry.identities.enroll(EnrollIdentity("EMP-1", own, sites=("north",)))
    second = await registry.identities.enroll(
        EnrollIdentity("EMP-2", tuple(face(n) for n in range(10, 15)), external=KEY, consent={"gait": False})
    )
    merged = await registry.identity_merges.merge("EMP-2", "EMP-1")
    assert sum(held.digest.count for held in merged.holdings) == 5
    assert merged.consent == {"face": True, "gait": False}
    assert merged.sites == ("*",)
    revived = await registry.identity_merges.undo("EMP-2")
    assert as_it_was(revived) == as_it_was(second)
    assert as_it_was(await registry.identities.get("EMP-1")) == as_it_was(first)
    assert await vectors(registry, "EMP-1") == {one.vector for one in own}
    assert await vectors(registry, "EMP-2") == {face(n).vector for n in range(10, 15)}


async def test_what_changed_since_the_merge_stays_changed(registry: Registry) -> None:
    """A face and sites that were given after the merge are the target's own."""
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),), sites=("north",)))
    await registry.identities.enroll(EnrollIdentity("EMP-2", (face(2),), sites=("south",)))
    await registry.identity_merges.merge("EMP-2", "EMP-1")
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(3),), sites=("west",)))
    await registry.identity_merges.undo("EMP-2")
    target = await registry.identities.get("EMP-1")
    assert target.sites == ("west",)
    assert await vectors(registry, "EMP-1") == {face(1).vector, face(3).vector}


async def test_a_merged_person_is_neither_enrolled_nor_restored(registry: Registry) -> None:
    """Each refusal names whom to go to; a second merge or undo finds nobody."""
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),)))
    await registry.identities.enroll(EnrollIdentity("EMP-2", (face(2),)))
    await registry.identity_merges.merge("EMP-2", "EMP-1")
    version = (await registry.versions.read()).version
    for refused, code in (
        (registry.identities.enroll(EnrollIdentity("EMP-2", (face(3),))), "person-merged"),
        (registry.identities.restore("EMP-2"), "person-merged"),
        (registry.identity_merges.merge("EMP-2", "EMP-1"), "person-unknown"),
        (registry.identity_merges.merge("EMP-1", "EMP-1"), "merge-impossible"),
        (registry.identity_merges.merge("EMP-1", "NOBODY"), "person-unknown"),
        (registry.identity_merges.undo("EMP-1"), "merge-impossible"),
        (registry.identity_merges.undo("NOBODY"), "merge-impossible"),
    ):
        with pytest.raises(ContractError, match=code):
            await refused
    assert (await registry.versions.read()).version == version


async def test_a_chain_of_merges_is_known_and_undone_link_by_link(registry: Registry) -> None:
    """Whoever went into somebody who went into a third belongs to the third."""
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


async def test_a_link_within_a_chain_is_not_undone_before_the_last_one(registry: Registry) -> None:
    """Else the last of the chain would keep copies of a face that is somebody else's again."""
    for n in range(3):
        await registry.identities.enroll(EnrollIdentity(f"EMP-{n}", (face(n),)))
    await registry.identity_merges.merge("EMP-2", "EMP-1")
    await registry.identity_merges.merge("EMP-1", "EMP-0")
    with pytest.raises(ContractError, match="EMP-1 was merged into EMP-0"):
        await registry.identity_merges.undo("EMP-2")
    assert await registry.identity_merges.merged_user_ids("EMP-0") == ["EMP-1", "EMP-2"]


async def test_a_target_that_was_deleted_gives_back_whom_it_took(registry: Registry) -> None:
    """The undo revives the source and leaves the target deleted."""
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),)))
    await registry.identities.enroll(EnrollIdentity("EMP-2", (face(2),), external=KEY))
    await registry.identity_merges.merge("EMP-2", "EMP-1")
    await registry.identities.apply([DeleteIdentity(external=KEY)])
    revived = await registry.identity_merges.undo("EMP-2")
    assert (revived.deleted, revived.external) == (False, (KEY,))
    assert (await registry.identities.get("EMP-1")).deleted


async def test_a_modality_without_consent_is_never_told(registry: Registry) -> None:
    """Withdrawn consent takes the templates off every camera and out of every search; given again, back."""
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1), gait(1))))
    withdrawn = await registry.identities.enroll(EnrollIdentity("EMP-1", consent={"face": False}))
    assert [held.space for held in withdrawn.sent_holdings] == ["gait:test-4"]
    told = await registry.deltas.site_deltas("north", 0, SPACES, 10, 10**6, snapshot=True)
    assert [one.space for one in told.deltas[0].templates] == ["gait:test-4"]
    index = registry.identity_indexes.for_space(await registry.spaces.get("face:test-8"))
    assert (await index.find(face(1).vector, 0.5))[1] is None
    await registry.identities.enroll(EnrollIdentity("EMP-1", consent={"face": True}))
    found = (await index.find(face(1).vector, 0.5))[1]
    assert found is not None
    assert found.key == "EMP-1"


async def test_a_source_does_not_bring_back_what_somebody_refused(registry: Registry) -> None:
    """Withdrawn consent outlives a deletion and a new enrollment by key; only a word of its own ends it."""
    await registry.identities.enroll(
        EnrollIdentity("EMP-1", (face(1),), external=KEY, consent={"face": False})
    )
    await registry.identities.apply([DeleteIdentity(external=KEY)])
    again = await registry.identities.enroll(EnrollIdentity("EXT-1", (face(1),), external=KEY))
    assert (again.user_id, again.deleted, again.sent_holdings) == ("EMP-1", False, ())
    given = await registry.identities.enroll(EnrollIdentity("EMP-1", consent={"face": True}))
    assert [held.space for held in given.sent_holdings] == ["face:test-8"]


async def test_people_from_before_consent_stay_as_they_are(
    registry: Registry, mongo_settings: MongoSettings
) -> None:
    """Their faces were sent, and are: a source that repeats itself changes nobody, whatever is set now."""
    enrolled = await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),), display_name="One"))
    later = {"born": 1, "consent": 1}
    await registry.mongo.db.identities.update_one({"_id": "EMP-1"}, {"$unset": later})
    strict = await Registry.open(mongo_settings, settings=RegistrySettings(consent="required"))
    again = await strict.identities.enroll(EnrollIdentity("EMP-1", (face(1),), display_name="One"))
    assert (again.version, again.sent_holdings) == (enrolled.version, enrolled.holdings)
    newer = await strict.identities.enroll(EnrollIdentity("EMP-2", (face(2),)))
    await strict.close()
    assert newer.sent_holdings == ()


async def test_a_restored_person_has_the_face_of_before(registry: Registry) -> None:
    """Restored at the next version; nobody is restored who is there, or never was."""
    before = await registry.identities.enroll(
        EnrollIdentity("EMP-1", (face(1),), flag="red", sites=("north",))
    )
    await registry.identities.delete("EMP-1")
    restored = await registry.identities.restore("EMP-1", by="tester")
    assert as_it_was(restored) == as_it_was(before)
    assert (restored.version, restored.created_version) == (3, 3)
    assert await vectors(registry, "EMP-1") == {face(1).vector}
    assert [entry.what for entry in await registry.audit.page(subject="EMP-1")] == [
        "person.restored", "person.deleted", "person.enrolled"
    ]  # fmt: skip
    for user_id in ("EMP-1", "EMP-2"):
        with pytest.raises(ContractError, match="person-unknown"):
            await registry.identities.restore(user_id)


async def test_what_changes_nothing_takes_no_version_and_leaves_no_trace(registry: Registry) -> None:
    """The same name, face, key and flag again: a source that repeats it every 15 minutes costs nothing."""
    order = EnrollIdentity("EMP-1", (face(1),), display_name="One", flag="red", external=KEY)
    first = await registry.identities.enroll(order)
    assert await registry.identities.enroll(order) == first
    assert (
        await registry.identities.enroll(
            EnrollIdentity("EMP-1", replace_modality="face", templates=(face(1),))
        )
        == first
    )
    assert (await registry.versions.read()).version == 1
    assert len(await registry.audit.page()) == 1


async def test_an_order_in_a_bulk_sees_those_before_it(registry: Registry) -> None:
    """Enrolled, deleted and enrolled again in one transaction: the first face does not come back."""
    orders = [
        EnrollIdentity("EMP-1", (face(1),)),
        DeleteIdentity("EMP-1"),
        EnrollIdentity("EMP-1", (face(2),), external=KEY),
        EnrollIdentity("EMP-2", (face(3),), external=KEY),
    ]
    outcomes = await registry.identities.apply(orders)
    assert [one.result().user_id for one in outcomes] == ["EMP-1"] * 4
    assert await vectors(registry, "EMP-1") == {face(2).vector, face(3).vector}
    await registry.identities.apply(orders[:3])
    assert await vectors(registry, "EMP-1") == {face(2).vector}

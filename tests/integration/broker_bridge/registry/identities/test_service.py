"""Changes of identities take versions, and sites receive their deltas."""

import asyncio

import numpy as np
import pytest

from broker_bridge.contract.digest import Digest
from broker_bridge.contract.embeddings import EmbeddingSpace, normalise
from broker_bridge.contract.errors import ContractError
from broker_bridge.registry import MongoSettings, Registry
from broker_bridge.registry.identities.model import (
    DeleteIdentity,
    DeltaPage,
    EnrollIdentity,
    ExternalKey,
    Template,
)

SPACES = ["face:test-8", "gait:test-4"]


def face(seed: int) -> Template:
    return Template("face:test-8", normalise(np.random.default_rng(seed).standard_normal(8), 8))


def gait(seed: int) -> Template:
    return Template("gait:test-4", normalise(np.random.default_rng(seed).standard_normal(4), 4))


async def changes(registry: Registry, site: str, since: int = 0, limit: int = 100) -> DeltaPage:
    return await registry.deltas.site_deltas(site, since, SPACES, limit, 10**6, snapshot=False)


async def deltas_by_user_id(registry: Registry, site: str, since: int = 0) -> dict[str, bool]:
    """Return for each delta whether the identity belongs to the site."""
    answer = await changes(registry, site, since)
    return {changed.identity.user_id: changed.identity.belongs_to(site) for changed in answer.deltas}


async def test_each_change_takes_the_next_version(registry: Registry) -> None:
    """Two enrollments, a removed modality and a deletion take versions 1 to 4."""
    first = await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1), gait(1))))
    second = await registry.identities.enroll(EnrollIdentity("EMP-1", (face(2),), flag="red"))
    third = await registry.identities.remove_modality("EMP-1", "gait")
    fourth = await registry.identities.delete("EMP-1")
    assert [p.version for p in (first, second, third, fourth)] == [1, 2, 3, 4]
    assert (second.flag, fourth.flag, fourth.deleted) == ("red", "red", True)
    assert [h.space for h in third.holdings] == ["face:test-8"]
    assert (await registry.versions.read()).version == 4


async def test_concurrent_changes_leave_no_gap(registry: Registry) -> None:
    """Thirty concurrent writers get thirty consecutive versions."""
    identities = await asyncio.gather(
        *(registry.identities.enroll(EnrollIdentity(f"EMP-{n}", (face(n),))) for n in range(30))
    )
    assert sorted(p.version for p in identities) == list(range(1, 31))


async def test_versions_of_two_programs_become_visible_in_order(
    registry: Registry, mongo_settings: MongoSettings
) -> None:
    """A reader with the last version as cursor meets every change."""
    second_registry = await Registry.open(mongo_settings)
    versions: list[int] = []
    writing = asyncio.gather(
        *(_enroll_many(r, name) for r, name in ((registry, "A"), (second_registry, "B")))
    )
    while not writing.done() or (await registry.versions.read()).version > (versions[-1] if versions else 0):
        _, deltas = await registry.deltas.deltas_after(versions[-1] if versions else 0, 100)
        versions += [changed.identity.version for changed in deltas]
    await writing
    await second_registry.close()
    assert versions == list(range(1, 41))


async def _enroll_many(registry: Registry, name: str) -> None:
    for n in range(20):
        await registry.identities.enroll(EnrollIdentity(f"{name}-{n}", (face(n),)))


async def test_a_counter_outside_the_transaction_would_lose_changes(registry: Registry) -> None:
    """With `$inc` first and the write after, a cursor passes over a change."""
    meta, rows = registry.mongo.db.meta, registry.mongo.db.plain
    await meta.insert_one({"_id": "plain", "version": 0})

    async def take() -> int:
        await meta.update_one({"_id": "plain"}, {"$inc": {"version": 1}})
        found = await meta.find_one({"_id": "plain"})
        return int(found["version"])

    slow, quick = await take(), await take()
    await rows.insert_one({"version": quick})
    cursor = max([row["version"] async for row in rows.find({"version": {"$gt": 0}})])
    await rows.insert_one({"version": slow})
    after = [row["version"] async for row in rows.find({"version": {"$gt": cursor}})]
    assert slow not in after
    assert cursor == quick


async def test_an_identity_is_sent_to_its_sites_only(registry: Registry) -> None:
    """No sites means every site; leaving a site is a removal there only."""
    await registry.identities.enroll(EnrollIdentity("EVERY", (face(1),)))
    await registry.identities.enroll(EnrollIdentity("NORTH", (face(2),), sites=("north",)))
    assert await deltas_by_user_id(registry, "north") == {"EVERY": True, "NORTH": True}
    assert await deltas_by_user_id(registry, "south") == {"EVERY": True}
    moved = await registry.identities.enroll(EnrollIdentity("NORTH", sites=("south",)))
    assert await deltas_by_user_id(registry, "north", moved.version - 1) == {"NORTH": False}
    assert await deltas_by_user_id(registry, "south", moved.version - 1) == {"NORTH": True}
    narrowed = await registry.identities.enroll(EnrollIdentity("EVERY", sites=("south",)))
    assert await deltas_by_user_id(registry, "west", narrowed.version - 1) == {"EVERY": False}


async def test_pages_are_cut_by_count_and_bytes_and_have_the_whole_history(registry: Registry) -> None:
    """The pages from zero have every identity once and end at the head."""
    await registry.identities.enroll_many([EnrollIdentity(f"EMP-{n}", (face(n),)) for n in range(25)])
    await registry.identities.enroll(EnrollIdentity("ELSEWHERE", (face(99),), sites=("far",)))
    user_ids, since, pages = [], 0, 0
    while True:
        page = await registry.deltas.site_deltas("north", since, SPACES, 10, 10**6, snapshot=False)
        user_ids += [changed.identity.user_id for changed in page.deltas]
        since, pages = page.to_version, pages + 1
        if page.done:
            break
    assert user_ids == [f"EMP-{n}" for n in range(25)]
    assert (pages, since, page.head_version) == (3, 25, 25)
    small = await registry.deltas.site_deltas("north", 0, SPACES, 100, 600, snapshot=False)
    assert (len(small.deltas), small.done) == (2, False)


async def test_a_snapshot_has_no_tombstones_and_ends_at_the_head(registry: Registry) -> None:
    """A device that starts empty needs no removals."""
    await registry.identities.enroll_many([EnrollIdentity(f"EMP-{n}", (face(n),)) for n in range(3)])
    await registry.identities.delete("EMP-1")
    page = await registry.deltas.site_deltas("north", 0, SPACES, 100, 10**6, snapshot=True)
    assert [c.identity.user_id for c in page.deltas] == ["EMP-0", "EMP-2"]
    assert (page.to_version, page.head_version, page.done) == (4, 4, True)


async def test_holdings_equal_the_digest_of_the_stored_vectors(registry: Registry) -> None:
    """A device computes the same digest from the vectors it received."""
    identity = await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1), face(2), gait(1))))
    (changed,) = (await changes(registry, "north")).deltas
    for holding in identity.holdings:
        vectors = [t.vector for t in changed.templates if t.space == holding.space]
        assert holding.digest == Digest.of("EMP-1", holding.space, vectors)
    assert [h.digest.count for h in identity.holdings] == [2, 1]


async def test_enrolling_a_deleted_identity_does_not_bring_back_its_face(registry: Registry) -> None:
    """Only the new template counts."""
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),), flag="red", display_name="One"))
    await registry.identities.delete("EMP-1")
    restored = await registry.identities.enroll(EnrollIdentity("EMP-1", (face(2),)))
    templates = (await registry.identities.templates_of(["EMP-1"]))["EMP-1"]
    assert [t.vector for t in templates] == [face(2).vector]
    assert (restored.deleted, restored.flag, restored.display_name) == (False, None, None)


async def test_replacing_a_modality_leaves_the_others(registry: Registry) -> None:
    """A new face replaces the face, not the gait, as in seed 000."""
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1), gait(1))))
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(2),), replace_modality="face"))
    templates = (await registry.identities.templates_of(["EMP-1"]))["EMP-1"]
    assert {t.vector for t in templates} == {face(2).vector, gait(1).vector}


@pytest.mark.parametrize(
    ("bad_enrollment", "code"),
    [
        (EnrollIdentity("EMP-1", (Template("face:nowhere", b"\0" * 32),)), "space-unknown"),
        (EnrollIdentity("EMP-1", (Template("face:test-8", b"\0" * 32),)), "vector-invalid"),
        (EnrollIdentity("EMP-1", (Template("face:test-8", face(1).vector[:-4]),)), "vector-invalid"),
    ],
)
async def test_a_bad_template_is_refused_alone(
    registry: Registry, bad_enrollment: EnrollIdentity, code: str
) -> None:
    """It takes no version; the changes before and after it are applied."""
    with pytest.raises(ContractError, match=code):
        await registry.identities.enroll(bad_enrollment)
    assert (await registry.versions.read()).version == 0
    neighbours = [EnrollIdentity("EMP-0", (face(1),)), bad_enrollment, EnrollIdentity("EMP-2", (face(2),))]
    outcomes = await registry.identities.apply(neighbours)
    assert [outcome.error and outcome.error.code for outcome in outcomes] == [None, code, None]
    assert [identity.user_id for identity in await registry.identities.page()] == ["EMP-0", "EMP-2"]


@pytest.mark.parametrize("deleted", [False, True])
async def test_a_key_counts_from_the_change_that_gives_it(registry: Registry, deleted: bool) -> None:
    """A later change by the key concerns the identity that got it in the transaction."""
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),)))
    key = ExternalKey("catalog", "42")
    by_key = EnrollIdentity("EXT-1", (face(2),), external=key)
    enrollments = [
        EnrollIdentity("EMP-1", external=key),
        *([DeleteIdentity(external=key)] if deleted else []),
        by_key,
    ]
    outcomes = await registry.identities.apply(enrollments)
    assert {outcome.result().user_id for outcome in outcomes} == {"EMP-1"}
    stored_vectors = {
        template.vector for template in (await registry.identities.templates_of(["EMP-1"]))["EMP-1"]
    }
    assert stored_vectors == ({face(2).vector} if deleted else {face(1).vector, face(2).vector})


async def test_the_number_of_keys_is_limited(registry: Registry) -> None:
    """A document that is too large for MongoDB would stop its whole batch."""
    keys = [ExternalKey("catalog", str(n)) for n in range(101)]
    outcomes = await registry.identities.apply([EnrollIdentity("EMP-1", external=key) for key in keys])
    assert [outcome.error and outcome.error.code for outcome in outcomes[99:]] == [None, "keys-too-many"]
    assert len((await registry.identities.get("EMP-1")).external) == 100


async def test_a_dry_run_leaves_nothing_to_search(registry: Registry, mongo_settings: MongoSettings) -> None:
    """Its identities are not found, even after others used the same versions."""
    index = registry.identity_indexes.for_space(await registry.spaces.get("face:test-8"))
    judged = await registry.dry_run.judge_changes([EnrollIdentity("EMP-1", (face(1),))])
    (tried,) = await registry.dry_run.apply_judged(judged)
    assert tried.outcome.created
    second_registry = await Registry.open(mongo_settings)
    await second_registry.identities.enroll(EnrollIdentity("EMP-2", (face(2),)))
    await second_registry.close()
    _, found = await index.find_all([face(1).vector, face(2).vector], 0.99)
    assert [match and match.key for match in found] == [None, "EMP-2"]


async def test_deleting_an_unknown_identity_takes_no_version(registry: Registry) -> None:
    """An unknown or deleted identity is refused."""
    await registry.identities.enroll(EnrollIdentity("EMP-1", (face(1),)))
    await registry.identities.delete("EMP-1")
    for user_id in ("EMP-1", "EMP-2"):
        with pytest.raises(ContractError, match="person-unknown"):
            await registry.identities.delete(user_id)
    assert (await registry.versions.read()).version == 2


async def test_an_identity_stays_small_enough_for_a_message(registry: Registry) -> None:
    """A change past the size of a message is refused and takes no version."""
    spaces = [EmbeddingSpace(f"face:wide-{n}", 4096) for n in range(6)]
    for space in spaces:
        await registry.spaces.ensure(space)

    def wide(space: EmbeddingSpace) -> list[Template]:
        rows = np.random.default_rng(1).standard_normal((5, 4096))
        return [Template(space.id, normalise(row, 4096)) for row in rows]

    first = await registry.identities.enroll(EnrollIdentity("EMP-1", tuple(wide(spaces[0]))))
    with pytest.raises(ContractError, match="templates-too-many"):
        await registry.identities.enroll(
            EnrollIdentity("EMP-1", tuple(template for space in spaces for template in wide(space)))
        )
    for n, group in enumerate((spaces[:3], spaces[3:]), start=2):
        await registry.identities.enroll(
            EnrollIdentity(f"EMP-{n}", tuple(t for space in group for t in wide(space)))
        )
    with pytest.raises(ContractError, match="templates-too-many"):
        await registry.identity_merges.merge("EMP-3", "EMP-2")
    assert await registry.identities.get("EMP-1") == first
    assert len((await registry.identities.templates_of(["EMP-1"]))["EMP-1"]) == 5

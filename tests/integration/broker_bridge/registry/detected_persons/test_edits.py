"""Edit, expire and erase detected persons."""

import asyncio
import json
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument

from broker_bridge.contract.errors import ContractError
from broker_bridge.registry import Registry
from broker_bridge.registry.detected_persons.centroid import FaceCentroid
from broker_bridge.registry.detected_persons.model import BY_FACE, DetectedPerson, VisitSegment
from broker_bridge.registry.detected_persons.queries import DetectedPersonFilter, combine_centroids
from broker_bridge.registry.detected_persons.removal import SETTLE_TIME
from broker_bridge.registry.identities.model import EnrollIdentity, Template
from tests.detected_samples import face_vector, seen, write_person

NOW = datetime(2026, 1, 15, 10, 0, tzinfo=timezone.utc)
WEEK = timedelta(days=7)
SECOND = timedelta(seconds=1)
DESK = {"by": "desk", "now": NOW}


async def somebody(registry: Registry, at: datetime = NOW, **more: Any) -> int:
    """A new detected person, seen at `at` with a face of their own."""
    user_id = more.pop("user_id", None)
    known = await registry.mongo.db.persons.count_documents({})
    return await write_person(
        registry, [seen("cam-001", at, face=face_vector(known), **more)], user_id=user_id
    )


async def stored(registry: Registry, global_id: int) -> dict[str, Any]:
    found = await registry.mongo.db.persons.find_one({"_id": global_id})
    assert found is not None
    return dict(found)


async def traces(registry: Registry, global_id: int) -> tuple[int, int, int]:
    """How many documents of a person, of faces and of the trail there are."""
    database = registry.mongo.db
    return (
        await database.persons.count_documents({"_id": global_id}),
        await database.person_faces.count_documents({"person": global_id}),
        await database.trails.count_documents({"person": global_id}),
    )


async def audit_of(registry: Registry, global_id: int) -> list[tuple[str, str]]:
    """Return the audit entries as (what, by); entries of one time have no order."""
    entries = await registry.audit.page(subject=f"#{global_id}")
    return sorted((entry.what, entry.who) for entry in entries)


async def code_of(work: Any) -> tuple[str, str]:
    with pytest.raises(ContractError) as refused:
        await work
    return refused.value.code, refused.value.detail


async def erase(registry: Registry, user_id: str) -> dict[str, int]:
    """Erase, with all that follows at once; how many documents each step was about."""
    begun = await registry.erasures.erase(user_id, by="desk", now=NOW)
    done = await registry.erasures.continue_erasure(begun.erasure_id, NOW)
    return {name: step.count for name, step in done.steps.items()}


@pytest.fixture
async def enrolled(registry: Registry) -> Registry:
    for user_id in ("EMP-1", "EMP-2"):
        await registry.identities.enroll(EnrollIdentity(user_id, display_name=f"Name of {user_id}"))
    return registry


# Names


async def test_a_name_is_set_and_removed_without_standing_in_the_audit(registry: Registry) -> None:
    """A group has one name; when it is removed, no member keeps one."""
    other, person = await somebody(registry), await somebody(registry)
    await registry.detected_person_edits.rename(other, "Other Name", **DESK)
    await registry.detected_person_edits.merge(other, person, **DESK)
    await registry.detected_person_edits.rename(other, "John Doe", **DESK)
    assert (await registry.detected_person_queries.get_group(person)).aggregate.assigned_name == "John Doe"
    await registry.detected_person_edits.rename(person, None, **DESK)
    await registry.detected_person_edits.rename(person, None, **DESK)
    assert (await registry.detected_person_queries.get_group(person)).aggregate.assigned_name is None
    assert await audit_of(registry, person) == [("detected-person.renamed", "desk")] * 2
    entries = json.dumps([str(entry) for entry in await registry.audit.page()])
    assert "John" not in entries
    assert "Other" not in entries


# Links


async def test_a_link_by_hand_stays_until_it_is_changed(enrolled: Registry) -> None:
    """The former link by face is kept; a rejected link does not come back."""
    person = await somebody(enrolled, user_id="EMP-2")
    await enrolled.detected_person_edits.link(person, "EMP-1", **DESK)
    one = await stored(enrolled, person)
    assert (one["user_id"], one["linked_by"], one["linked_before"]) == ("EMP-1", "desk", ["EMP-2"])
    await enrolled.detected_person_edits.unlink(person, **DESK)
    await enrolled.tracker_store.link([(person, "EMP-1", None)])
    one = await stored(enrolled, person)
    assert (one["user_id"], one["linked_by"], one["not_users"]) == (None, None, ["EMP-1"])
    await enrolled.detected_person_edits.link(person, "EMP-1", **DESK)
    assert (await stored(enrolled, person))["not_users"] == []
    acts = [what for what, _ in await audit_of(enrolled, person)]
    assert acts == ["detected-person.linked", "detected-person.linked", "detected-person.unlinked"]


async def test_confirming_a_camera_link_makes_it_a_link_by_hand_once(
    enrolled: Registry,
) -> None:
    """A key that is called `face` does not look like a camera."""
    person = await somebody(enrolled, user_id="EMP-1")
    assert (await stored(enrolled, person))["linked_by"] == BY_FACE
    for _ in range(2):
        await enrolled.detected_person_edits.link(person, "EMP-1", by="face", now=NOW)
    one = await stored(enrolled, person)
    assert (one["linked_by"], one["linked_before"]) == ("key face", [])
    assert len(await audit_of(enrolled, person)) == 1


async def test_only_existing_identities_are_linked(enrolled: Registry) -> None:
    """Unknown, deleted and merged identities are rejected, each with what to do."""
    person = await somebody(enrolled)
    link = enrolled.detected_person_edits.link
    assert (await code_of(link(person, "NOBODY", **DESK)))[0] == "person-unknown"
    await enrolled.identity_merges.merge("EMP-1", "EMP-2")
    code, detail = await code_of(link(person, "EMP-1", **DESK))
    assert (code, "EMP-2" in detail) == ("person-merged", True)
    await enrolled.identities.delete("EMP-2")
    assert (await code_of(link(person, "EMP-2", **DESK)))[0] == "person-unknown"
    assert (await code_of(link(4711, "EMP-2", **DESK)))[0] == "detected-person-unknown"


async def test_a_link_is_hidden_while_deleted_and_follows_a_merge(
    enrolled: Registry,
) -> None:
    """A restored identity is shown again."""
    await enrolled.identity_merges.merge("EMP-1", "EMP-2")
    shown = await enrolled.detected_person_queries.linked_identities(["EMP-1"])
    assert shown["EMP-1"].user_id == "EMP-2"
    await enrolled.identities.delete("EMP-2")
    assert await enrolled.detected_person_queries.linked_identities(["EMP-1", "EMP-2"]) == {}
    await enrolled.identities.restore("EMP-2")
    assert set(await enrolled.detected_person_queries.linked_identities(["EMP-1", "EMP-2"])) == {
        "EMP-1",
        "EMP-2",
    }


async def test_the_stream_shows_each_change_by_its_fields(enrolled: Registry) -> None:
    """The tracker goes by these names."""
    person, other = await somebody(enrolled, user_id="EMP-1"), await somebody(enrolled)
    changes = enrolled.detected_person_edits
    seen_fields: list[set[str]] = []
    async with enrolled.mongo.watch([], "persons") as stream:
        await changes.rename(person, "John Doe", **DESK)
        await changes.link(person, "EMP-2", **DESK)
        await changes.unlink(person, **DESK)
        await changes.merge(other, person, **DESK)
        await changes.unmerge(other, **DESK)
        await changes.delete(other, **DESK)
        kinds = []
        async for change in stream:
            kinds.append((change["operationType"], change["documentKey"]["_id"]))
            seen_fields.append(set(change.get("updateDescription", {}).get("updatedFields", {})))
            if kinds[-1] == ("delete", other):
                break
    linked = {"user_id", "linked_by", "linked_before", "not_users"}
    told = [fields & {*linked, "assigned_name", "merged_into"} for fields in seen_fields]
    assert told[0] == {"assigned_name"}
    assert "user_id" in told[1]
    assert {"user_id", "not_users"} <= told[2]
    assert [one for one in told[3:-1] if one] == [{"merged_into"}, {"merged_into"}]


# Merges


async def test_a_merge_adds_up_and_its_undo_leaves_both_as_they_were(registry: Registry) -> None:
    """Only `merged_into` is written; a merged id answers with its group."""
    first = await write_person(registry, [seen("cam-001", NOW), seen("cam-002", NOW + SECOND)])
    second = await write_person(registry, [seen("cam-003", NOW + 2 * SECOND, site_id="gate")])
    before = [await stored(registry, one) for one in (first, second)]
    await registry.detected_person_edits.merge(second, first, by="desk", now=NOW + 3 * SECOND)
    group = await registry.detected_person_queries.get_group(second)
    assert (group.root.global_id, group.ids) == (first, [first, second])
    whole = group.aggregate
    assert (whole.cameras_visited, whole.total_detections) == (("cam-001", "cam-002", "cam-003"), 3)
    assert (whole.site_id, whole.last_seen) == ("gate", NOW + 2 * SECOND)
    assert [stay.device_id for _, stay in await registry.detected_person_queries.trail(group.ids)] == [
        "cam-003", "cam-002", "cam-001",
    ]  # fmt: skip
    await registry.detected_person_edits.unmerge(second, by="desk", now=NOW + 4 * SECOND)
    after = [await stored(registry, one) for one in (first, second)]
    for one in (*before, *after):
        del one["updated_at"]
        one.pop("merges", None)
    assert before == after
    assert await audit_of(registry, second) == [
        ("detected-person.merged", "desk"),
        ("detected-person.unmerged", "desk"),
    ]


async def test_an_impossible_merge_names_a_possible_one(registry: Registry) -> None:
    """A person with itself, an unknown one, and a merged one on either side."""
    a, b, c = [await somebody(registry) for _ in range(3)]
    changes = registry.detected_person_edits
    assert (await code_of(changes.merge(a, a, **DESK)))[0] == "merge-impossible"
    assert (await code_of(changes.merge(a, 4711, **DESK)))[0] == "detected-person-unknown"
    assert (await code_of(changes.merge(4711, a, **DESK)))[0] == "detected-person-unknown"
    assert (await code_of(changes.unmerge(a, **DESK)))[0] == "merge-impossible"
    await changes.merge(a, b, **DESK)
    for work in (changes.merge(a, c, **DESK), changes.merge(c, a, **DESK), changes.delete(a, **DESK)):
        code, detail = await code_of(work)
        assert (code, f"{a} was merged into {b}" in detail) == ("merge-impossible", True)
    await changes.merge(b, c, **DESK)
    assert (await registry.detected_person_queries.get_group(a)).ids == [c, a, b]
    await changes.unmerge(b, **DESK)
    assert (await registry.detected_person_queries.get_group(a)).ids == [b, a]


async def test_persons_of_two_identities_are_not_merged(enrolled: Registry) -> None:
    """An unlink, a merge of the identities or a deletion makes it possible."""
    first, second = await somebody(enrolled, user_id="EMP-1"), await somebody(enrolled, user_id="EMP-2")
    changes = enrolled.detected_person_edits
    code, detail = await code_of(changes.merge(first, second, **DESK))
    assert (code, "EMP-1 and EMP-2" in detail) == ("merge-impossible", True)
    await enrolled.identities.delete("EMP-1")
    await changes.merge(first, second, **DESK)
    await changes.unmerge(first, **DESK)
    await enrolled.identities.restore("EMP-1")
    await enrolled.identity_merges.merge("EMP-1", "EMP-2")
    await changes.merge(first, second, **DESK)


async def test_a_name_set_on_a_group_stays_after_the_unmerge(registry: Registry) -> None:
    """The name was that of the merged person alone."""
    person, merged = await somebody(registry), await somebody(registry)
    await registry.detected_person_edits.rename(merged, "John Doe", **DESK)
    await registry.detected_person_edits.merge(merged, person, **DESK)
    await registry.detected_person_edits.rename(person, "John Doe", **DESK)
    await registry.detected_person_edits.unmerge(merged, **DESK)
    assert (await stored(registry, person))["assigned_name"] == "John Doe"


async def test_two_merges_at_once_never_make_a_ring(registry: Registry) -> None:
    """Of A into B and B into A one succeeds and the other is rejected."""
    for _ in range(5):
        a, b = await somebody(registry), await somebody(registry)
        changes = registry.detected_person_edits
        done = await asyncio.gather(
            changes.merge(a, b, **DESK), changes.merge(b, a, **DESK), return_exceptions=True
        )
        assert [type(one) for one in done].count(ContractError) == 1
        assert len((await registry.detected_person_queries.get_group(a)).ids) == 2


def test_a_group_centroid_combines_all_its_centroids() -> None:
    """The mean is weighted, as if one centroid had learned all faces."""
    one, two = FaceCentroid.from_vector("face:test-8", face_vector(1), 0.9), FaceCentroid.from_vector(
        "face:test-8", face_vector(2), 0.3
    )  # fmt: skip
    together = combine_centroids(
        [one, two, FaceCentroid.from_vector("face:other", face_vector(3, 4), 1.0)], "face:test-8"
    )
    one.learn(face_vector(2), 0.3)
    assert together is not None
    assert np.allclose(together.mean, one.mean, atol=1e-6)
    assert combine_centroids([one], "gait:test-4") is None


# Deleting and forgetting


async def test_a_deletion_removes_the_whole_merge_group(registry: Registry) -> None:
    """Centroids and trails go too; late writes of the tracker go a minute later."""
    person, other, third = [await somebody(registry) for _ in range(3)]
    await registry.detected_person_edits.merge(other, person, **DESK)
    assert await registry.detected_person_edits.delete(person, **DESK) == [person, other]
    assert [await traces(registry, one) for one in (person, other, third)] == [(0,) * 3, (0,) * 3, (1,) * 3]
    await registry.tracker_store.write_segments([VisitSegment(person, "cam-001", "lobby", NOW, NOW)])
    await registry.tracker_store.write_centroids(
        [(other, FaceCentroid.from_vector("face:test-8", face_vector(1), 0.5))]
    )
    await registry.detected_person_removal.remove_late_writes(NOW + SETTLE_TIME - SECOND)
    assert (await traces(registry, person), await traces(registry, other)) == ((0, 0, 1), (0, 1, 0))
    # A tracker that repeats an interrupted write does not restore a removed person.
    again = DetectedPerson.create(person, seen("cam-001", NOW), "EMP-1")
    await registry.tracker_store.create(
        [(again, FaceCentroid.from_vector("face:test-8", face_vector(1), 0.5))]
    )
    await registry.detected_person_removal.remove_late_writes(NOW + SETTLE_TIME)
    assert [await traces(registry, one) for one in (person, other, third)] == [(0,) * 3, (0,) * 3, (1,) * 3]
    assert await registry.mongo.db.meta.count_documents({"ids": {"$exists": True}}) == 0
    assert ("detected-person.deleted", "desk") in await audit_of(registry, person)


async def test_persons_unseen_for_long_are_removed_with_their_trails(
    registry: Registry,
) -> None:
    """A group with a recently seen member stays; one audit entry has the count."""
    old = [await somebody(registry, NOW - WEEK - SECOND) for _ in range(2)]
    kept, recent = await somebody(registry, NOW - WEEK - SECOND), await somebody(registry, NOW - WEEK)
    await registry.detected_person_edits.merge(old[0], old[1], **DESK)
    await registry.detected_person_edits.merge(recent, kept, **DESK)
    removal = registry.detected_person_removal
    assert await removal.forget_unseen(NOW - WEEK, NOW) == 2
    assert [await traces(registry, one) for one in old] == [(0, 0, 0)] * 2
    assert [await traces(registry, one) for one in (kept, recent)] == [(1, 1, 0), (1, 1, 1)]
    assert await removal.forget_unseen(NOW - WEEK, NOW) == 0
    entries = [one for one in await registry.audit.page() if one.what == "detected-persons.forgotten"]
    assert [(one.subject, one.after) for one in entries] == [("#*", {"count": 2})]


async def test_many_are_forgotten_in_batches(registry: Registry) -> None:
    """There are more than one transaction takes, and some stay in between."""
    for _ in range(3):
        await registry.detected_person_edits.merge(
            await somebody(registry), await somebody(registry, NOW - WEEK), **DESK
        )
    template = await stored(registry, await somebody(registry, NOW - WEEK))
    await registry.mongo.db.persons.insert_many([{**template, "_id": n} for n in range(1000, 1450)])
    assert await registry.detected_person_removal.forget_unseen(NOW - SECOND, NOW) == 451
    entries = [one for one in await registry.audit.page() if one.what == "detected-persons.forgotten"]
    assert [one.after for one in entries] == [{"count": 451}]
    assert await registry.mongo.db.persons.count_documents({}) == 6


# Erasure


async def test_an_erasure_removes_persons_linked_now_or_before(enrolled: Registry) -> None:
    """Whole groups are removed; other persons lose their rejected links to it."""
    linked_now = await somebody(enrolled, user_id="EMP-1")
    before = await somebody(enrolled, user_id="EMP-1")
    await enrolled.detected_person_edits.link(before, "EMP-2", **DESK)
    merged = await somebody(enrolled)
    await enrolled.detected_person_edits.merge(merged, linked_now, **DESK)
    refused = await somebody(enrolled, user_id="EMP-1")
    await enrolled.detected_person_edits.unlink(refused, **DESK)
    other = await somebody(enrolled, user_id="EMP-2")
    steps = await erase(enrolled, "EMP-1")
    assert steps["detected_persons"] == 3
    assert [await traces(enrolled, one) for one in (linked_now, before, merged)] == [(0, 0, 0)] * 3
    assert [await traces(enrolled, one) for one in (refused, other)] == [(1, 1, 1)] * 2
    assert (await stored(enrolled, refused))["not_users"] == []
    assert "EMP-1" not in json.dumps([str(entry) for entry in await enrolled.audit.page()])


async def test_a_person_seen_during_an_erasure_is_removed_by_the_second_sweep(enrolled: Registry) -> None:
    """The second sweep is a minute after."""
    begun = await enrolled.erasures.erase("EMP-1", by="desk", now=NOW)
    await enrolled.erasures.continue_erasure(begun.erasure_id, NOW)
    late = await somebody(enrolled, NOW + SECOND, user_id="EMP-1")
    done = await enrolled.erasures.continue_erasure(begun.erasure_id, NOW + SETTLE_TIME)
    assert await traces(enrolled, late) == (0, 0, 0)
    assert done.steps["detected_persons"].count == 1


async def test_nothing_of_the_erased_is_left_anywhere(enrolled: Registry) -> None:
    """No collection but the tombstone has face, name or user id, also later."""
    person, merged = await somebody(enrolled, user_id="EMP-1"), await somebody(enrolled)
    changes = enrolled.detected_person_edits
    await changes.rename(person, "Name of EMP-1", **DESK)
    await changes.merge(merged, person, **DESK)
    earlier = await somebody(enrolled, user_id="EMP-1")
    await changes.link(earlier, "EMP-2", **DESK)
    refused = await somebody(enrolled, user_id="EMP-1")
    await changes.unlink(refused, **DESK)
    gone = (person, merged, earlier)
    theirs = {"person": {"$in": gone}}
    faces = [face async for face in enrolled.mongo.db.person_faces.find(theirs)]
    begun = await enrolled.erasures.erase("EMP-1", by="desk", now=NOW)
    await enrolled.erasures.continue_erasure(begun.erasure_id, NOW)
    late = await somebody(enrolled, NOW + SECOND)
    await enrolled.tracker_store.link([(late, "EMP-1", None)])
    await enrolled.mongo.db.person_faces.insert_many(faces)
    await enrolled.tracker_store.write_segments(
        [VisitSegment(one, "cam-001", "lobby", NOW, NOW) for one in gone]
    )
    await enrolled.erasures.continue_erasure(begun.erasure_id, NOW + SETTLE_TIME)
    await enrolled.detected_person_removal.remove_late_writes(NOW + 2 * SETTLE_TIME)
    assert [await traces(enrolled, one) for one in (*gone, late)] == [(0, 0, 0)] * 4
    assert await traces(enrolled, refused) == (1, 1, 1)
    raw = CodecOptions(document_class=RawBSONDocument)
    sought = [b"EMP-1", *(bytes(face["vector"]) for face in faces)]
    for name in await enrolled.mongo.db.list_collection_names():
        query = {"_id": {"$ne": "EMP-1"}} if name == "identities" else {}
        async for found in enrolled.mongo.db[name].with_options(codec_options=raw).find(query):
            assert [one for one in sought if one in found.raw] == [], name


async def test_an_id_enrolled_again_keeps_its_new_sightings(enrolled: Registry) -> None:
    """Only persons first seen before the erasure are removed."""
    begun = await enrolled.erasures.erase("EMP-1", by="desk", now=NOW)
    template = Template("face:test-8", face_vector(9).tobytes())
    await enrolled.identities.enroll(EnrollIdentity("EMP-1", (template,)))
    early = await somebody(enrolled, NOW - SECOND, user_id="EMP-1")
    anew = await somebody(enrolled, NOW + SECOND, user_id="EMP-1")
    await enrolled.erasures.continue_erasure(begun.erasure_id, NOW + 2 * SECOND)
    assert (await traces(enrolled, early), await traces(enrolled, anew)) == ((0, 0, 0), (1, 1, 1))


async def test_persons_linked_to_a_purged_identity_can_be_erased(enrolled: Registry) -> None:
    """A detected person alone is enough for an erasure, and for an export."""
    person = await somebody(enrolled, user_id="EMP-9")
    exported = b"".join(
        [piece async for piece in await enrolled.personal_data_export.export_identity("EMP-9", **DESK)]
    )
    assert [one["global_id"] for one in json.loads(exported)["detected_persons"]] == [person]
    assert (await erase(enrolled, "EMP-9"))["detected_persons"] == 1
    assert (await code_of(enrolled.personal_data_export.export_identity("NOBODY", **DESK)))[
        0
    ] == "person-unknown"


async def test_a_reused_user_id_does_not_inherit_links(enrolled: Registry) -> None:
    """Links follow a merge; all others end, and an erasure still finds them."""
    for user_id in ("EMP-3", "EMP-4"):
        await enrolled.identities.enroll(EnrollIdentity(user_id))
    gone = await somebody(enrolled, user_id="EMP-1")
    merged = [await somebody(enrolled, user_id=user_id) for user_id in ("EMP-2", "EMP-3")]
    refused = await somebody(enrolled, user_id="EMP-1")
    await enrolled.detected_person_edits.unlink(refused, **DESK)
    await enrolled.identity_merges.merge("EMP-2", "EMP-3")
    await enrolled.identity_merges.merge("EMP-3", "EMP-4")
    await enrolled.identities.delete("EMP-1")
    past = {"deleted_at": NOW - WEEK}
    await enrolled.mongo.db.identities.update_many({"deleted": True}, {"$set": past})
    assert await enrolled.tombstones.purge(NOW, timedelta(0)) == 3
    await enrolled.identities.enroll(EnrollIdentity("EMP-1", display_name="Another person"))
    one = await stored(enrolled, gone)
    assert (one["user_id"], one["linked_by"], one["linked_before"]) == (None, None, ["EMP-1"])
    for person in merged:
        one = await stored(enrolled, person)
        assert (one["user_id"], one["linked_by"]) == ("EMP-4", BY_FACE)
    assert (await stored(enrolled, refused))["not_users"] == []
    assert (await erase(enrolled, "EMP-1"))["detected_persons"] == 1


async def test_an_export_has_the_linked_detected_persons(enrolled: Registry) -> None:
    """The export has vectors and trails of linked persons, and of no other."""
    person, merged = await somebody(enrolled, user_id="EMP-1"), await somebody(enrolled)
    await enrolled.detected_person_edits.merge(merged, person, **DESK)
    await somebody(enrolled, user_id="EMP-2")
    await enrolled.detected_person_edits.link(await somebody(enrolled, user_id="EMP-1"), "EMP-2", **DESK)
    mistaken, other = await somebody(enrolled, user_id="EMP-1"), await somebody(enrolled)
    await enrolled.detected_person_edits.merge(mistaken, other, **DESK)
    await enrolled.detected_person_edits.link(other, "EMP-2", **DESK)
    held = json.loads(
        b"".join(
            [piece async for piece in await enrolled.personal_data_export.export_identity("EMP-1", **DESK)]
        )
    )
    assert [one["global_id"] for one in held["detected_persons"]] == [person, merged]
    assert all(len(one["faces"]) == 1 for one in held["detected_persons"])
    assert sorted(one["global_id"] for one in held["trails"]) == [person, merged]
    assert "detected-person.merged" in {entry["what"] for entry in held["audit"]}


# Lists


@pytest.fixture
async def house(enrolled: Registry) -> dict[str, int]:
    """Write `away`, seen at the gate a minute ago, and `here`, seen at the lobby.

    `merged`, which is here, is merged into `root`, which is long away.
    """
    people = {
        "away": await write_person(enrolled, [seen("cam-001", NOW - 60 * SECOND, site_id="gate")]),
        "here": await write_person(enrolled, [seen("cam-002", NOW)], user_id="EMP-1"),
        "root": await write_person(enrolled, [seen("cam-001", NOW - 600 * SECOND, site_id="gate")]),
        "merged": await write_person(enrolled, [seen("cam-003", NOW)]),
    }
    await enrolled.detected_person_edits.rename(people["merged"], "John Doe", **DESK)
    await enrolled.detected_person_edits.merge(people["merged"], people["root"], **DESK)
    return people


LISTS = [
    (DetectedPersonFilter(), {"away", "here", "root"}),
    (DetectedPersonFilter(active=True), {"here", "root"}),
    (DetectedPersonFilter(active=False), {"away"}),
    (DetectedPersonFilter(site_id="gate"), {"away"}),
    (DetectedPersonFilter(site_id="lobby", active=True), {"here", "root"}),
    (DetectedPersonFilter(device_id="cam-003"), {"root"}),
    (DetectedPersonFilter(device_id="cam-001"), {"away", "root"}),
    (DetectedPersonFilter(user_id="EMP-1"), {"here"}),
    (DetectedPersonFilter(user_id="EMP-2"), set()),
    (DetectedPersonFilter(user_id="NOBODY"), set()),
    (DetectedPersonFilter(named=True), {"root"}),
    (DetectedPersonFilter(named=False, active=True), {"here"}),
]


async def test_a_filter_matches_any_member_of_a_merge_group(
    enrolled: Registry, house: dict[str, int]
) -> None:
    """Site, camera, activity and name of any member count."""
    names = {global_id: name for name, global_id in house.items()}
    for wanted, expected in LISTS:
        page = await enrolled.detected_person_queries.page(wanted, NOW - 35 * SECOND)
        assert {names[one.root.global_id] for one in page.groups} == expected, wanted
        assert page.next_position is None


async def test_a_filter_by_user_id_includes_merged_user_ids(
    enrolled: Registry, house: dict[str, int]
) -> None:
    """The user id of a deleted identity matches no person."""
    await enrolled.identity_merges.merge("EMP-1", "EMP-2")
    ask = enrolled.detected_person_queries.page
    page = await ask(DetectedPersonFilter(user_id="EMP-2"), NOW)
    assert [one.root.global_id for one in page.groups] == [house["here"]]
    assert (await ask(DetectedPersonFilter(user_id="EMP-1"), NOW)).groups == []


async def test_a_group_is_active_if_any_member_is(enrolled: Registry, house: dict[str, int]) -> None:
    """A group is listed once, also if root and member are active."""
    ask = enrolled.detected_person_queries.active_groups
    count, active = await ask(NOW - 35 * SECOND, 10)
    assert (count, {one.root.global_id for one in active}) == (2, {house["here"], house["root"]})
    await enrolled.detected_person_edits.merge(house["here"], house["root"], **DESK)
    assert [one.root.global_id for one in (await ask(NOW - 35 * SECOND, 10))[1]] == [house["root"]]
    count, (newest,) = await ask(NOW - timedelta(hours=1), 1)
    assert (count, newest.root.global_id) == (2, house["root"])


# Questions


async def test_no_query_scans_a_collection(enrolled: Registry) -> None:
    """MongoDB answers lookups, groups and erasures by an index."""
    person, merged = await somebody(enrolled, user_id="EMP-1"), await somebody(enrolled)
    for number in range(1000, 1200):
        await enrolled.mongo.db.persons.insert_one({**await stored(enrolled, merged), "_id": number})
    await enrolled.detected_person_edits.merge(merged, person, **DESK)
    await enrolled.mongo.db.command("profile", 2)
    reading = enrolled.detected_person_queries
    assert (await reading.get_group(merged)).ids == [person, merged]
    assert await enrolled.tracker_store.find_linked(["EMP-1"]) == {"EMP-1": person}
    await reading.active_groups(NOW + SECOND, 10)
    for wanted, _ in LISTS:
        await reading.page(wanted, NOW + SECOND, limit=1)
    assert await enrolled.detected_person_removal.erase_linked(["EMP-1"], None, NOW) == 2
    await enrolled.detected_person_removal.forget_unseen(NOW - WEEK, NOW)
    await enrolled.mongo.db.command("profile", 0)
    scans = {"ns": {"$regex": "[.](persons|person_faces|trails)$"}, "planSummary": "COLLSCAN"}
    assert [one["command"] async for one in enrolled.mongo.db.system.profile.find(scans)] == []

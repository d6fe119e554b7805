"""A batch of changes is a fold: each change sees the result of those before it."""

from datetime import datetime, timezone

import numpy as np

from broker_bridge.contract.embeddings import normalise
from broker_bridge.registry.identities.batch import (
    ChangeBatch,
    possible_user_ids,
    user_ids_needing_templates,
)
from broker_bridge.registry.identities.model import (
    DeleteIdentity,
    EnrollIdentity,
    ExternalKey,
    Identity,
    Template,
)
from broker_bridge.registry.identities.rules import Rules

NOW = datetime(2026, 1, 15, 10, 0, tzinfo=timezone.utc)
SPACE = "face:test-8"
KEY = ExternalKey("hr", "7")
KNOWN = Identity("EMP-1", 1, ("*",), ("*",))


def face(seed: int) -> Template:
    return Template(SPACE, normalise(np.random.default_rng(seed).standard_normal(8), 8))


def empty_batch() -> ChangeBatch:
    return ChangeBatch({}, {}, {SPACE: 8}, Rules())


def test_a_change_by_a_known_key_concerns_its_holder_only() -> None:
    change = EnrollIdentity("EMP-2", external=KEY)
    assert possible_user_ids([change], {KEY.text: "EMP-1"}) == [{"EMP-1"}]


def test_a_change_by_a_new_key_may_concern_each_claimant() -> None:
    """The first claimant gets the key only if its change is not refused."""
    changes = [EnrollIdentity("EMP-1", external=KEY), EnrollIdentity("EMP-2", external=KEY)]
    assert possible_user_ids(changes, {}) == [{"EMP-1", "EMP-2"}] * 2


def test_templates_are_read_only_where_a_change_concerns_them() -> None:
    """A template and a second change of an identity need them, a new name does not."""
    renamed, enrolled = EnrollIdentity("EMP-1", display_name="Ana"), EnrollIdentity("EMP-1", (face(1),))
    deleted = DeleteIdentity("EMP-1")
    ids, known = {"EMP-1"}, {"EMP-1": KNOWN}
    assert user_ids_needing_templates([renamed], [ids], known) == []
    assert user_ids_needing_templates([deleted], [ids], known) == []
    assert user_ids_needing_templates([enrolled], [ids], known) == ["EMP-1"]
    assert user_ids_needing_templates([deleted, renamed], [ids, ids], known) == ["EMP-1"]
    assert user_ids_needing_templates([enrolled], [ids], {}) == []


def test_a_later_change_by_key_concerns_the_identity_that_got_the_key() -> None:
    batch = empty_batch()
    first = batch.apply(EnrollIdentity("EMP-1", (face(1),), external=KEY), 1, NOW)
    second = batch.apply(EnrollIdentity("EMP-2", (face(2),), external=KEY), 2, NOW)
    assert (first.added, second.added, second.result().user_id) == (1, 1, "EMP-1")
    assert list(batch.records) == ["EMP-1"]


def test_a_refused_change_changes_nothing_and_takes_no_key() -> None:
    batch = empty_batch()
    refused = batch.apply(EnrollIdentity("EMP-1", must_exist=True, external=KEY), 1, NOW)
    assert refused.error is not None
    assert (refused.error.code, batch.records) == ("person-unknown", {})
    assert batch.apply(EnrollIdentity("EMP-2", external=KEY), 2, NOW).result().user_id == "EMP-2"


def test_an_unknown_space_is_refused() -> None:
    template = Template("gait:test-4", normalise(np.ones(4), 4))
    outcome = empty_batch().apply(EnrollIdentity("EMP-1", (template,)), 1, NOW)
    assert outcome.error is not None
    assert outcome.error.code == "space-unknown"


def test_an_identity_deleted_and_enrolled_in_a_batch_lacks_its_former_face() -> None:
    batch = empty_batch()
    for version, change in enumerate(
        [EnrollIdentity("EMP-1", (face(1),)), DeleteIdentity("EMP-1"), EnrollIdentity("EMP-1", (face(2),))], 1
    ):
        outcome = batch.apply(change, version, NOW)
    assert outcome.templates is not None
    assert [template.vector for template in outcome.templates] == [face(2).vector]
    assert outcome.created

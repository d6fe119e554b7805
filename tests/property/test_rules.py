"""Properties of the pure rules that apply changes to identities."""

from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from broker_bridge.contract.embeddings import normalise, to_array
from broker_bridge.contract.errors import ContractError
from broker_bridge.enrollment.heads import HeadLedger
from broker_bridge.registry.devices.sites import Site
from broker_bridge.registry.identities import rules
from broker_bridge.registry.identities.model import (
    EnrollIdentity,
    Identity,
    IdentityRecord,
    Template,
    holdings,
)
from broker_bridge.registry.identities.rules import Rules
from broker_bridge.registry.mongo.versions import History
from tests.device_samples import vector

NOW = datetime(2026, 1, 15, 10, 0, tzinfo=timezone.utc)
SPACES = {"face:test-8": 8, "face:other-8": 8, "gait:test-4": 4}
SITES = ["lobby", "gate"]


_QUALITIES = [None, 0.1, 0.4, 0.9]


def _template(space: str, seed: int, shift: float) -> Template:
    """Return a template in one of a few directions, or close to one.

    A vector stands for one picture, so its quality is always the same.
    """
    values = to_array(vector(seed, SPACES[space])) + np.float32(shift)
    return Template(space, normalise(values, SPACES[space]), _QUALITIES[seed % len(_QUALITIES)])


templates = st.builds(
    _template,
    st.sampled_from(sorted(SPACES)),
    st.integers(0, 6),
    st.sampled_from([0.0, 0.0, 0.0, 0.001, 0.01]),
)
consents = st.dictionaries(st.sampled_from(["face", "gait", "speaker"]), st.booleans(), max_size=3)
changes = st.builds(
    EnrollIdentity,
    st.just("EMP-12345"),
    templates=st.lists(templates, max_size=8).map(tuple),
    replace_modality=st.sampled_from([None, None, "face", "gait"]),
    display_name=st.sampled_from([None, "", "Ana"]),
    flag=st.sampled_from([None, "", "red"]),
    sites=st.sampled_from([None, (), ("lobby",), ("gate",), ("lobby", "gate")]),
    consent=st.none() | consents,
)
limits = st.builds(Rules, st.integers(1, 5), st.booleans())


def with_new_ids(change: EnrollIdentity, mark: str) -> EnrollIdentity:
    """Return the change with new template ids, as every request gets them."""
    numbered_templates = enumerate(change.templates)
    return replace(
        change,
        templates=tuple(
            replace(template, template_id=f"{mark}-{position}") for position, template in numbered_templates
        ),
    )


def apply_all(applied: list[EnrollIdentity], limit: Rules, *, version: int = 1) -> IdentityRecord:
    record = IdentityRecord()
    for number, change in enumerate(applied, start=version):
        record = rules.apply_enrollment(
            record, with_new_ids(change, f"t{number}"), number, NOW + timedelta(seconds=number), limit
        )
    return record


@given(st.lists(changes, min_size=1, max_size=5), limits)
def test_a_repeated_change_has_no_effect(applied: list[EnrollIdentity], limit: Rules) -> None:
    """The rule returns the same object.

    The change takes no version and sends no delta.
    """
    once = apply_all(applied, limit)
    repeated = with_new_ids(applied[-1], "again")
    assert rules.apply_enrollment(once, repeated, 100, NOW + timedelta(days=1), limit) is once


@given(st.lists(changes, max_size=5), changes, limits)
def test_a_change_to_the_current_values_has_no_effect(
    applied: list[EnrollIdentity], first: EnrollIdentity, limit: Rules
) -> None:
    """A source may send all its data every night."""
    record = apply_all([first, *applied], limit)
    identity = record.identity
    assert identity is not None
    assert record.templates is not None
    unchanged = EnrollIdentity(
        identity.user_id,
        templates=record.templates,
        display_name=identity.display_name,
        flag=identity.flag,
        sites=() if identity.sites == ("*",) else identity.sites,
        consent=identity.consent,
    )
    repeated = with_new_ids(unchanged, "again")
    assert rules.apply_enrollment(record, repeated, 100, NOW + timedelta(days=1), limit) is record


@given(st.lists(changes, min_size=1, max_size=6), limits)
def test_no_space_ever_has_more_templates_than_the_cap(applied: list[EnrollIdentity], limit: Rules) -> None:
    """No template is stored twice, and the counts are those of the stored templates."""
    record = apply_all(applied, limit)
    kept = record.templates or ()
    counts = Counter(template.space for template in kept)
    assert max(counts.values(), default=0) <= limit.templates_per_space
    assert len({(template.space, template.vector) for template in kept}) == len(kept)
    assert record.identity is not None
    assert {holding.space: holding.digest.count for holding in record.identity.holdings} == counts


@given(st.lists(changes, min_size=1, max_size=5), limits)
def test_a_modality_without_consent_is_not_sent(applied: list[EnrollIdentity], limit: Rules) -> None:
    """The last consent of a modality counts; without any, the setting does."""
    identity = apply_all(applied, limit).identity
    assert identity is not None
    last_consent: dict[str, bool] = {}
    for change in applied:
        last_consent |= change.consent or {}
    for holding in identity.holdings:
        is_sent = last_consent.get(holding.space.partition(":")[0], limit.consent_assumed)
        assert (holding in identity.sent_holdings) == is_sent
        assert identity.may_be_sent(holding.space) == is_sent


@given(st.lists(templates, max_size=8), st.randoms(use_true_random=False))
def test_the_digest_does_not_depend_on_the_order_of_templates(
    ordered: list[Template], source: object
) -> None:
    """Registry and device store them in different orders."""
    shuffled = list(ordered)
    source.shuffle(shuffled)  # type: ignore[attr-defined]
    assert holdings("EMP-12345", ordered) == holdings("EMP-12345", shuffled)


@given(st.lists(changes, min_size=1, max_size=4), limits, st.lists(changes, max_size=2))
def test_an_identity_enrolled_after_a_deletion_starts_empty(
    applied: list[EnrollIdentity], limit: Rules, later: list[EnrollIdentity]
) -> None:
    """It keeps its synced sites and refused consent."""
    before = apply_all(applied, limit)
    assert before.identity is not None
    tombstone = IdentityRecord(rules.make_tombstone(before.identity, 50, NOW), before.templates)
    enrollment = EnrollIdentity("EMP-12345", sites=("lobby",))
    enrolled = rules.apply_enrollment(tombstone, enrollment, 51, NOW, limit)
    assert enrolled.identity is not None
    assert (enrolled.templates, enrolled.identity.holdings) == ((), ())
    assert (enrolled.identity.display_name, enrolled.identity.flag) == (None, None)
    refused = {
        modality: False for modality, has_consent in before.identity.consent.items() if not has_consent
    }
    assert enrolled.identity.consent == refused
    assert set(enrolled.identity.synced_sites) == {*before.identity.synced_sites, "lobby"}
    for version, change in enumerate(later, start=52):
        enrolled = rules.apply_enrollment(enrolled, change, version, NOW, limit)
    assert enrolled.identity is not None
    assert set(enrolled.identity.synced_sites) >= set(before.identity.synced_sites)


steps = st.one_of(
    st.tuples(st.just("enroll"), st.sampled_from("ABC"), changes),
    st.tuples(st.just("delete"), st.sampled_from("ABC"), st.none()),
    st.tuples(st.just("restore"), st.sampled_from("ABC"), st.none()),
)


@given(st.lists(steps, max_size=15), limits)
def test_a_ledger_that_follows_changes_equals_a_new_one(
    applied: list[tuple[str, str, EnrollIdentity]], limit: Rules
) -> None:
    """The property holds after any changes, also of consent and sites."""
    records: dict[str, IdentityRecord] = {}
    following = HeadLedger()
    for version, (action, user_id, change) in enumerate(applied, start=1):
        record = records.get(user_id, IdentityRecord())
        change_of_user = replace(with_new_ids(change, f"t{version}"), user_id=user_id) if change else None
        changed = _changed(action, record, change_of_user, version, limit)
        if changed is None or changed.identity is None:
            continue
        records[user_id] = changed
        following.update(changed.identity)
    identities: list[Identity] = sorted(
        (entry.identity for entry in records.values() if entry.identity),
        key=lambda identity: identity.version,
    )
    history = History("aa", 99, 0)
    for site in SITES:
        new_head = HeadLedger(identities).head(Site(site), history, {})
        assert following.head(Site(site), history, {}) == new_head


def _changed(
    action: str, record: IdentityRecord, change: EnrollIdentity | None, version: int, limit: Rules
) -> IdentityRecord | None:
    """Return the record after a change, or None if it is refused."""
    try:
        if action == "enroll" and change:
            return rules.apply_enrollment(record, change, version, NOW, limit)
        if action == "delete" and record.live:
            return replace(record, identity=rules.make_tombstone(record.live, version, NOW))
        if action == "restore" and record.identity and record.identity.deleted:
            return replace(record, identity=rules.restore_tombstone(record.identity, version, NOW))
    except ContractError:
        return None
    return None

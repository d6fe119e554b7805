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

    The same vector is of the same picture, and so has the same quality.
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
    numbered = enumerate(change.templates)
    return replace(
        change, templates=tuple(replace(one, template_id=f"{mark}-{position}") for position, one in numbered)
    )


def apply_all(applied: list[EnrollIdentity], limit: Rules, *, version: int = 1) -> IdentityRecord:
    held = IdentityRecord()
    for number, change in enumerate(applied, start=version):
        held = rules.apply_enrollment(
            held, with_new_ids(change, f"t{number}"), number, NOW + timedelta(seconds=number), limit
        )
    return held


@given(st.lists(changes, min_size=1, max_size=5), limits)
def test_a_repeated_change_has_no_effect(applied: list[EnrollIdentity], limit: Rules) -> None:
    """The rule returns the same object.

    So no version is taken and no delta is sent.
    """
    once = apply_all(applied, limit)
    again = with_new_ids(applied[-1], "again")
    assert rules.apply_enrollment(once, again, 100, NOW + timedelta(days=1), limit) is once


@given(st.lists(changes, max_size=5), changes, limits)
def test_a_change_to_the_current_values_has_no_effect(
    applied: list[EnrollIdentity], first: EnrollIdentity, limit: Rules
) -> None:
    """A source may send all its data every night."""
    held = apply_all([first, *applied], limit)
    person = held.identity
    assert person is not None
    assert held.templates is not None
    unchanged = EnrollIdentity(
        person.user_id,
        templates=held.templates,
        display_name=person.display_name,
        flag=person.flag,
        sites=() if person.sites == ("*",) else person.sites,
        consent=person.consent,
    )
    again = with_new_ids(unchanged, "again")
    assert rules.apply_enrollment(held, again, 100, NOW + timedelta(days=1), limit) is held


@given(st.lists(changes, min_size=1, max_size=6), limits)
def test_no_space_ever_has_more_templates_than_the_cap(applied: list[EnrollIdentity], limit: Rules) -> None:
    """Nor has it a template twice; the counts are those of the kept templates."""
    held = apply_all(applied, limit)
    kept = held.templates or ()
    counts = Counter(one.space for one in kept)
    assert max(counts.values(), default=0) <= limit.templates_per_space
    assert len({(one.space, one.vector) for one in kept}) == len(kept)
    assert held.identity is not None
    assert {one.space: one.digest.count for one in held.identity.holdings} == counts


@given(st.lists(changes, min_size=1, max_size=5), limits)
def test_a_modality_without_consent_is_not_sent(applied: list[EnrollIdentity], limit: Rules) -> None:
    """The last consent of a modality counts; without any, the setting does."""
    person = apply_all(applied, limit).identity
    assert person is not None
    last_consent: dict[str, bool] = {}
    for change in applied:
        last_consent |= change.consent or {}
    for held in person.holdings:
        may = last_consent.get(held.space.partition(":")[0], limit.consent_assumed)
        assert (held in person.sent_holdings) == may
        assert person.may_be_sent(held.space) == may


@given(st.lists(templates, max_size=8), st.randoms(use_true_random=False))
def test_the_digest_does_not_depend_on_the_order_of_templates(held: list[Template], source: object) -> None:
    """Registry and device store them in different orders."""
    shuffled = list(held)
    source.shuffle(shuffled)  # type: ignore[attr-defined]
    assert holdings("EMP-12345", held) == holdings("EMP-12345", shuffled)


@given(st.lists(changes, min_size=1, max_size=4), limits, st.lists(changes, max_size=2))
def test_an_identity_enrolled_after_a_deletion_starts_empty(
    applied: list[EnrollIdentity], limit: Rules, later: list[EnrollIdentity]
) -> None:
    """It keeps its synced sites and refused consent."""
    before = apply_all(applied, limit)
    assert before.identity is not None
    gone = IdentityRecord(rules.make_tombstone(before.identity, 50, NOW), before.templates)
    fresh = EnrollIdentity("EMP-12345", sites=("lobby",))
    again = rules.apply_enrollment(gone, fresh, 51, NOW, limit)
    assert again.identity is not None
    assert (again.templates, again.identity.holdings) == ((), ())
    assert (again.identity.display_name, again.identity.flag) == (None, None)
    refused = {modality: False for modality, given in before.identity.consent.items() if not given}
    assert again.identity.consent == refused
    assert set(again.identity.synced_sites) == {*before.identity.synced_sites, "lobby"}
    for version, change in enumerate(later, start=52):
        again = rules.apply_enrollment(again, change, version, NOW, limit)
    assert again.identity is not None
    assert set(again.identity.synced_sites) >= set(before.identity.synced_sites)


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
    for version, (what, user_id, change) in enumerate(applied, start=1):
        known = records.get(user_id, IdentityRecord())
        theirs = replace(with_new_ids(change, f"t{version}"), user_id=user_id) if change else None
        changed = _changed(what, known, theirs, version, limit)
        if changed is None or changed.identity is None:
            continue
        records[user_id] = changed
        following.update(changed.identity)
    identities: list[Identity] = sorted(
        (held.identity for held in records.values() if held.identity), key=lambda one: one.version
    )
    history = History("aa", 99, 0)
    for site in SITES:
        begun = HeadLedger(identities).head(Site(site), history, {})
        assert following.head(Site(site), history, {}) == begun


def _changed(
    what: str, known: IdentityRecord, change: EnrollIdentity | None, version: int, limit: Rules
) -> IdentityRecord | None:
    """Return the record after a change, or None if it is refused."""
    try:
        if what == "enroll" and change:
            return rules.apply_enrollment(known, change, version, NOW, limit)
        if what == "delete" and known.live:
            return replace(known, identity=rules.make_tombstone(known.live, version, NOW))
        if what == "restore" and known.identity and known.identity.deleted:
            return replace(known, identity=rules.restore_tombstone(known.identity, version, NOW))
    except ContractError:
        return None
    return None

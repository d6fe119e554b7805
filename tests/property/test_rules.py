"""What orders make of people, whatever the orders: properties of pure rules."""

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
    """One of a few directions, or one that is next to it: then it shows nothing new.

    The same vector is of the same picture, and so of the same quality.
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
orders = st.builds(
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


def anew(order: EnrollIdentity, mark: str) -> EnrollIdentity:
    """The order with template ids of its own, as every request gets them."""
    numbered = enumerate(order.templates)
    return replace(
        order, templates=tuple(replace(one, template_id=f"{mark}-{place}") for place, one in numbered)
    )


def carried_out(told: list[EnrollIdentity], limit: Rules, *, version: int = 1) -> IdentityRecord:
    held = IdentityRecord()
    for number, order in enumerate(told, start=version):
        held = rules.apply_enrollment(
            held, anew(order, f"t{number}"), number, NOW + timedelta(seconds=number), limit
        )
    return held


@given(st.lists(orders, min_size=1, max_size=5), limits)
def test_the_same_order_once_more_changes_nothing(told: list[EnrollIdentity], limit: Rules) -> None:
    """It gives back the very object, so that no version is taken and no device hears of it."""
    once = carried_out(told, limit)
    assert rules.apply_enrollment(once, anew(told[-1], "again"), 100, NOW + timedelta(days=1), limit) is once


@given(st.lists(orders, max_size=5), orders, limits)
def test_an_order_that_says_what_is_so_changes_nothing(
    told: list[EnrollIdentity], first: EnrollIdentity, limit: Rules
) -> None:
    """As when a source sends everything it knows every night."""
    held = carried_out([first, *told], limit)
    person = held.identity
    assert person is not None
    assert held.templates is not None
    said = EnrollIdentity(
        person.user_id,
        templates=held.templates,
        display_name=person.display_name,
        flag=person.flag,
        sites=() if person.sites == ("*",) else person.sites,
        consent=person.consent,
    )
    assert rules.apply_enrollment(held, anew(said, "again"), 100, NOW + timedelta(days=1), limit) is held


@given(st.lists(orders, min_size=1, max_size=6), limits)
def test_no_space_ever_has_more_templates_than_the_cap(told: list[EnrollIdentity], limit: Rules) -> None:
    """Nor a template twice; and what is counted is what is kept."""
    held = carried_out(told, limit)
    kept = held.templates or ()
    counts = Counter(one.space for one in kept)
    assert max(counts.values(), default=0) <= limit.templates_per_space
    assert len({(one.space, one.vector) for one in kept}) == len(kept)
    assert held.identity is not None
    assert {one.space: one.digest.count for one in held.identity.holdings} == counts


@given(st.lists(orders, min_size=1, max_size=5), limits)
def test_what_was_once_refused_is_not_sent(told: list[EnrollIdentity], limit: Rules) -> None:
    """The last word on a modality counts; without any, what the settings say."""
    person = carried_out(told, limit).identity
    assert person is not None
    last_word: dict[str, bool] = {}
    for order in told:
        last_word |= order.consent or {}
    for held in person.holdings:
        may = last_word.get(held.space.partition(":")[0], limit.consent_assumed)
        assert (held in person.sent_holdings) == may
        assert person.may_be_sent(held.space) == may


@given(st.lists(templates, max_size=8), st.randoms(use_true_random=False))
def test_the_order_of_templates_is_nothing_to_the_digest(held: list[Template], source: object) -> None:
    """Registry and device keep them in orders of their own."""
    shuffled = list(held)
    source.shuffle(shuffled)  # type: ignore[attr-defined]
    assert holdings("EMP-12345", held) == holdings("EMP-12345", shuffled)


@given(st.lists(orders, min_size=1, max_size=4), limits, st.lists(orders, max_size=2))
def test_who_was_deleted_and_is_enrolled_again_starts_afresh(
    told: list[EnrollIdentity], limit: Rules, later: list[EnrollIdentity]
) -> None:
    """But every site that ever had them hears of it, and what they refused stays refused."""
    before = carried_out(told, limit)
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
    for version, order in enumerate(later, start=52):
        again = rules.apply_enrollment(again, order, version, NOW, limit)
    assert again.identity is not None
    assert set(again.identity.synced_sites) >= set(before.identity.synced_sites)


changes = st.one_of(
    st.tuples(st.just("enroll"), st.sampled_from("ABC"), orders),
    st.tuples(st.just("delete"), st.sampled_from("ABC"), st.none()),
    st.tuples(st.just("restore"), st.sampled_from("ABC"), st.none()),
)


@given(st.lists(changes, max_size=15), limits)
def test_the_ledger_that_follows_equals_one_that_begins(
    told: list[tuple[str, str, EnrollIdentity]], limit: Rules
) -> None:
    """After any changes, also of consent and sites, and told in which batches ever."""
    people: dict[str, IdentityRecord] = {}
    following = HeadLedger()
    for version, (what, user_id, order) in enumerate(told, start=1):
        known = people.get(user_id, IdentityRecord())
        theirs = replace(anew(order, f"t{version}"), user_id=user_id) if order else None
        changed = _changed(what, known, theirs, version, limit)
        if changed is None or changed.identity is None:
            continue
        people[user_id] = changed
        following.update(changed.identity)
    everybody: list[Identity] = sorted(
        (held.identity for held in people.values() if held.identity), key=lambda one: one.version
    )
    history = History("aa", 99, 0)
    for site in SITES:
        begun = HeadLedger(everybody).head(Site(site), history, {})
        assert following.head(Site(site), history, {}) == begun


def _changed(
    what: str, known: IdentityRecord, order: EnrollIdentity | None, version: int, limit: Rules
) -> IdentityRecord | None:
    """None for what may not be done."""
    try:
        if what == "enroll" and order:
            return rules.apply_enrollment(known, order, version, NOW, limit)
        if what == "delete" and known.live:
            return replace(known, identity=rules.make_tombstone(known.live, version, NOW))
        if what == "restore" and known.identity and known.identity.deleted:
            return replace(known, identity=rules.restore_tombstone(known.identity, version, NOW))
    except ContractError:
        return None
    return None

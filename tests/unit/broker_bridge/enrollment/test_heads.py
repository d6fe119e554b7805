import json
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from broker_bridge.contract.default_space import DEFAULT_FACE_SPACE
from broker_bridge.contract.digest import Digest
from broker_bridge.contract.spaces import SpaceRecord
from broker_bridge.enrollment.heads import HeadLedger, select_affected_sites
from broker_bridge.registry.devices.sites import Site
from broker_bridge.registry.identities.model import EVERY_SITE, Identity, TemplateCount
from broker_bridge.registry.mongo.versions import History
from broker_bridge.registry.spaces import MAX_RECORDS
from tests.space_limits import LIMITS

SITES = ["north", "south", "west"]
SPACES = ["face:a", "gait:b"]
HISTORY = History("ab12", 99, 3)


def person(user_id: str, version: int, sites: tuple[str, ...] = (EVERY_SITE,), value: int = 5) -> Identity:
    holding = (TemplateCount("face:a", Digest(1, value)),)
    return Identity(user_id=user_id, version=version, sites=sites, synced_sites=sites, holdings=holding)


identities = st.builds(
    lambda user, sites, before, deleted, holding: Identity(
        user_id=user,
        version=0,
        sites=tuple(sorted(sites)),
        synced_sites=tuple(sorted(sites | before)),
        deleted=deleted,
        holdings=tuple(
            TemplateCount(space, Digest(count, value)) for space, (count, value) in holding.items()
        ),
    ),
    st.sampled_from(["A", "B", "C", "D"]),
    st.sets(st.sampled_from([*SITES, EVERY_SITE]), min_size=1),
    st.sets(st.sampled_from([*SITES, EVERY_SITE])),
    st.booleans(),
    st.dictionaries(
        st.sampled_from(SPACES), st.tuples(st.integers(1, 5), st.integers(0, 2**64 - 1)), max_size=2
    ),
)


@given(st.lists(identities, max_size=20))
def test_an_updated_ledger_equals_a_new_one(history: list[Identity]) -> None:
    """After any changes a site's head is the sum over its present identities."""
    ledger = HeadLedger()
    newest: dict[str, Identity] = {}
    for version, identity in enumerate(history, 1):
        newest[identity.user_id] = replace(identity, version=version)
        ledger.update(newest[identity.user_id])
    for site in SITES:
        expected = dict.fromkeys(SPACES, Digest())
        for identity in newest.values():
            for holding in identity.holdings if identity.belongs_to(site) else ():
                expected[holding.space] = expected[holding.space].plus(holding.digest)
        head = ledger.head(Site(site), HISTORY, {})
        assert {s: (d.count, d.digest) for s, d in head.spaces.items()} == {
            space: (digest.count, digest.hex) for space, digest in expected.items() if digest.count
        }


def test_a_sites_version_is_that_of_its_own_last_change() -> None:
    """A site's version ignores changes of identities that never belonged to it."""
    ledger = HeadLedger([person("A", 1), person("B", 2, ("north",)), person("C", 3, ("south",))])
    assert [ledger.version(site) for site in SITES] == [2, 3, 1]
    ledger.update(person("D", 4))
    assert [ledger.version(site) for site in SITES] == [4, 4, 4]


def test_a_person_in_every_site_and_in_one_is_counted_once() -> None:
    """A site named beside "every site" adds nothing."""
    ledger = HeadLedger([person("A", 1, (EVERY_SITE, "north"))])
    assert ledger.head(Site("north"), HISTORY, {}).spaces["face:a"].count == 1


def test_a_head_names_the_spaces_on_record() -> None:
    """Also those without templates; a space that is only declared is left out."""
    records = {
        "face:a": SpaceRecord(space="face:a", dimension=4, model_sha256="aa" * 32, detector="scrfd"),
        "gait:b": SpaceRecord(space="gait:b", dimension=8, limits=LIMITS),
        "gait:c": SpaceRecord(space="gait:c", dimension=8),
    }
    head = HeadLedger([person("A", 1)]).head(Site("north"), HISTORY, records)
    calibrated = DEFAULT_FACE_SPACE.model_copy(update={"limits": LIMITS})
    empty = HeadLedger()
    assert empty.head(Site("north"), HISTORY, {DEFAULT_FACE_SPACE.space: DEFAULT_FACE_SPACE}).spaces == {}
    assert len(empty.head(Site("north"), HISTORY, {DEFAULT_FACE_SPACE.space: calibrated}).spaces) == 1
    own = {"count": 1, "digest": Digest(1, 5).hex, "people": 1}
    none = {"count": 0, "digest": "0" * 16, "people": 0}
    assert {space: json.loads(one.to_json()) for space, one in head.spaces.items()} == {
        "face:a": own | {"model_sha256": "aa" * 32, "dimension": 4, "detector": "scrfd"},
        "gait:b": none | {"dimension": 8, "limits": LIMITS.model_dump()},
    }


def test_a_head_counts_the_people_of_its_site() -> None:
    """Also those without a template in a space."""
    without = replace(person("B", 2, ("north",)), holdings=())
    ledger = HeadLedger([person("A", 1), without, person("C", 3, ("south",))])
    head = ledger.head(Site("north"), HISTORY, {})
    assert (head.people, head.spaces["face:a"].people) == (2, 1)
    ledger.update(replace(person("A", 4), deleted=True))
    head = ledger.head(Site("north"), HISTORY, {})
    assert (head.people, head.spaces) == (1, {})


def test_a_head_stays_small() -> None:
    """With every space that can be on record, and 64 that only have templates."""
    holdings = tuple(TemplateCount(f"face:{n:02}{'x' * 40}", Digest(1, n + 1)) for n in range(64))
    records = {
        space: SpaceRecord(
            space=space, dimension=512, model_sha256="aa" * 32, detector="cascade", alignment="landmarks",
            limits=LIMITS,
        )
        for space in (f"face:record-{n}" for n in range(MAX_RECORDS))
    }  # fmt: skip
    head = HeadLedger([replace(person("A", 1), holdings=holdings)]).head(Site("north"), HISTORY, records)
    assert len(head.spaces) == 64 + MAX_RECORDS
    assert len(head.to_json()) < 24 * 1024


def test_a_head_has_the_policy_of_an_open_site() -> None:
    """The head omits the policy of a closed site, as older devices expect."""
    ledger = HeadLedger()
    assert ledger.head(Site("north"), HISTORY, {}).enrollment_policy is None
    assert ledger.head(Site("north", "visitors"), HISTORY, {}).enrollment_policy == "visitors"


def test_a_site_that_an_identity_left_is_affected() -> None:
    """A change affects sites that had the identity, and no site that never had it."""
    moved = replace(person("A", 2, ("south",)), synced_sites=("north", "south"))
    assert select_affected_sites(moved, SITES) == ["north", "south"]
    assert select_affected_sites(person("B", 3), SITES) == SITES

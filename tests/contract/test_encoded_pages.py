"""Pages are encoded without a model per template: byte for byte what the model would say."""

from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from broker_bridge.contract.embeddings import normalise
from broker_bridge.contract.messages import SyncPage
from broker_bridge.enrollment.sync_pages import PageContent, PagePosition, answer, cut_pages
from broker_bridge.enrollment.sync_responder import told
from broker_bridge.registry.identities.model import EVERY_SITE, DeltaPage, Identity, IdentityDelta, Template
from broker_bridge.registry.mongo.versions import History

SPACE = "face:test-8"
HISTORY = History("ab12", 900, 3)


def change(
    number: int,
    templates: Sequence[float | None] = (0.9,),
    *,
    name: str | None = None,
    flag: str | None = None,
    deleted: bool = False,
) -> IdentityDelta:
    vectors = [normalise(np.random.default_rng([number, n]).normal(size=8), 8) for n in range(len(templates))]
    person = Identity(
        f"EMP-{number}", number, (EVERY_SITE,), (EVERY_SITE,), display_name=name, flag=flag, deleted=deleted
    )
    return IdentityDelta(
        person,
        tuple(
            Template(SPACE, vector, quality, template_id=f"t-{number}-{n}")
            for n, (vector, quality) in enumerate(zip(vectors, templates, strict=True))
        ),
    )


def site_changes(changed: Sequence[IdentityDelta], *, done: bool = True) -> DeltaPage:
    return DeltaPage(HISTORY, 900, 900 if done else changed[-1].identity.version, tuple(changed), done)


def place(*, limit: int = 200, with_names: bool = False) -> PagePosition:
    return PagePosition.start("lobby", [SPACE], limit, with_names=with_names)


def by_model(page: PageContent, changed: Sequence[IdentityDelta], *, with_names: bool = False) -> bytes:
    upserts, removals = told(changed, "lobby", with_names=with_names)
    return SyncPage(
        request_id="r-1",
        epoch=page.history.epoch,
        from_version=page.from_version,
        to_version=page.to_version,
        head_version=page.head_version,
        reset=page.reset,
        upserts=upserts,
        removals=removals,
        done=page.done,
    ).to_json()


qualities = st.none() | st.floats(0, 1)
names = st.none() | st.text(max_size=20).filter(lambda name: name.isprintable())


@settings(max_examples=100, deadline=None)
@given(
    people=st.lists(
        st.tuples(st.lists(qualities, max_size=3), names, st.none() | st.just("red"), st.booleans()),
        max_size=4,
    ),
    with_names=st.booleans(),
)
def test_an_encoded_page_is_the_models_json(
    people: list[tuple[list[float | None], str | None, str | None, bool]], with_names: bool
) -> None:
    """Whatever the names, flags and qualities are, absent ones too; and a device reads it."""
    changed = [
        change(number, templates, name=name, flag=flag, deleted=deleted)
        for number, (templates, name, flag, deleted) in enumerate(people, start=1)
    ]
    (page,) = cut_pages(place(with_names=with_names), site_changes(changed))
    payload = answer(page, "r-1").to_json()
    assert payload == by_model(page, changed, with_names=with_names)
    assert SyncPage.model_validate_json(payload).to_json() == payload


def test_a_reading_is_cut_into_pages_that_follow_on_each_other() -> None:
    """By count and by bytes; each says where it ends, and only the last that this is the head."""
    changed = [change(number) for number in range(1, 26)]
    for limit, max_bytes in ((10, 10**6), (200, 2000)):
        pages = list(cut_pages(place(limit=limit), site_changes(changed), max_bytes))
        assert [one.from_version for one in pages] == [0, *(one.to_version for one in pages[:-1])]
        assert [one.done for one in pages] == [*([False] * (len(pages) - 1)), True]
        assert [one.reset for one in pages] == [True, *([False] * (len(pages) - 1))]
        assert pages[-1].to_version == 900
        read = [SyncPage.model_validate_json(answer(one, "r").to_json()) for one in pages]
        assert [u.user_id for one in read for u in one.upserts] == [c.identity.user_id for c in changed]
        assert all(len(one.upserts) <= limit for one in read)
        assert all(len(answer(one, "r" * 64).to_json()) <= max_bytes for one in pages)
        assert len(pages) > 2


def test_a_person_who_is_larger_than_a_page_travels_alone() -> None:
    """Whole: what is said of a person in a page is all that there is."""
    changed = [change(1), change(2, [0.5] * 40), change(3)]
    pages = list(cut_pages(place(), site_changes(changed, done=False), 2000))
    assert [one.to_version for one in pages] == [1, 2, 3]
    assert [one.done for one in pages] == [False] * 3
    assert {one.block_ends for one in pages} == {3}


def test_where_nothing_has_changed_one_empty_page_says_so() -> None:
    """So that whoever asks is told that it stands at the head."""
    (page,) = cut_pages(place(), site_changes([]))
    assert answer(page, "r-1").to_json() == by_model(page, [])
    assert (page.done, page.to_version) == (True, 900)

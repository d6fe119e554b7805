"""Pages and deltas are encoded byte for byte as their models encode them."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from broker_bridge.contract.digest import Digest
from broker_bridge.contract.embeddings import normalise
from broker_bridge.contract.messages import Removal, SyncDelta, SyncPage, Upsert, WireTemplate
from broker_bridge.enrollment.sync_encoder import encode_delta, encode_entry
from broker_bridge.enrollment.sync_pages import PageContent, PagePosition, cut_pages, encode_page
from broker_bridge.registry.identities.model import (
    EVERY_SITE,
    DeltaPage,
    Identity,
    IdentityDelta,
    Template,
    TemplateCount,
)
from broker_bridge.registry.identities.wire_size import wire_bytes
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
    identity = Identity(
        f"EMP-{number}", number, (EVERY_SITE,), (EVERY_SITE,), display_name=name, flag=flag, deleted=deleted
    )
    return IdentityDelta(
        identity,
        tuple(
            Template(SPACE, vector, quality, template_id=f"t-{number}-{n}")
            for n, (vector, quality) in enumerate(zip(vectors, templates, strict=True))
        ),
    )


def site_block(deltas: Sequence[IdentityDelta], *, done: bool = True) -> DeltaPage:
    return DeltaPage(HISTORY, 900, 900 if done else deltas[-1].identity.version, tuple(deltas), done)


def position(*, limit: int = 200, with_names: bool = False) -> PagePosition:
    return PagePosition.start("lobby", [SPACE], limit, with_names=with_names)


def to_sync_entries(
    deltas: Sequence[IdentityDelta], *, with_names: bool
) -> tuple[list[Upsert], list[Removal]]:
    """Return the models of `deltas`."""
    upserts, removals = [], []
    for delta in deltas:
        identity = delta.identity
        if not identity.belongs_to("lobby"):
            removals.append(Removal(user_id=identity.user_id, version=identity.version))
            continue
        templates = [
            WireTemplate(template_id=t.template_id, space=t.space, vector=t.vector, quality=t.quality)
            for t in delta.templates
        ]
        upserts.append(
            Upsert(
                user_id=identity.user_id,
                version=identity.version,
                flag=identity.flag,
                display_name=identity.display_name if with_names else None,
                templates=templates,
            )
        )
    return upserts, removals


def page_by_model(page: PageContent, deltas: Sequence[IdentityDelta], *, with_names: bool = False) -> bytes:
    upserts, removals = to_sync_entries(deltas, with_names=with_names)
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


changes = st.lists(
    st.tuples(st.lists(qualities, max_size=3), names, st.none() | st.just("red"), st.booleans()), max_size=4
).map(
    lambda drawn: [
        change(number, templates, name=name, flag=flag, deleted=deleted)
        for number, (templates, name, flag, deleted) in enumerate(drawn, start=1)
    ]
)


@settings(max_examples=100, deadline=None)
@given(deltas=changes, with_names=st.booleans())
def test_an_encoded_page_is_the_models_json(deltas: list[IdentityDelta], with_names: bool) -> None:
    """A page equals its model's JSON for all names, flags and qualities."""
    (page,) = cut_pages(position(with_names=with_names), site_block(deltas))
    payload = encode_page(page, "r-1").to_json()
    assert payload == page_by_model(page, deltas, with_names=with_names)
    assert SyncPage.model_validate_json(payload).to_json() == payload


@settings(max_examples=100, deadline=None)
@given(deltas=changes.filter(bool))
def test_an_encoded_delta_is_the_models_json(deltas: list[IdentityDelta]) -> None:
    """A delta equals its model's JSON, without names."""
    entries = [encode_entry(delta, "lobby", with_names=False) for delta in deltas]
    upserts, removals = to_sync_entries(deltas, with_names=False)
    model = SyncDelta(
        epoch="ab12",
        prev_version=0,
        version=deltas[-1].identity.version,
        upserts=upserts,
        removals=removals,
    )
    assert encode_delta("ab12", 0, entries).to_json() == model.to_json()


@settings(max_examples=100, deadline=None)
@given(deltas=changes)
def test_the_size_of_an_identity_bounds_its_encoded_bytes(deltas: list[IdentityDelta]) -> None:
    """The size computed without the vectors is a close upper bound of the bytes."""
    for delta in deltas:
        counted = TemplateCount(SPACE, Digest(len(delta.templates)))
        identity = replace(delta.identity, holdings=(counted,), deleted=False)
        encoded = encode_entry(replace(delta, identity=identity), "lobby", with_names=True).payload
        bound = wire_bytes(identity, {SPACE: 8})
        assert len(encoded) <= bound <= len(encoded) + 80 * len(delta.templates)


def test_a_block_is_cut_into_consecutive_pages() -> None:
    """Pages are cut by count and by bytes; only the last one is `done`."""
    deltas = [change(number) for number in range(1, 26)]
    for limit, max_bytes in ((10, 10**6), (200, 2000)):
        pages = list(cut_pages(position(limit=limit), site_block(deltas), max_bytes))
        assert [page.from_version for page in pages] == [0, *(page.to_version for page in pages[:-1])]
        assert [page.done for page in pages] == [*([False] * (len(pages) - 1)), True]
        assert [page.reset for page in pages] == [True, *([False] * (len(pages) - 1))]
        assert pages[-1].to_version == 900
        read = [SyncPage.model_validate_json(encode_page(page, "r").to_json()) for page in pages]
        assert [u.user_id for page in read for u in page.upserts] == [c.identity.user_id for c in deltas]
        assert all(len(page.upserts) <= limit for page in read)
        assert all(len(encode_page(page, "r" * 64).to_json()) <= max_bytes for page in pages)
        assert len(pages) > 2


def test_an_identity_larger_than_a_page_has_its_own_page() -> None:
    """An identity is never split: a page states all of its templates."""
    deltas = [change(1), change(2, [0.5] * 40), change(3)]
    pages = list(cut_pages(position(), site_block(deltas, done=False), 2000))
    assert [page.to_version for page in pages] == [1, 2, 3]
    assert [page.done for page in pages] == [False] * 3
    assert {page.block_end for page in pages} == {3}


def test_a_block_without_changes_is_one_empty_page() -> None:
    """The empty page tells the device that it has the head's version."""
    (page,) = cut_pages(position(), site_block([]))
    assert encode_page(page, "r-1").to_json() == page_by_model(page, [])
    assert (page.done, page.to_version) == (True, 900)

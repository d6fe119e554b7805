"""The gallery: best match per identity, margin, invalid vectors, and swaps."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_bridge.contract.embeddings import EmbeddingSpace
from broker_bridge.contract.messages import Upsert, WireTemplate
from device.enrollment.gallery_rows import GalleryRows
from device.store.db_manager import DatabaseManager
from device.vision.gallery import Gallery, GalleryHolder
from tests.waiting import wait_until

SPACE = EmbeddingSpace("face:test", 4)


def unit(*rows):
    vectors = np.array(rows, dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_the_best_template_counts_and_the_margin_is_to_another_identity():
    """A second template of the same identity does not reduce the margin."""
    gallery = Gallery(
        SPACE, ["EMP-2", "EMP-1", "EMP-2"], unit([1, 0, 0, 0], [0, 1, 0, 0], [1, 0.1, 0, 0]), version=9
    )
    match = gallery.match(unit([1, 0.1, 0, 0]))[0]
    assert match is not None
    assert match.user_id == "EMP-2"
    assert match.similarity == pytest.approx(1.0, abs=1e-6)
    assert match.distance == pytest.approx(0.0, abs=1e-6)
    assert match.margin == pytest.approx(1.0 - 0.1 / np.hypot(1, 0.1), abs=1e-6)
    assert (len(gallery), gallery.version, gallery.user_ids) == (3, 9, ("EMP-2", "EMP-1"))


def test_an_empty_gallery_matches_no_face():
    """The result has one None per face."""
    assert Gallery.empty(SPACE).match(unit([1, 0, 0, 0], [0, 1, 0, 0])) == [None, None]


def test_a_single_identity_has_a_margin_of_similarity_plus_one():
    """A minimum margin does not exclude a gallery of one identity."""
    match = Gallery(SPACE, ["EMP-1"], unit([1, 0, 0, 0])).match(unit([1, 1, 0, 0]))[0]
    assert match is not None
    assert match.margin == pytest.approx(match.similarity + 1)


def test_a_zero_or_nan_query_matches_no_identity():
    """The other queries are answered."""
    gallery = Gallery(SPACE, ["EMP-1"], unit([1, 0, 0, 0]))
    queries = np.array([[0, 0, 0, 0], [np.nan, 0, 0, 0], [1, 0, 0, 0]], dtype=np.float32)
    assert [match and match.user_id for match in gallery.match(queries)] == [None, None, "EMP-1"]


@pytest.mark.parametrize(
    "vectors",
    [
        np.ones((1, 3), np.float32),
        np.ones((2, 4), np.float32),
        np.ones(4, np.float32),
        np.array([[1, 0, 0, 0]], np.float64),
    ],
)
def test_a_gallery_refuses_rows_of_another_shape_or_type(vectors):
    """The error is a mistake of the program."""
    with pytest.raises(ValueError, match="gallery"):
        Gallery(SPACE, ["EMP-1"], vectors)


@pytest.mark.parametrize("spoilt", [[0, 0, 0, 0], [np.nan, 0, 0, 0], [3e38, 0, 0, 0], [2, 0, 0, 0]])
def test_an_invalid_row_is_left_out(spoilt):
    """The row is zero, NaN or far too long, say by a flipped bit.

    All other rows stay.
    """
    vectors = np.concatenate([unit([1, 0, 0, 0]), [spoilt], [spoilt], unit([0, 1, 0, 0])]).astype(np.float32)
    gallery = Gallery(SPACE, ["EMP-1", "EMP-1", "EMP-2", "EMP-3"], vectors)
    assert (len(gallery), gallery.user_ids) == (2, ("EMP-1", "EMP-3"))
    matches = gallery.match(unit([1, 0.1, 0, 0], [0.1, 1, 0, 0]))
    assert [match and match.user_id for match in matches] == ["EMP-1", "EMP-3"]


def test_only_a_gallery_of_the_same_space_can_be_swapped_in():
    """Vectors of two spaces are never compared."""
    holder = GalleryHolder(Gallery.empty(SPACE))
    full = Gallery(SPACE, ["EMP-1"], unit([1, 0, 0, 0]), version=2)
    holder.swap(full)
    assert holder.current is full
    with pytest.raises(ValueError, match="face:other"):
        holder.swap(Gallery.empty(EmbeddingSpace("face:other", 4)))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12), st.integers(0, 2**31 - 1))
def test_matching_equals_a_full_comparison(owners, seed):
    """For any order of rows the result is the maximum per identity."""
    random = np.random.default_rng(seed)
    vectors = unit(*random.standard_normal((len(owners), 4)))
    query = unit(random.standard_normal(4))
    match = Gallery(SPACE, [f"EMP-{owner}" for owner in owners], vectors).match(query)[0]
    best = {}
    for owner, similarity in zip(owners, vectors @ query[0], strict=True):
        best[f"EMP-{owner}"] = max(best.get(f"EMP-{owner}", -1.0), float(similarity))
    ranked = [*sorted(best.values(), reverse=True), -1.0]
    assert match is not None
    assert best[match.user_id] == pytest.approx(ranked[0], abs=1e-5)
    assert match.similarity == pytest.approx(ranked[0], abs=1e-5)
    assert match.margin == pytest.approx(ranked[0] - ranked[1], abs=1e-5)


def test_thousands_of_identities_match_as_in_a_full_comparison():
    """A large gallery uses another search with equal results."""
    random = np.random.default_rng(1)
    space = EmbeddingSpace("face:test", 128)
    vectors = unit(*random.standard_normal((4000, 128)))
    owners = [f"EMP-{row // 2}" for row in range(4000)]
    gallery = Gallery(space, owners, vectors)
    rows = random.integers(0, 4000, 50)
    queries = unit(*(vectors[rows] + 0.05 * random.standard_normal((50, 128))))
    for row, query, match in zip(rows, queries, gallery.match(queries, floor=0.3), strict=True):
        similarities = vectors @ query
        own = np.arange(4000) // 2 == row // 2
        second = similarities[~own].max()
        assert match is not None
        assert match.user_id == owners[row]
        assert match.similarity == pytest.approx(similarities[own].max(), abs=1e-5)
        assert match.margin == pytest.approx(match.similarity - second, abs=1e-5) or second < 0.3


def holder_of_one():
    return GalleryHolder(Gallery(SPACE, ["EMP-1"], unit([1, 0, 0, 0])))


def until_waiting(holder, threads=1):
    """Return when `threads` wait in `swap` for an older gallery."""
    wait_until(lambda: len(holder._returned._waiters) == threads, "a swap waits")


def test_a_swap_returns_when_the_old_gallery_is_not_in_use():
    """After it no match comes from a gallery with a deleted identity."""
    holder, new = holder_of_one(), Gallery.empty(SPACE)
    with ThreadPoolExecutor(1) as threads:
        with holder.borrow() as old:
            swapped = threads.submit(holder.swap, new)
            until_waiting(holder)
            assert not swapped.done()
            assert old.match(unit([1, 0, 0, 0]))[0].user_id == "EMP-1"
        swapped.result(timeout=5)
    assert holder.current is new


def test_recognition_never_waits_for_a_swap():
    """A recognition that starts while a swap waits gets the new gallery."""
    holder, new = holder_of_one(), Gallery.empty(SPACE)
    with ThreadPoolExecutor(1) as threads:
        with holder.borrow():
            swapped = threads.submit(holder.swap, new)
            until_waiting(holder)
            with holder.borrow() as gallery:
                assert gallery is new
            assert not swapped.done()
        swapped.result(timeout=5)


def test_the_newest_of_two_swaps_waits_for_the_oldest_gallery_too():
    """The release of the second gallery alone is not enough."""
    holder, newest = holder_of_one(), Gallery.empty(SPACE)
    with ThreadPoolExecutor(2) as threads:
        with holder.borrow():
            first = threads.submit(holder.swap, Gallery.empty(SPACE))
            until_waiting(holder)
            second = threads.submit(holder.swap, newest)
            until_waiting(holder, threads=2)
            with holder.borrow() as gallery:
                assert gallery is newest
            assert not first.done()
            assert not second.done()
        first.result(timeout=5)
        second.result(timeout=5)


def test_a_failure_in_recognition_releases_the_gallery():
    """The next swap does not wait for ever."""
    holder, new = holder_of_one(), Gallery.empty(SPACE)
    with pytest.raises(RuntimeError), holder.borrow():
        raise RuntimeError
    with ThreadPoolExecutor(1) as threads:
        threads.submit(holder.swap, new).result(timeout=5)
    assert holder.current is new


def test_no_match_comes_from_an_old_gallery_under_load():
    """Two threads recognise without a pause while identities come and go."""
    holder = GalleryHolder(Gallery.empty(SPACE))
    newest, late, stop = 0, [], threading.Event()

    def recognise():
        while not stop.is_set():
            known = newest
            with holder.borrow() as gallery:
                if gallery.version < known:
                    late.append((gallery.version, known))

    with ThreadPoolExecutor(2) as threads:
        running = [threads.submit(recognise) for _ in range(2)]
        for version in range(1, 301):
            holder.swap(Gallery(SPACE, ["EMP-1"], unit([1, 0, 0, 0]), version=version))
            newest = version
        stop.set()
        for task in running:
            task.result(timeout=5)
    assert late == []


@pytest.fixture
def db(tmp_path):
    manager = DatabaseManager(tmp_path / "device.db")
    manager.initialize()
    yield manager
    manager.close()


def enroll(db, user_id, vector):
    db.upsert_enrollment(user_id, vector, SPACE.id)


def test_a_gallery_is_loaded_whole_and_row_by_row(db):
    """More rows than one read fetches keep vector and identity together."""
    random = np.random.default_rng(2)
    vectors = unit(*random.standard_normal((100, 4)))
    for number, vector in enumerate(vectors):
        enroll(db, f"EMP-{number}", vector)
    user_ids, loaded = db.load_gallery(SPACE.id)
    assert sorted(user_ids) == sorted(f"EMP-{number}" for number in range(100))
    order = [int(user_id.removeprefix("EMP-")) for user_id in user_ids]
    np.testing.assert_allclose(loaded, vectors[order], atol=1e-6)
    rows = GalleryRows.from_stored(SPACE.id, 4, user_ids, loaded, 3)
    match = Gallery(SPACE, rows.user_ids, rows.vectors).match(vectors[:1])[0]
    assert match is not None
    assert match.user_id == "EMP-0"


def test_an_empty_space_loads_as_an_empty_gallery(db):
    """Without a row the dimension comes from the space."""
    user_ids, vectors = db.load_gallery(SPACE.id)
    assert (user_ids, vectors.shape) == ([], (0, 0))
    assert len(GalleryRows.from_stored(SPACE.id, 4, user_ids, vectors, 0).user_ids) == 0


def test_rows_of_another_length_are_left_out(db):
    """A full sync repairs this drift; the device starts with the other rows."""
    enroll(db, "EMP-1", [1, 0, 0, 0])
    enroll(db, "EMP-2", [1, 0, 0])
    enroll(db, "EMP-3", [0, 1, 0, 0])
    assert db.load_gallery(SPACE.id)[0] == ["EMP-1", "EMP-3"]


def test_a_damaged_row_is_left_out_of_the_gallery(db):
    """An exponent has a flipped bit; all other templates are compared."""
    for number, vector in enumerate(np.eye(4)):
        enroll(db, f"EMP-{number}", vector)
    with db.connection.transaction() as connection:
        spoilt = np.array([3e38, 0, 0, 0], "<f4").tobytes()
        connection.execute("UPDATE enrolled_users SET embedding = ? WHERE user_id = 'EMP-2'", (spoilt,))
    rows = GalleryRows.from_stored(SPACE.id, 4, *db.load_gallery(SPACE.id), 1)
    assert set(Gallery(SPACE, rows.user_ids, rows.vectors).user_ids) == {"EMP-0", "EMP-1", "EMP-3"}


def test_a_delta_does_not_change_the_rows_of_the_old_gallery():
    """The gallery in use shares them until the swap."""
    rows = GalleryRows(SPACE.id, 4, ["EMP-1", "EMP-2", "EMP-1"], unit(*np.eye(4)[:3]), 1)
    template = WireTemplate(template_id="t", space=SPACE.id, vector=unit([1, 1, 0, 0]).tobytes())
    changed = rows.with_changes([Upsert(user_id="EMP-1", version=2, templates=[template])], ["EMP-9"], 2)
    assert (changed.user_ids, changed.version) == (["EMP-2", "EMP-1"], 2)
    np.testing.assert_allclose(changed.vectors, unit([0, 1, 0, 0], [1, 1, 0, 0]), atol=1e-6)
    assert (rows.user_ids, rows.vectors.tolist()) == (["EMP-1", "EMP-2", "EMP-1"], np.eye(4)[:3].tolist())

"""The index gives the answers of a search through every vector, on both engines."""

import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker_bridge.vectors import bit_scan, coded_rows, sign_bits
from broker_bridge.vectors import index as vectors
from broker_bridge.vectors.index import EXACT_ROWS, VectorIndex

D = 512
ENGINES = ("numpy", "faiss")


def unit(values):
    values = np.asarray(values, np.float32)
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def towards(base, cosine, random):
    """Return vectors at `cosine` from `base` float32[n, d], in random directions."""
    noise = random.standard_normal(base.shape)
    noise -= np.einsum("ij,ij->i", noise, base)[:, None] * base
    cosine = np.broadcast_to(cosine, len(base))[:, None]
    return unit(cosine * base + np.sqrt(1 - cosine**2) * unit(noise))


def people(count, random, templates=5):
    """Return ArcFace-like templates: one key's at cosine 0.6 to 0.8, others' around 0."""
    base = unit(random.standard_normal((count, D)))
    keys = [f"EMP-{row // templates}" for row in range(count * templates)]
    cosine = np.sqrt(random.uniform(0.6, 0.8, count * templates))
    return keys, towards(np.repeat(base, templates, axis=0), cosine, random)


def best_by_key(keys, matrix, queries):
    """Return the keys, and float[q, keys]: the maximum over all rows of each."""
    names, owners = np.unique(keys, return_inverse=True)
    best = np.full((len(queries), len(names)), -1.0)
    for of_query, similarities in zip(best, queries @ matrix.T, strict=True):
        np.maximum.at(of_query, owners, similarities)
    return names, best


def assert_exact(index, keys, matrix, queries, floor):
    """Assert that answers at or above `floor` are exact, and others below it in both."""
    names, best = best_by_key(keys, matrix, queries)
    for of_query, answer in zip(best, index.search(queries, floor), strict=True):
        similarity = of_query.max()
        runner_up = np.partition(of_query, -2)[-2] if len(names) > 1 else -1.0
        if similarity >= floor + 1e-5:
            assert answer.key in names[of_query > similarity - 1e-5]
            assert answer.similarity == pytest.approx(similarity, abs=1e-5)
        else:
            assert answer.similarity < floor + 2e-5
        if runner_up >= floor + 1e-5:
            assert answer.runner_up == pytest.approx(runner_up, abs=1e-5)
        else:
            assert answer.runner_up < floor + 2e-5


@pytest.fixture(scope="module")
def crowd():
    return people(2000, np.random.default_rng(1))


@pytest.fixture(params=ENGINES)
def index(request, crowd):
    return VectorIndex.from_vectors(*crowd, engine=request.param)


def test_ten_thousand_templates_are_searched_exactly(index, crowd):
    """Known, unclear and unknown faces get the answers of a plain maximum."""
    random = np.random.default_rng(2)
    keys, matrix = crowd
    met = towards(matrix[random.integers(0, len(keys), 200)], random.uniform(0.45, 0.95, 200), random)
    unknown = unit(random.standard_normal((50, D)))
    assert_exact(index, keys, matrix, np.concatenate([met, unknown]), floor=0.5)


def test_both_engines_give_the_same_answers_to_the_last_bit(crowd):
    """The engines agree in keys and in numbers, also below the floor."""
    random = np.random.default_rng(3)
    queries = np.concatenate([towards(crowd[1][:100], 0.6, random), unit(random.standard_normal((100, D)))])
    first, second = (VectorIndex.from_vectors(*crowd, engine=engine).search(queries) for engine in ENGINES)
    assert first == second


def test_a_query_at_a_half_from_its_own_template_is_found(index, crowd):
    """All of 1,000 queries at the floor, where the bound is tightest, are found."""
    random = np.random.default_rng(4)
    keys, matrix = crowd
    rows = random.integers(0, len(keys), 1000)
    answers = index.search(towards(matrix[rows], 0.5, random))
    assert [answer.key for answer in answers] == [keys[row] for row in rows]


def test_look_alikes_are_distinguished_and_stand_in_the_runner_up(crowd):
    """Of keys at cosine 0.55 each is found, and the other one is the runner-up."""
    random = np.random.default_rng(5)
    keys, matrix = crowd
    doubles = towards(matrix[:500], 0.55, random)
    keys, matrix = [*keys, *(f"TWIN-{row}" for row in range(500))], np.concatenate([matrix, doubles])
    index = VectorIndex.from_vectors(keys, matrix)
    answers = index.search(doubles)
    assert [answer.key for answer in answers] == [f"TWIN-{row}" for row in range(500)]
    assert all(answer.runner_up > 0.54 for answer in answers)
    assert_exact(index, keys, matrix, towards(doubles, 0.8, random), floor=0.5)


def ranked_by_hand(keys, matrix, query, limit, floor):
    """Return the best of every key at `floor` or more from a maximum over all rows."""
    best = {}
    for key, similarity in zip(keys, (matrix @ query).tolist(), strict=True):
        if similarity >= floor:
            best[key] = max(best.get(key, -1.0), similarity)
    return sorted(best.items(), key=lambda ranked: -ranked[1])[:limit]


@pytest.mark.parametrize("limit", [0, 1, 5])
@pytest.mark.parametrize("floor", [0.25, 0.5, 0.6])
def test_the_best_keys_are_ranked_each_once(index, crowd, limit, floor):
    """A key with five templates and a look-alike is one entry, by the best template."""
    random = np.random.default_rng(16)
    keys, matrix = crowd
    for query in towards(matrix[:100], random.uniform(0.5, 0.9, 100), random):
        expected = ranked_by_hand(keys, matrix, query, limit, floor)
        ranked = index.rank(query, limit, floor)
        assert [entry.key for entry in ranked] == [key for key, _ in expected]
        assert [entry.similarity for entry in ranked] == pytest.approx(
            [best for _, best in expected], abs=1e-5
        )


def test_many_look_alikes_are_ranked_up_to_the_limit(index):
    """Of two hundred keys around one face the nearest five are ranked, or all."""
    random = np.random.default_rng(17)
    base = unit(random.standard_normal((1, D)))
    crowd = towards(np.repeat(base, 200, axis=0), np.linspace(0.55, 0.95, 200), random)
    for row, vector in enumerate(crowd):
        index.put(f"TWIN-{row}", vector[None])
    expected_keys = [f"TWIN-{row}" for row in range(199, -1, -1)]
    assert [entry.key for entry in index.rank(base[0], 5, 0.5)] == expected_keys[:5]
    assert [entry.key for entry in index.rank(3 * base[0], 1000, 0.5)] == expected_keys


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("rows", [0, 1, EXACT_ROWS + 1])
def test_no_key_is_ranked_for_a_broken_query_or_below_the_floor(engine, rows):
    """Zero, NaN, infinity and a stranger rank no key."""
    random = np.random.default_rng(18)
    matrix = unit(random.standard_normal((rows, D)))
    index = VectorIndex.from_vectors([f"EMP-{row}" for row in range(rows)], matrix, engine)
    for query in (np.zeros(D), np.full(D, np.nan), np.full(D, np.inf), random.standard_normal(D)):
        assert index.rank(query.astype(np.float32), 5, 0.5) == []
    with pytest.raises(ValueError, match="float32"):
        index.rank(np.ones(7, np.float32), 5, 0.5)


SKEWED = {
    "a large common part": lambda random, n: random.standard_normal((n, D)) + 1.5,
    "no negative coordinate": lambda random, n: np.maximum(random.standard_normal((n, D)), 0) ** 2,
    "after a PCA": lambda random, n: random.standard_normal((n, D)) * np.exp(-np.arange(D) / 40),
    "eight large ones": lambda random, n: random.standard_normal((n, D)) * np.where(np.arange(D) < 8, 12, 1),
    "few coordinates": lambda random, n: random.standard_normal((n, D)) * (random.random((n, D)) < 0.03),
    "192 dimensions": lambda random, n: random.standard_normal((n, 192)) + 0.5,
}  # fmt: skip


@pytest.mark.parametrize("floor", [0.6, 0.8])
@pytest.mark.parametrize("space", SKEWED)
def test_a_skewed_space_is_searched_exactly_too(space, floor):
    """The bound holds for angles, in any distribution of coordinates."""
    random = np.random.default_rng(6)
    base = SKEWED[space](random, 3000)
    keys = [f"EMP-{row}" for row in range(len(base))]
    noise = SKEWED[space](random, 100)
    queries = unit(base[:100] + random.uniform(0.2, 1.0, (100, 1)) * noise)
    assert_exact(VectorIndex.from_vectors(keys, unit(base)), keys, unit(base), queries, floor)


@pytest.mark.parametrize("engine", ENGINES)
def test_threads_find_the_rows_of_one_thread(engine, crowd, monkeypatch):
    """Five parts of rows give the answers of one part, for near and far queries."""
    random = np.random.default_rng(20)
    keys, matrix = crowd
    queries = np.concatenate([towards(matrix[:50], 0.6, random), unit(random.standard_normal((50, D)))])
    index = VectorIndex.from_vectors(keys, matrix, engine)
    alone = index.search(queries), [index.rank(query, 5, 0.5) for query in queries]
    monkeypatch.setattr(bit_scan, "_THREAD_ROWS", 1999)
    monkeypatch.setattr(bit_scan.os, "cpu_count", lambda: 8)
    submitted = []
    submit = bit_scan.ThreadPoolExecutor.submit
    monkeypatch.setattr(
        bit_scan.ThreadPoolExecutor, "submit", lambda *given: submitted.append(given) or submit(*given)
    )
    assert (index.search(queries), [index.rank(query, 5, 0.5) for query in queries]) == alone
    assert len(submitted) == 5 * 200


@pytest.mark.parametrize("engine", ENGINES)
def test_growing_never_stores_the_vectors_twice(engine):
    """Ten thousand vectors added one by one take less than a fifth more memory.

    A vector has 2 KB.
    """
    matrix = unit(np.random.default_rng(21).standard_normal((10_000, D)))
    index = VectorIndex(D, engine)
    tracemalloc.start()
    try:
        for row in range(len(matrix)):
            index.put(f"EMP-{row}", matrix[row : row + 1])
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 1.2 * matrix.nbytes
    assert [answer.key for answer in index.search(matrix[::1000])] == [
        f"EMP-{row}" for row in range(0, 10_000, 1000)
    ]


class Unrotated:
    """Leaves coordinates as they are."""

    def __init__(self, size):
        self.size = size

    def rotate(self, vectors):
        return vectors.copy()


def test_signs_without_rotation_miss_keys_in_a_skewed_space(monkeypatch):
    """Without the rotation the same search misses keys."""
    random = np.random.default_rng(8)
    base = SKEWED["after a PCA"](random, 3000)
    queries = unit(base + 0.8 * SKEWED["after a PCA"](random, 3000))
    keys = [f"EMP-{row}" for row in range(len(base))]
    monkeypatch.setattr(sign_bits, "rotation_of", Unrotated)
    monkeypatch.setattr(coded_rows, "_FEW", 32)
    index = VectorIndex.from_vectors(keys, unit(base))
    with pytest.raises(AssertionError):
        assert_exact(index, keys, unit(base), queries, floor=0.6)


def crowded_near(query, random, decoys):
    """Return rows without a differing bit at cosine 0.4, and a last row at 0.62."""
    tilt = np.where(np.arange(D) < 30, 8.0, 0.2) * random.uniform(0.5, 1.5, (decoys, D))
    near = unit(np.sign(query) * tilt)
    return np.concatenate([near, towards(query[None], 0.62, random)])


@pytest.mark.parametrize("engine", ENGINES)
def test_no_number_of_rows_with_nearer_bits_hides_the_nearest(engine, monkeypatch):
    """600 less similar rows share every bit with the query."""
    random = np.random.default_rng(9)
    query = unit(random.standard_normal(D))
    others = unit(random.standard_normal((4000, D)))
    crowd = crowded_near(query, random, 600)
    matrix = np.concatenate([others, crowd, -crowd[:-1]])  # Their mean is near zero.
    keys = [f"EMP-{row}" for row in range(len(matrix))]
    monkeypatch.setattr(sign_bits, "rotation_of", Unrotated)
    index = VectorIndex.from_vectors(keys, matrix, engine)
    codes = index._coded.columns[0]
    distances = np.bitwise_count(codes ^ index._coded._bits.encode(query[None])[0]).sum(axis=1)
    assert (distances < distances[4600]).sum() > 256
    assert index.search(query[None])[0].key == keys[4600]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("floor", [-1.0, 0.0, 0.3, 0.99, 1.0])
def test_any_floor_is_answered(engine, floor, crowd):
    """Very low floors are exact; very high ones still return the nearest candidate."""
    random = np.random.default_rng(10)
    keys, matrix = crowd
    index = VectorIndex.from_vectors(keys, matrix, engine)
    queries = np.concatenate([towards(matrix[:20], 0.9, random), unit(random.standard_normal((20, D)))])
    assert_exact(index, keys, matrix, queries, floor)
    assert [answer.key for answer in index.search(queries[:20], floor)] == keys[:20]


@pytest.mark.parametrize("engine", ENGINES)
def test_many_rows_of_one_key_leave_a_true_runner_up(engine):
    """The second key is found although all near rows belong to the first."""
    random = np.random.default_rng(11)
    base = unit(random.standard_normal((1, D)))
    crowd = towards(np.repeat(base, 2000, axis=0), 0.95, random)
    matrix = np.concatenate([crowd, -base])
    index = VectorIndex.from_vectors(["EMP-1"] * 2000 + ["EMP-2"], matrix, engine)
    answer = index.search(base)[0]
    assert (answer.key, answer.runner_up) == ("EMP-1", pytest.approx(-1.0, abs=1e-5))


@pytest.mark.parametrize("engine", ENGINES)
def test_one_key_alone_has_no_runner_up(engine):
    """Without another key the runner-up is -1."""
    matrix = unit(np.random.default_rng(12).standard_normal((EXACT_ROWS + 1, D)))
    answer = VectorIndex.from_vectors(["EMP-1"] * len(matrix), matrix, engine).search(matrix[:1])[0]
    assert (answer.key, answer.similarity, answer.runner_up) == ("EMP-1", pytest.approx(1.0, abs=1e-6), -1.0)
    assert answer.similarity <= 1.0


@pytest.mark.parametrize("engine", ENGINES)
def test_duplicates_are_found_under_the_first_key(engine, crowd):
    """The same template under two keys gives the first key and no margin."""
    keys, matrix = crowd
    index = VectorIndex.from_vectors([*keys, "COPY"], np.concatenate([matrix, matrix[:1]]), engine)
    answer = index.search(matrix[:1])[0]
    assert (answer.key, answer.similarity - answer.runner_up) == (keys[0], 0.0)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("rows", [1, EXACT_ROWS, EXACT_ROWS + 1, 5000])
def test_an_invalid_query_gives_none_beside_valid_ones(engine, rows):
    """Zero, NaN and infinity give None; the valid query beside them is answered."""
    matrix = unit(np.random.default_rng(13).standard_normal((rows, D)))
    index = VectorIndex.from_vectors([f"EMP-{row}" for row in range(rows)], matrix, engine)
    queries = np.stack([np.zeros(D), np.full(D, np.nan), np.full(D, np.inf), np.full(D, 3e38), 7 * matrix[0]])
    answers = index.search(queries.astype(np.float32))
    assert answers[:4] == [None] * 4
    assert (answers[4].key, answers[4].similarity) == ("EMP-0", pytest.approx(1.0, abs=1e-6))


@pytest.mark.parametrize("engine", ENGINES)
def test_an_empty_index_answers_none(engine):
    """An empty index returns one None per query."""
    index = VectorIndex(D, engine)
    assert index.search(unit(np.ones((2, D)))) == [None, None]
    assert VectorIndex.from_vectors([], np.empty((0, D), np.float32), engine).search(
        np.ones((1, D), np.float32)
    ) == [None]
    assert index.search(np.empty((0, D), np.float32)) == []


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((1, 8), np.float32),
        np.full((1, 8), np.nan, np.float32),
        np.full((1, 8), np.inf, np.float32),
        np.ones((1, 8), np.float32),
        np.ones((1, 7), np.float32),
        np.ones(8, np.float32),
        np.eye(8)[:1],
    ],
)
def test_invalid_vectors_are_rejected_and_change_nothing(wrong):
    """Invalid vectors raise ValueError and leave the index unchanged."""
    index = VectorIndex(8)
    index.put("EMP-1", np.eye(8, dtype=np.float32)[:1])
    with pytest.raises(ValueError, match=r"vectors are|expected float32"):
        index.put("EMP-1", wrong)
    with pytest.raises(ValueError, match=r"vectors are|expected (one vector|float32)"):
        VectorIndex.from_vectors(
            ["EMP-1"], wrong[..., :8] if wrong.shape[-1] == 8 else wrong.reshape(-1)[None, None]
        )
    assert index.search(np.eye(8, dtype=np.float32)[:1])[0].key == "EMP-1"


@pytest.mark.parametrize("wrong", [np.ones((1, 7), np.float32), np.ones(8, np.float32), np.ones((1, 8))])
def test_a_query_of_another_shape_or_type_is_rejected(wrong):
    """A query of the wrong shape or type raises ValueError."""
    with pytest.raises(ValueError, match="float32"):
        VectorIndex(8).search(wrong)


def test_keys_and_vectors_come_in_pairs():
    with pytest.raises(ValueError, match="2 keys"):
        VectorIndex.from_vectors(["EMP-1", "EMP-2"], np.eye(8, dtype=np.float32)[:1])


@pytest.mark.parametrize("engine", ENGINES)
def test_an_adopted_matrix_is_never_written_to(engine, crowd):
    """The index copies the caller's matrix before its first change."""
    keys, matrix = crowd
    before = matrix.copy()
    index = VectorIndex.from_vectors(keys, matrix, engine)
    assert np.shares_memory(index._vectors, matrix)
    index.remove(keys[0])
    index.put("NEW", matrix[:1])
    assert (matrix == before).all()
    assert index.search(matrix[:1])[0].key == "NEW"


@pytest.mark.parametrize("engine", ENGINES)
def test_removed_vectors_are_overwritten(engine):
    """Spare rows contain no copy of a removed (biometric) template."""
    random = np.random.default_rng(14)
    index = VectorIndex(D, engine)
    for number in range(10):
        index.put(f"EMP-{number}", unit(random.standard_normal((3, D))))
    for number in range(10):
        index.remove(f"EMP-{number}")
    assert (len(index), index.keys) == (0, ())
    assert not index._vectors.any()
    assert not any(column.any() for column in index._coded.columns)


changes = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(0, 2**31)), max_size=25)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dimension", [4, 64, 100])
@settings(max_examples=25, deadline=None)
@given(changes=changes, seed=st.integers(0, 2**31))
def test_changes_are_those_of_a_dictionary(engine, dimension, changes, seed):
    """Put, replace and remove in any order equal the changes of a dictionary."""
    model, index = {}, VectorIndex(dimension, engine)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vectors, "EXACT_ROWS", 0)
        for number, count, source in changes:
            key = f"EMP-{number}"
            model.pop(key, None)
            if count:
                model[key] = unit(np.random.default_rng(source).standard_normal((count, dimension)))
                index.put(key, model[key])
            elif source % 2:
                index.remove(key)
            else:
                index.put(key, np.empty((0, dimension), np.float32))
        assert (len(index), set(index.keys)) == (sum(map(len, model.values())), set(model))
        if not model:
            assert index.search(unit(np.ones((1, dimension)))) == [None]
            return
        keys = [key for key, rows in model.items() for _ in rows]
        matrix = np.concatenate(list(model.values()))
        random = np.random.default_rng(seed)
        queries = np.concatenate([matrix, towards(matrix, 0.9, random)])
        assert_exact(index, keys, matrix, queries, floor=0.8)


SPACES = {
    "normal": lambda random, n: random.standard_normal((n, 64)),
    "clustered": lambda random, n: np.eye(64)[random.integers(0, 4, n)] + random.normal(0, 0.05, (n, 64)),
    "squeezed": lambda random, n: random.standard_normal((n, 64)) + 2.5,
    "mean-shifted": lambda random, n: random.standard_normal((n, 64)) + np.arange(64) / 64,
    "duplicated": lambda random, n: np.sign(np.eye(64) - 0.5)[random.integers(0, 3, n)],
    "all equal": lambda random, n: np.ones((n, 64)),
    "opposite": lambda random, n: np.ones((n, 64)) * random.choice([-1, 1], (n, 1)),
    "nearly equal": lambda random, n: np.ones((n, 64)) + random.normal(0, 1e-6, (n, 64)),
    "of two dimensions": lambda random, n: random.standard_normal((n, 2)) @ np.eye(64)[[3, 40]],
}
steps = st.lists(
    st.tuples(st.integers(0, 8), st.sampled_from([0, 1, 2, 40]), st.integers(0, 2**31)),
    min_size=1,
    max_size=25,
)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("space", SPACES)
@settings(max_examples=15, deadline=None)
@given(steps=steps, later=st.sampled_from(list(SPACES)), floor=st.sampled_from([0.2, 0.5, 0.8, 0.97]))
def test_a_changing_space_is_searched_exactly(engine, space, steps, later, floor):
    """Half of the changes are of one spread and half of another.

    The mean moves meanwhile, and every row that is compared was selected by its code.
    """
    model, index = {}, VectorIndex(64, engine)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vectors, "EXACT_ROWS", 0)
        patch.setattr(coded_rows, "_NEAREST", 1)
        patch.setattr(coded_rows, "_FEW", 1)
        patch.setattr(coded_rows, "_EXACT_SHARE", 1.0)
        for position, (number, count, source) in enumerate(steps):
            draw = SPACES[space if position < len(steps) / 2 else later]
            rows = unit(draw(np.random.default_rng(source), count)).reshape(count, 64)
            model[f"EMP-{number}"] = rows
            index.put(f"EMP-{number}", rows)
        keys = [key for key, rows in model.items() for _ in rows]
        if not keys:
            return
        matrix = np.concatenate(list(model.values()))
        random = np.random.default_rng(steps[0][2])
        queries = np.concatenate(
            [matrix[:40], unit(SPACES[later](random, 10)), towards(matrix[:9], 0.9, random)]
        )
        assert_exact(index, keys, matrix, queries, floor)
        names, best = best_by_key(keys, matrix, queries[-5:])
        for query, of_query in zip(queries[-5:], best, strict=True):
            reaching = {key for key, value in zip(names, of_query, strict=True) if value >= floor + 1e-5}
            ranked = {entry.key: entry.similarity for entry in index.rank(query, 100, floor)}
            assert reaching <= set(ranked)
            assert all(similarity >= floor for similarity in ranked.values())


@pytest.mark.parametrize("engine", ENGINES)
def test_an_index_that_grew_follows_the_mean_of_its_rows(engine):
    """Rows of another spread move the mean, and its search compares few rows again."""
    random = np.random.default_rng(22)
    first = unit(random.standard_normal((1100, D)))
    later = unit(random.standard_normal((3500, D)) + 2.5)
    index = VectorIndex.from_vectors([f"EMP-{row}" for row in range(1100)], first, engine)
    for row in range(1100):
        index.remove(f"EMP-{row}")
    for row, vector in enumerate(later):
        index.put(f"NEW-{row}", vector[None])
    queries = towards(later[:20], 0.97, random)
    assert_exact(index, [f"NEW-{row}" for row in range(3500)], later, queries, floor=0.93)
    (selected,) = index._coded.select(queries[:1], 0.93, len(index))
    assert len(selected) <= coded_rows._FEW


@pytest.mark.parametrize("engine", ENGINES)
def test_an_index_that_grew_equals_one_that_was_built(engine, crowd):
    """Ten thousand `put`s, with replacements and removals, equal one construction."""
    keys, matrix = crowd
    people = list(dict.fromkeys(keys))
    index = VectorIndex(D, engine)
    for place, key in enumerate(people):
        index.put(key, matrix[-5:] if place % 2 else matrix[5 * place : 5 * place + 5])
    for place, key in enumerate(people):
        if place % 2:
            index.put(key, matrix[5 * place : 5 * place + 5])
    for key in people[::10]:
        index.remove(key)
    gone = set(people[::10])
    kept = [row for row, key in enumerate(keys) if key not in gone]
    queries = towards(matrix[::50], 0.7, np.random.default_rng(15))
    assert_exact(index, [keys[row] for row in kept], matrix[kept], queries, floor=0.5)


def test_without_faiss_numpy_counts_and_faiss_raises(monkeypatch):
    """FAISS is optional; requesting it where it is missing raises an error."""
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.setattr(bit_scan, "find_spec", lambda name: None)
    assert VectorIndex(8).engine == "numpy"
    with pytest.raises(ImportError):
        VectorIndex(8, "faiss")

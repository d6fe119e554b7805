"""Bits and estimates scatter around the cosine as the bounds assume."""

import subprocess
import sys

import numpy as np
import pytest

from broker_bridge.vectors import sign_bits
from broker_bridge.vectors.sign_bits import (
    SignBits,
    expected_distance,
    nearest_radius,
    required_cosine,
    search_radius,
)

D = 512
PAIRS = 2000


def unit(values):
    values = np.asarray(values, np.float32)
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def low_rank(random, n, rank, mean):
    """Return rows of `rank` uneven dimensions in 512, around a mean of length `mean`."""
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((D, rank)))[0].T
    spread = np.arange(1, rank + 1) ** -0.4
    return (random.standard_normal((n, rank)) * spread / np.linalg.norm(spread)) @ basis + mean * basis[-1]


SPACES = {
    "normal": lambda random, n: random.standard_normal((n, D)),
    "a large common part": lambda random, n: random.standard_normal((n, D)) + 1.5,
    "squeezed: impostors at 0.85": lambda random, n: low_rank(random, n, 128, 2.4),
    "impostors at 0.14": lambda random, n: low_rank(random, n, 128, 0.4),
    "of rank 40": lambda random, n: low_rank(random, n, 40, 0),
    "no negative coordinate": lambda random, n: np.maximum(random.standard_normal((n, D)), 0) ** 2,
    "after a PCA": lambda random, n: random.standard_normal((n, D)) * np.exp(-np.arange(D) / 40),
    "eight large ones": lambda random, n: random.standard_normal((n, D)) * np.where(np.arange(D) < 8, 12, 1),
    "few coordinates": lambda random, n: random.standard_normal((n, D)) * (random.random((n, D)) < 0.03),
    "192 dimensions": lambda random, n: random.standard_normal((n, 192)) + 0.5,
    "64 dimensions": lambda random, n: random.standard_normal((n, 64)),
}  # fmt: skip


def draw_pairs(space, noise):
    """Return an encoder around the mean, and pairs of rows as float64 and float32."""
    random = np.random.default_rng(19)
    base, other = SPACES[space](random, PAIRS), SPACES[space](random, PAIRS)
    middle = base.mean(axis=0)
    rows, queries = unit(base), unit(base + noise * (other - middle))
    return SignBits.for_space_of(rows), rows, queries


def centred_cosines(bits, rows, queries):
    rows, queries = (vectors.astype(np.float64) - bits.mean for vectors in (rows, queries))
    lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(queries, axis=1)
    return np.einsum("ij,ij->i", rows, queries) / lengths


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("noise", [0.75, 1.7])
def test_distances_and_estimates_scatter_as_the_bounds_assume(space, noise, monkeypatch):
    """In standard deviations both have mean 0 and spread 1, none near the bound."""
    bits, rows, queries = draw_pairs(space, noise)
    cosines = centred_cosines(bits, rows, queries).tolist()
    codes, facts = bits.encode(rows)
    asked = bits.encode_queries(queries)
    distances = np.bitwise_count(codes ^ np.stack([query.signs for query in asked])).sum(axis=1)
    expected = np.array([expected_distance(bits.bits, cosine) for cosine in cosines])
    deviations = (distances - expected[:, 0]) / expected[:, 1]
    assert abs(deviations.mean()) < 0.3
    assert 0.9 < deviations.std() < 1.1
    assert deviations.max() < 5

    def exceed(count):
        monkeypatch.setattr(sign_bits, "_DEVIATIONS", count)
        found = []
        for row, query in enumerate(asked):
            # The floor that the row just reaches.
            product = cosines[row] * np.sqrt(query.square * facts[row, 0])
            one = slice(row, row + 1)
            at = np.float32(distances[one])
            floor = product - query.offset - facts[row, 0] / 2
            found.append(bits.exceed(query, floor, codes[one], at, facts[one])[0])
        return np.array(found)

    errors = exceed(0)
    scores = errors / (exceed(1) - errors)
    assert -0.15 < scores.mean() < 1  # An estimate that is too large only costs a comparison.
    assert 0.9 < scores.std() < 1.3
    assert scores.min() > -4.8


@pytest.mark.parametrize("space", SPACES)
def test_the_required_cosine_is_that_of_the_row_that_needs_least(space):
    """No row reaches the floor below it, whatever its distance from the mean."""
    bits, rows, queries = draw_pairs(space, 1.0)
    squares = bits.encode(rows)[1][:, 0]
    span = float(squares.min()), float(squares.max())
    for query, vector in zip(bits.encode_queries(queries[:20]), queries[:20], strict=True):
        cosines = centred_cosines(bits, rows, np.broadcast_to(vector, rows.shape))
        for floor in (0.3, 0.6, 0.9):
            reaching = cosines[rows @ vector >= floor]
            assert (reaching >= required_cosine(query, floor, span)).all()


def test_rows_at_the_mean_are_never_ruled_out_where_they_reach_the_floor():
    """Rows equal to the mean have no direction; a query decides by its own cosine."""
    mean = unit(np.ones(D))
    bits = SignBits(mean)
    codes, facts = bits.encode(np.stack([mean, mean]))
    queries = unit(np.stack([mean, mean + unit(np.eye(D)[0])]))
    for query, cosine in zip(bits.encode_queries(queries), queries @ mean, strict=True):
        distances = np.bitwise_count(codes ^ query.signs).sum(axis=1).astype(np.float32)
        assert (bits.exceed(query, cosine, codes, distances, facts) >= 0).all()
        assert required_cosine(query, cosine, (facts[0, 0], facts[0, 0])) <= 0


def test_a_lower_cosine_widens_the_radius():
    """A lower cosine needs a larger radius, up to more than half the bits."""
    radii = [search_radius(512, cosine) for cosine in (0.9, 0.7, 0.5, 0.2)]
    assert radii == sorted(radii)
    assert radii[2] < 220
    assert radii[3] > 256
    assert nearest_radius(512, 2000) > nearest_radius(512, 1_000_000)


def test_codes_are_the_same_in_every_process():
    """The rotation depends on the dimension only."""
    program = (
        "import numpy as np, zlib; from broker_bridge.vectors.sign_bits import SignBits;"
        "v = np.random.default_rng(1).standard_normal((64, 100)).astype(np.float32);"
        "print(zlib.crc32(SignBits(v.mean(axis=0)).encode(v)[0].tobytes()))"
    )
    found = {subprocess.check_output([sys.executable, "-c", program]) for _ in range(2)}
    assert len(found) == 1

"""Check that the gallery digest is equal on device and backend in any order."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_bridge.contract.digest import Digest, template_hash
from broker_bridge.contract.embeddings import normalise

KNOWN = [
    ("EMP-12345", "face:example", [0.5, 0.5, 0.5, 0.5], "c89e2cc96b2d95f1"),
    ("EMP-67890", "face:example", [0.5, -0.5, 0.5, -0.5], "c84d50158b1a27b3"),
]
rows = st.lists(
    st.tuples(st.text(max_size=8), st.sampled_from(["face:a", "gait:b"]), st.binary(max_size=16)), max_size=12
)


def digest_of(items: list[tuple[str, str, bytes]]) -> Digest:
    total = Digest()
    for user_id, space, vector in items:
        total = total.plus(Digest.of(user_id, space, [vector]))
    return total


@pytest.mark.parametrize(("user_id", "space", "values", "frozen"), KNOWN)
def test_known_templates_have_their_frozen_digest(
    user_id: str, space: str, values: list[float], frozen: str
) -> None:
    """Every version of the software computes these digests."""
    assert Digest.of(user_id, space, [normalise(values, 4)]) == Digest(1, int(frozen, 16))
    assert Digest.of(user_id, space, [normalise(values, 4)]).hex == frozen


def test_the_digest_is_the_documented_hash() -> None:
    """The digest is 8-byte BLAKE2b of user id, NUL, space, NUL and vector, as hex."""
    vector = np.array([0.6, 0.8], dtype="<f4").tobytes()
    expected = hashlib.blake2b(b"EMP-1\0face:x\0" + vector, digest_size=8).hexdigest()
    assert Digest.of("EMP-1", "face:x", [vector]).hex == expected
    assert template_hash("EMP-1", "face:x", vector) == int(expected, 16)


def test_an_empty_gallery_has_sixteen_zeros() -> None:
    """A digest has its leading zeros, so that digests compare as text."""
    assert (Digest().count, Digest().hex) == (0, "0" * 16)


@given(items=rows, order=st.randoms())
def test_order_does_not_matter(items: list[tuple[str, str, bytes]], order) -> None:  # type: ignore[no-untyped-def]
    """The same templates in any order give the same digest."""
    shuffled = list(items)
    order.shuffle(shuffled)
    assert digest_of(shuffled) == digest_of(items)


@given(kept=rows, removed=rows)
def test_removing_undoes_adding(
    kept: list[tuple[str, str, bytes]], removed: list[tuple[str, str, bytes]]
) -> None:
    """A digest updated template by template equals one computed from all."""
    assert digest_of(kept + removed).minus(digest_of(removed)) == digest_of(kept)


def test_two_equal_templates_differ_from_none() -> None:
    """Equal templates cancel out in the XOR; the count distinguishes them from none."""
    twice = digest_of([("EMP-1", "face:a", b"v")] * 2)
    assert twice.value == Digest().value
    assert twice != Digest()


@pytest.mark.parametrize(
    "other", [("EMP-2", "face:a", b"vvvv"), ("EMP-1", "face:b", b"vvvv"), ("EMP-1", "face:a", b"vvvw")]
)
def test_user_id_space_and_vector_all_count(other: tuple[str, str, bytes]) -> None:
    """Each part of a template changes the digest."""
    assert digest_of([other]) != digest_of([("EMP-1", "face:a", b"vvvv")])

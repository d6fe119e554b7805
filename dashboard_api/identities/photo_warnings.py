"""Find photos of an enrollment that do not look like the others. No I/O."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from broker_bridge.contract.embeddings import to_array

PHOTO_DISAGREES = "photo-disagrees"

_STORED = "the photos that are enrolled already"


@dataclass(frozen=True)
class NamedVector:
    """The vector of a photo, with the name that sentences show."""

    name: str
    vector: bytes


def find_disagreements(
    photos: Sequence[NamedVector], stored: Sequence[bytes], look_alike: float
) -> list[str | None]:
    """Return a sentence per photo that resembles no other of the identity.

    Others are the further `photos` and the `stored` vectors; a photo resembles another from the similarity
    `look_alike` of the space. A photo without others has no sentence.
    """
    own = {photo.vector for photo in photos}
    others = [NamedVector(_STORED, vector) for vector in stored if vector not in own]
    rows = [*photos, *others]
    if len(rows) < 2:
        return [None] * len(photos)
    matrix = np.stack([to_array(row.vector) for row in rows])
    similar = matrix[: len(photos)] @ matrix.T
    np.fill_diagonal(similar, -np.inf)
    nearest = similar.argmax(axis=1).tolist()
    return [
        None if row[other] >= look_alike else _sentence(rows[other].name, float(row[other]))
        for row, other in zip(similar, nearest, strict=True)
    ]


def _sentence(nearest: str, similarity: float) -> str:
    return (
        f"this face does not look like that of the other photos (nearest: {nearest}, similarity "
        f"{similarity:.2f}): check that it is the same person, and take another photo if it is"
    )

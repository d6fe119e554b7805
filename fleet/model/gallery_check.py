"""Compare the gallery of the registry with itself.

Templates of different people are impostor pairs: limits that fit join almost none of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from broker_bridge.contract.embeddings import from_base64, to_array
from fleet.api_client import ApiClient

from .measures.pair_scores import Float32, Subjects, cosine_rows, score_pairs

# A few seconds of comparing; more templates say nothing new.
_MOST_TEMPLATES = 5000


@dataclass(frozen=True)
class EnrolledGallery:
    """Templates of the space: `user_ids[i]` has row i of `vectors`, float32[n, d]."""

    user_ids: tuple[str, ...]
    vectors: Float32


@dataclass(frozen=True)
class GalleryFit:
    """Pairs of templates of two people, how many match, and the most similar two."""

    people: int
    templates: int
    pairs: int
    matching: int
    most_alike: tuple[str, str, float] | None

    @property
    def share(self) -> float:
        return self.matching / self.pairs if self.pairs else 0.0


def read_gallery(api: ApiClient, space: str, dimension: int) -> EnrolledGallery:
    """Return the templates of `space` by an export, which the audit notes.

    Raises ApiRefusedError.
    """
    user_ids: list[str] = []
    vectors: list[Float32] = []
    for user_id, vector in _templates(api, space, dimension):
        user_ids.append(user_id)
        vectors.append(vector)
        if len(user_ids) == _MOST_TEMPLATES:
            break
    return EnrolledGallery(
        tuple(user_ids), np.array(vectors, dtype=np.float32).reshape(len(vectors), dimension)
    )


def _templates(api: ApiClient, space: str, dimension: int) -> Iterator[tuple[str, Float32]]:
    cursor: str | None = None
    while True:
        page = api.export_page(cursor, vectors=True)
        for item in page.items:
            for template in item.get("templates", []):
                if template["space"] == space:
                    vector = to_array(from_base64(template["vector"]))
                    if vector.shape == (dimension,):
                        yield str(item["user_id"]), vector
        cursor = page.next_cursor
        if cursor is None:
            return


def check_gallery(gallery: EnrolledGallery, distance: float) -> GalleryFit:
    """Return how many pairs of two people lie within `distance`."""
    names = sorted(set(gallery.user_ids))
    numbers = {name: number for number, name in enumerate(names)}
    subjects = np.array([numbers[user_id] for user_id in gallery.user_ids], dtype=np.int32)
    if len(names) < 2:
        return GalleryFit(len(names), len(gallery.user_ids), 0, 0, None)
    scores = score_pairs(gallery.vectors, subjects)
    matching = int((1.0 - scores.impostor.astype(np.float64) <= distance).sum())
    return GalleryFit(
        len(names), len(gallery.user_ids), len(scores.impostor), matching, _most_alike(gallery, subjects)
    )


def _most_alike(gallery: EnrolledGallery, subjects: Subjects) -> tuple[str, str, float]:
    best = (-2.0, 0, 0)
    for rows, cosines in cosine_rows(gallery.vectors, gallery.vectors):
        cosines[subjects[rows][:, None] == subjects] = -2.0
        row, column = divmod(int(cosines.argmax()), cosines.shape[1])
        best = max(best, (float(cosines[row, column]), int(rows[row]), column))
    return gallery.user_ids[best[1]], gallery.user_ids[best[2]], best[0]

"""Define the search of detected persons by face, for any search engine."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from broker_bridge.contract.embeddings import EmbeddingSpace, Vector
from broker_bridge.registry.detected_persons.centroid import FaceCentroid


class FaceCandidate(NamedTuple):
    """A person that resembles a face; `similarity` is the mean cosine.

    `global_id` is that of `person_faces`, merged or not: the caller resolves the merge group.
    """

    global_id: int
    similarity: float


class FaceSearch(Protocol):
    """A search over the centroids of all detected persons."""

    async def candidates(
        self, space: EmbeddingSpace, vectors: Sequence[Vector], limit: int, floor: float
    ) -> list[list[FaceCandidate]]:
        """Return up to `limit` persons for each of `vectors`, the most similar first.

        `vectors` are float32[d] of unit length. Similarities are `floor` or more. Raises RegistryError.
        """
        ...

    async def prepare_space(self, space: EmbeddingSpace) -> None:
        """Load now what the first search of `space` would wait for. Raises RegistryError."""
        ...

    def record_centroid(self, global_id: int, centroid: FaceCentroid) -> None:
        """Find a person by `centroid` from now on, before MongoDB reports the write."""
        ...

    def record_deletion(self, global_id: int) -> None:
        """Find a person no more, in any space."""
        ...

    async def follow_changes(self) -> None:
        """Follow the writes of other programs until cancelled."""
        ...

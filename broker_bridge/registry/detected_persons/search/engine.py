"""Who of all detected persons a face is like: what the tracker and the search by face ask, of any engine."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from broker_bridge.contract.embeddings import EmbeddingSpace, Vector
from broker_bridge.registry.detected_persons.centroid import FaceCentroid


class FaceCandidate(NamedTuple):
    """Somebody whom a face is like: `similarity` is the mean cosine to the faces that they are known by.

    `global_id` is that of `person_faces`, merged into another or not: whoever asks resolves it.
    """

    global_id: int
    similarity: float


class FaceSearch(Protocol):
    """A search over everybody who is known by a face."""

    async def candidates(
        self, space: EmbeddingSpace, vectors: Sequence[Vector], limit: int, floor: float
    ) -> list[list[FaceCandidate]]:
        """For each of `vectors` (float32[d], unit length) up to `limit` persons, most similar first.

        Their similarity is `floor` or more. Raises RegistryError.
        """
        ...

    async def prepare_space(self, space: EmbeddingSpace) -> None:
        """Prepare now, so that the first question does not wait. Raises RegistryError."""
        ...

    def record_centroid(self, global_id: int, face: FaceCentroid) -> None:
        """How this program knows somebody since now, who may be new, before MongoDB tells."""
        ...

    def record_deletion(self, global_id: int) -> None:
        """Nobody is to be found under this number any more."""
        ...

    async def follow_changes(self) -> None:
        """Keep up with what other programs write, until cancelled."""
        ...

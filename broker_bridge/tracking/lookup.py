"""Look up observed faces among all detected persons and all enrolled identities."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from broker_bridge.contract.embeddings import EmbeddingSpace, Vector
from broker_bridge.registry import Registry
from broker_bridge.registry.detected_persons.merge_groups import MergeGroup
from broker_bridge.registry.detected_persons.model import ObservedFace

from .identity_links import IdentityLinks
from .tracked_limits import TrackedLimits

# Seed 004 compares the nearest five of all.
_CANDIDATES = 5


class LookupResult(NamedTuple):
    """The merge groups that a face may belong to, and its sure identity."""

    groups: tuple[MergeGroup, ...] = ()
    user_id: str | None = None


class CandidateLookup:
    """Searches the face index and the identity index. Raises RegistryError."""

    def __init__(self, registry: Registry, limits: TrackedLimits, links: IdentityLinks) -> None:
        self._registry = registry
        self._limits = limits
        self._links = links

    async def look_up(self, batch: Sequence[ObservedFace]) -> list[LookupResult]:
        """Return a result for each face of `batch`, one search per space."""
        results: dict[int, LookupResult] = {}
        for space in sorted({observed.space for observed in batch}):
            positions = [position for position, observed in enumerate(batch) if observed.space == space]
            found = await self._look_up_in(space, [batch[position].vector for position in positions])
            results |= zip(positions, found, strict=True)
        return [results[position] for position in range(len(batch))]

    async def _look_up_in(self, space_id: str, vectors: Sequence[Vector]) -> list[LookupResult]:
        space = EmbeddingSpace(space_id, len(vectors[0]))
        floor = self._limits.in_space(space_id).tracking_floor
        candidates = await self._registry.face_search.candidates(space, vectors, _CANDIDATES, floor)
        user_ids = await self._links.find_identities(space, vectors)
        linked = await self._find_linked(user_ids)
        nearest = [[candidate.global_id for candidate in one_face] for one_face in candidates]
        groups = await self._find_groups({*linked.values(), *(id_ for ids in nearest for id_ in ids)})
        results = []
        for ids, user_id in zip(nearest, user_ids, strict=True):
            linked_id = linked.get(user_id) if user_id else None
            candidate_ids = ids if linked_id is None else [*ids, linked_id]
            found = tuple(groups[global_id] for global_id in candidate_ids if global_id in groups)
            results.append(LookupResult(found, user_id))
        return results

    async def _find_linked(self, user_ids: Iterable[str | None]) -> Mapping[str, int]:
        enrolled = [user_id for user_id in user_ids if user_id]
        return await self._registry.tracker_store.find_linked(enrolled) if enrolled else {}

    async def _find_groups(self, global_ids: set[int]) -> Mapping[int, MergeGroup]:
        # Most faces that are looked up are strangers and need no further read.
        if not global_ids:
            return {}
        return await self._registry.detected_person_queries.find_groups(global_ids)
